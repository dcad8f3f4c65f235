"""What the columns of a file probably mean, each with the reason, and what a person should check."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import pandas as pd

from detector.cleaning.values import read_booleans
from detector.detectors.series.reasons import duration
from detector.errors import SchemaError
from detector.schema import MISSING, are_codes, guess_kind
from pipelines.doctor.choice import Choice
from pipelines.doctor.column_names import ACCOUNT, AMOUNT, CODE, CURRENCY, ENTITIES, KEY, LABEL, PARTIES, SORT, TIME
from pipelines.doctor.counters import is_running_number
from pipelines.doctor.formats import NEARLY_ALL, example, numbers_in_forms, propose, share_of
from pipelines.doctor.reading_rows import HALF, Sampled, has_fractions, times_of
from pipelines.doctor.sensor_columns import COUNTS, as_sensor, with_clock, with_counters
from pipelines.doctor.sensor_rows import NO_STEP, Readings, machine_of, single_readings
from pipelines.progress import percent

MOST_ANOMALOUS = 0.3
FEW_CODES = 50
FEW_THINGS = 10
"""So many shops or machines at most are names to learn: what is normal hangs on which it is."""
LEAST_REPEATS = 2.0
HARDLY = 0.01
WAIT = 60
"""Readings that a score waits for, as it is proposed."""
FEW_REPEATED = 0.01
MANY_REPEATED = 0.1


@dataclass(frozen=True)
class Proposal:
    """What a file is taken for.

    - ``kind``: "table" or "sensors".
    - ``choices``: of each column.
    - ``counted``: columns beside the entity that name something whose rows can be counted, such as a terminal.
    - ``days``: how long the rows looked at reach, by their time; 0 without one.
    - ``dated``: whether times are days, without a clock.
    - ``entity_from``: where the entity is read from, if it is not a column.
    - ``apart``: whether each entity is a sensor of its own, so none is like another.
    - ``machines``: how many entities there are.
    - ``units``: of columns, as a line of the file names them.
    - ``step``: how often readings come.
    - ``sampled``: the steps that readings are put on which come when something changes.
    """

    kind: str
    why: str
    choices: list[Choice]
    counted: tuple[str, ...] = ()
    days: float = 0.0
    dated: bool = False
    entity_from: str | None = None
    apart: bool = False
    machines: int = 1
    units: Mapping[str, str] = field(default_factory=dict)
    step: pd.Timedelta = NO_STEP
    sampled: Sampled | None = None

    def named(self, part: str) -> list[Choice]:
        """The columns of a role or a kind."""
        return [choice for choice in self.choices if choice.part == part]

    def role(self, part: str) -> str | None:
        """The column that has a role."""
        return next((choice.column for choice in self.named(part)), None)

    @property
    def waits(self) -> str:
        """How long the readings take for which a score waits.

        >>> Proposal("sensors", "", [], step=pd.Timedelta("15min")).waits
        '15 h'
        """
        return duration(WAIT * (self.step if self.sampled is None else pd.Timedelta(self.sampled.every)))

    @property
    def counters(self) -> list[str]:
        """The sensors that count upwards."""
        return [each.column for each in self.named("numeric") if each.why == COUNTS]

    @property
    def amount(self) -> str | None:
        """The column that probably holds amounts of money."""
        return next((each.column for each in self.named("numeric") if AMOUNT.search(each.column)), None)

    @property
    def accounts(self) -> list[str]:
        """The columns of what an entity seldom changes, such as where it is paid, and what it pays with."""
        return [name for name in self.counted if ACCOUNT.search(name)]

    @property
    def currency(self) -> str | None:
        """The column that probably names the currency of the amounts."""
        return next((each.column for each in self.named("categorical") if CURRENCY.search(each.column)), None)


def proposal_of(frame: pd.DataFrame) -> Proposal:
    """Guess what each column means, given some rows.

    Raises ``SchemaError`` if there are no rows.

    >>> days = pd.date_range("2026-01-01", periods=4).astype(str)
    >>> found = proposal_of(pd.DataFrame({"id": list("abcd"), "booked_at": days, "amount": [1.5, 2.0, 2.5, 9.0]}))
    >>> [(choice.column, choice.part) for choice in found.choices]
    [('id', 'key'), ('booked_at', 'time'), ('amount', 'numeric')]
    """
    if frame.empty:
        raise SchemaError("There are no rows to look at. Give a file with some.")
    taken: dict[str, Choice] = {}

    def take(choice: Choice | None) -> None:
        if choice is not None:
            taken[choice.column] = choice

    def rest(rows: pd.DataFrame) -> pd.DataFrame:
        return rows.drop(columns=list(taken))

    take(label := _label(rest(frame)))
    if label is not None:
        for choice in _afterwards(frame, label.column):
            take(choice)
    take(time := _time(rest(frame)))
    read = frame.assign(**numbers_in_forms(rest(frame)))
    take(key := key_of(rest(read), frame.duplicated()))
    machine, found = machine_of(read, time, _entity(rest(read)), taken)
    if found is not None and (key is None or found.is_clocked or not KEY.search(key.column)):
        if key is not None:
            del taken[key.column]
        kind = "sensors"
        take(machine)
    else:
        kind, found = "table", Readings("each row stands for itself")
        take(_entity(rest(read), few=FEW_THINGS))
    for name in map(str, frame.columns):
        if name not in taken:
            take(_feature(name, frame[name], kind))
    varied = [each for each in taken.values() if frame[each.column].nunique() > 1]
    log, changed = single_readings(read, time, varied)
    taken |= {each.column: each for each in changed}
    choices = [taken[str(name)] for name in frame.columns]
    if time is not None and (log is not None or kind == "sensors"):
        choices = with_counters(choices, read, times_of(frame[time.column], time.form))
        choices = [with_clock(each, frame[time.column]) if each == time else each for each in choices]
    things = [each.column for each in choices if each.part in ("categorical", "ignore") and _names_things(each, read)]
    days, dated = (0.0, False) if time is None else _reach(times_of(frame[time.column], time.form))
    return Proposal(
        kind if log is None else "sensors",
        (log or found).why,
        choices,
        tuple(things),
        days=days,
        dated=dated,
        apart=log is not None,
        machines=next((read[each.column].nunique() for each in choices if each.part == "entity"), 1),
        step=(log or found).step,
        sampled=(log or found).sampled,
    )


def _label(frame: pd.DataFrame) -> Choice | None:
    for name in map(str, frame.columns):
        if not LABEL.search(name):
            continue
        try:
            values, unread = read_booleans(frame[name])
        except SchemaError:
            continue
        known = values[~unread & values.notna()]
        share = float((known == 1).mean()) if len(known) else 0.0
        if not unread.any() and 0 < share <= MOST_ANOMALOUS:
            check = "1 must mean anomalous, and the column must not be filled in by a rule that is to be replaced"
            return Choice(name, "label", f"its name, and {share_of((known == 1).to_numpy())} of the rows are 1", check)
    return None


def _afterwards(frame: pd.DataFrame, label: str) -> Iterator[Choice]:
    """Columns that are filled in where the label is 1 and nearly nowhere else: nobody knew them in time."""
    is_one = (read_booleans(frame[label])[0] == 1).to_numpy()
    for name in map(str, frame.columns):
        filled = frame[name].notna().to_numpy() & (frame[name].astype("str").str.strip() != "").to_numpy()
        if name == label or not filled[is_one].mean() > HALF or filled[~is_one].mean() > HARDLY:
            continue
        kind = guess_kind(frame[name])[0]
        check = "name it in `features.reported`, if it says when the label became known" if kind == "datetime" else ""
        yield Choice(name, "ignore", f"it is filled in where {label} is 1, and hardly anywhere else", check)


def _time(frame: pd.DataFrame) -> Choice | None:
    found: list[tuple[tuple[bool, bool, float], Choice]] = []
    for name in map(str, frame.columns):
        column = frame[name]
        kind, why = guess_kind(column)
        form, check = None, ""
        is_number = kind == "numeric"
        if kind != "datetime":
            if is_number and not TIME.search(name):
                continue
            forms = propose(column, dates=True)
            if not forms or forms[0][1] < NEARLY_ALL:
                continue
            form, why = forms[0][0], f"{percent(forms[0][1])} are dates, written {forms[0][0].describe()}"
            if len(forms) > 1:
                check = f"they would fit {forms[1][0].describe()} too, such as {example(column)}"
        distinct = column.nunique() / max(len(column), 1)
        score = (bool(TIME.search(name)), not bool(column.isna().any()), distinct)
        found.append((score, Choice(name, "time", why, check or "it must say when it happened", form)))
    return max(found, key=lambda each: each[0])[1] if found else None


def key_of(frame: pd.DataFrame, copies: pd.Series) -> Choice | None:
    """The column that names a row; that some rows are there twice as a whole does not speak against it."""
    spoilt: dict[str, int] = {}
    forgiven = int(copies.sum()) if copies.mean() <= MANY_REPEATED else 0
    for name in map(str, frame.columns):
        column = frame[name]
        bad = int((column.isna() | column.duplicated()).sum())
        may_repeat = KEY.search(name) and not any(word in name.lower() for word in ENTITIES)
        if bad > (FEW_REPEATED * len(frame) + forgiven if may_repeat else 0):
            continue
        if not has_fractions(column) and guess_kind(column)[0] != "datetime":
            spoilt[name] = bad
    named = [name for name in spoilt if KEY.search(name)]
    texts = [name for name in spoilt if guess_kind(frame[name])[0] != "numeric"]
    codes = [name for name in texts if not _is_prose(frame[name])]
    running = [name for name in spoilt if is_running_number(frame[name])]
    candidates = named or codes or running or texts
    if not candidates or len(frame) < 2:
        return None
    name = min(candidates, key=lambda each: spoilt[each])
    if spoilt[name]:
        which = f"{spoilt[name]:,} rows repeat it or have none, and would go to the quarantine; it must name a row"
        return Choice(name, "key", "it is different in nearly every row", which)
    check = "" if named else "it is different in every row looked at; it must name a row"
    return Choice(name, "key", "it is different in every row", check)


def _is_prose(column: pd.Series) -> bool:
    """Whether most values are of several words."""
    return bool(column.dropna().astype("str").str.strip().str.contains(r"\s").mean() > HALF)


def _entity(frame: pd.DataFrame, *, few: int = 1) -> Choice | None:
    """The column that names who or what a row is about; of a ``few`` things, which one it is belongs to the row."""
    found: list[tuple[int, Choice]] = []
    for name in map(str, frame.columns):
        column, words = frame[name].dropna(), name.lower()
        rank = next((place for place, word in enumerate(ENTITIES) if word in words), None)
        if rank is None or column.empty or has_fractions(column) or SORT.search(name):
            continue
        many = column.nunique()
        repeats = len(column) / many
        if many > (1 if ENTITIES[rank] in PARTIES else few) and repeats >= LEAST_REPEATS:
            why = f"{many:,} different, {repeats:,.0f} rows each"
            found.append((rank, Choice(name, "entity", why, "alerts are about it, and features look back at its past")))
    return min(found, key=lambda each: each[0])[1] if found else None


def _names_things(choice: Choice, frame: pd.DataFrame) -> bool:
    """Whether a column names many things that come again."""
    column = frame[choice.column].dropna()
    known = any(word in choice.column.lower() for word in ENTITIES) and not has_fractions(column)
    return known and FEW_CODES < column.nunique() <= len(column) / LEAST_REPEATS


def _reach(when: pd.Series) -> tuple[float, bool]:
    """How many days times span, and whether they are days, without a clock."""
    if when.empty:
        return 0.0, False
    return (when.max() - when.min()) / pd.Timedelta(days=1), bool((when == when.dt.normalize()).all())


def _feature(name: str, column: pd.Series, rows: str) -> Choice:
    column = column.mask(column.astype("str").str.strip().str.lower().isin(MISSING))
    distinct = column.nunique()
    if distinct == 0:
        return Choice(name, "ignore", "it is always missing")
    if distinct == 1:
        return _constant(name, column, rows)
    if is_running_number(column):
        check = "list it under numeric if it is something that was measured"
        return Choice(name, "ignore", "it counts the rows: those to come lie beyond all that is learnt", check)
    choice = next(_kinds(name, column, int(distinct)))
    return as_sensor(choice, column) if rows == "sensors" else choice


def _constant(name: str, column: pd.Series, rows: str) -> Choice:
    """A column of one value: another would be news, unless it is about the file, such as its number or its date."""
    has_gaps = bool(column.isna().any())
    kind, why = guess_kind(column)[0], f"it is {'missing or' if has_gaps else 'always'} {example(column.dropna())}"
    kind = "categorical" if kind == "numeric" and (are_codes(column) or CODE.search(name)) else kind
    is_text = kind == "datetime" or (rows == "sensors" and kind == "categorical")
    if is_text or has_gaps or any(each.search(name) for each in (LABEL, KEY, TIME)):
        return Choice(name, "ignore", why)
    return Choice(name, kind, why, "any other value counts as an anomaly; ignore it if it is about the file")


def _kinds(name: str, column: pd.Series, distinct: int) -> Iterator[Choice]:
    kind, why = guess_kind(column)
    are_padded = are_codes(column)
    if kind == "categorical" and not are_padded:
        for dates, other in ((False, "numeric"), (True, "datetime")):
            found = propose(column, dates=dates)
            if found and found[0][1] >= NEARLY_ALL:
                form = found[0][0]
                check = f"they would fit {found[1][0].describe()} too" if len(found) > 1 else ""
                yield Choice(name, other, f"{percent(found[0][1])} are {other}, written {form.describe()}", check, form)
        if distinct > HALF * column.count() and distinct > FEW_CODES:
            yield Choice(name, "ignore", f"text, {distinct:,} different: nearly every row that has one has another")
        yield Choice(name, "categorical", f"text, {distinct:,} different")
    is_name = CODE.search(name) or any(word in name.lower() for word in ENTITIES)
    if are_padded or (kind == "numeric" and is_name and not has_fractions(column)):
        reason = f"{'zeros before its digits' if are_padded else 'its name'}, and {distinct:,} different numbers"
        if distinct <= max(FEW_CODES, 0.1 * len(column)):
            yield Choice(name, "categorical", reason, "a code, not an amount")
        else:
            many = "nearly every row has another" if distinct > HALF * len(column) else "too many to learn each"
            check = "list it under numeric if it is an amount and no code"
            yield Choice(name, "ignore", f"{reason}: {many}", check)
    yield Choice(name, kind, why)
