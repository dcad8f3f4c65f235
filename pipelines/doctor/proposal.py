"""What the columns of a file probably mean, each with the reason, and what a person should check."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import pandas as pd

from detector.cleaning.values import read_booleans
from detector.detectors.series.reasons import duration
from detector.detectors.series.recipe import SeriesRecipe
from detector.errors import SchemaError
from detector.schema import KINDS, guess_kind
from pipelines.doctor.choice import Choice
from pipelines.doctor.column_names import (
    ACCOUNT,
    AMOUNT,
    CURRENCY,
    KEY,
    LABEL,
    LATITUDE,
    LONGITUDE,
    TIME,
)
from pipelines.doctor.counters import is_running_number
from pipelines.doctor.feature_columns import feature_of
from pipelines.doctor.formats import example, numbers_in_forms, share_of
from pipelines.doctor.missing_words import with_missing_readings
from pipelines.doctor.names import (
    HALF,
    entity_of,
    key_of,
    maybe_entities,
    names_things,
)
from pipelines.doctor.reading_rows import Sampled
from pipelines.doctor.sensor_columns import COUNTS, with_clock, with_counters
from pipelines.doctor.sensor_rows import NO_STEP, Readings, machine_of, single_readings
from pipelines.doctor.times import is_clock, moves_on, reach, time_of, times_of

MOST_ANOMALOUS = 0.3
FEW_THINGS = 10
"""So many shops or machines at most are names to learn: what is normal hangs on which it is."""
HARDLY = 0.01
MOST_NAMED = 3
WAIT, LONGEST_WAIT = 60, pd.Timedelta(days=1)
"""Readings that a score waits for, as is proposed, and how long those may take that it comes to."""
MANY_ROWS, FEW_ROWS = 20_000, 500
WAITED = [SeriesRecipe(wait=WAIT).resolved(rows).rows_around(SeriesRecipe.window) for rows in (MANY_ROWS, FEW_ROWS)]
"""What that comes to where many rows were learnt from, and where few were."""


@dataclass(frozen=True)
class Proposal:
    """What a file is taken for.

    - ``kind``: "table" or "sensors".
    - ``choices``: of each column.
    - ``counted``: columns beside the entity that name something whose rows can be counted, such as a terminal.
    - ``days``: how long the rows looked at reach, by their time; 0 without one.
    - ``pace``: of how many days are the rows of an entity apart, in the mean; 0 without one.
    - ``dated``: whether times are days, without a clock.
    - ``entity_from``: where the entity is read from, if it is not a column.
    - ``apart``: whether each entity is a sensor of its own, so none is like another.
    - ``machines``: how many entities there are.
    - ``units``: of columns, as a line of the file names them.
    - ``step``: how often readings come.
    - ``sampled``: the steps that readings are put on which come when something changes.
    - ``notes``: what a person should check that is about no column that was chosen.
    """

    kind: str
    why: str
    choices: list[Choice]
    counted: tuple[str, ...] = ()
    days: float = 0.0
    pace: float = 0.0
    dated: bool = False
    entity_from: str | None = None
    apart: bool = False
    machines: int = 1
    units: Mapping[str, str] = field(default_factory=dict)
    step: pd.Timedelta = NO_STEP
    sampled: Sampled | None = None
    notes: tuple[str, ...] = ()

    def named(self, part: str) -> list[Choice]:
        """The columns of a role or a kind."""
        return [choice for choice in self.choices if choice.part == part]

    def role(self, part: str) -> str | None:
        """The column that has a role."""
        return next((choice.column for choice in self.named(part)), None)

    def _wait(self, readings: int) -> pd.Timedelta:
        return readings * (self.step if self.sampled is None else pd.Timedelta(self.sampled.every))

    @property
    def is_slow(self) -> bool:
        """Whether readings come so seldom, as once an hour or a month, that nobody can wait for those after one."""
        return bool(self._wait(WAITED[0]) >= LONGEST_WAIT)

    @property
    def waits(self) -> str:
        """For how many readings a score waits, and how long they take.

        >>> Proposal("sensors", "", [], step=pd.Timedelta("15min")).waits
        '74 to 102 (18 h 30 min to 25 h 30 min)'
        """
        few, many = WAITED
        return f"{few} to {many} ({duration(self._wait(few))} to {duration(self._wait(many))})"

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
    def place(self) -> tuple[str, str] | None:
        """The columns that hold a latitude and a longitude."""
        numbers = [each.column for each in self.named("numeric")]
        found = [next((name for name in numbers if axis.search(name)), None) for axis in (LATITUDE, LONGITUDE)]
        return None if found[0] is None or found[1] is None else (found[0], found[1])

    @property
    def currency(self) -> str | None:
        """The column that probably names the currency of the amounts."""
        return next((each.column for each in self.named("categorical") if CURRENCY.search(each.column)), None)


def proposal_of(frame: pd.DataFrame, spread: pd.DataFrame | None = None) -> Proposal:
    """Guess what each column means, given some rows.

    - ``frame``: rows that follow each other, which tell how rows come and what names them.
    - ``spread``: rows from the first of a table to the last, where ``frame`` does not hold all: the first rows of a
      year are all of January. By default the same.

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
    take(time := time_of(rest(frame)))
    read = frame.assign(**numbers_in_forms(rest(frame)))
    take(key := key_of(rest(read), frame.duplicated()))
    machine, found = machine_of(read, time, entity_of(rest(read)), taken)
    if found is not None and (key is None or found.is_clocked or not KEY.search(key.column)):
        if key is not None:
            del taken[key.column]
        kind = "sensors"
        take(machine)
    else:
        kind, found = "table", Readings("each row stands for itself")
        take(entity_of(rest(read), few=FEW_THINGS))
    whole = frame if spread is None or kind == "sensors" else spread
    for name in map(str, frame.columns):
        if name not in taken:
            rows = frame if is_running_number(frame[name]) else whole
            take(feature_of(name, rows[name], rows=kind))
    varied = [each for each in taken.values() if frame[each.column].nunique() > 1]
    log, changed = single_readings(read, time, varied)
    taken |= {each.column: each for each in changed}
    choices = [taken[str(name)] for name in frame.columns]
    if time is not None and (log is not None or kind == "sensors"):
        choices = with_counters(
            with_missing_readings(choices, frame, read), read, times_of(frame[time.column], time.form)
        )
        choices = [with_clock(each, frame[time.column]) if each == time else each for each in choices]
    proposal = Proposal(
        kind if log is None else "sensors",
        (log or found).why,
        choices,
        apart=log is not None,
        machines=next((read[each.column].nunique() for each in choices if each.part == "entity"), 1),
        step=(log or found).step,
        sampled=(log or found).sampled,
    )
    return _by_time(_without_the_unlearnable(proposal, read if spread is None else spread, time), read, time)


def _without_the_unlearnable(found: Proposal, read: pd.DataFrame, time: Choice | None) -> Proposal:
    if found.kind == "sensors" or time is None:
        return found
    when = times_of(read[time.column], time.form)
    return replace(found, choices=[_unless_it_moves(each, read, when) for each in found.choices])


def _by_time(found: Proposal, read: pd.DataFrame, time: Choice | None) -> Proposal:
    """The same with what can be counted, how long and how often, and what a person may have to add."""
    spare = [each for each in found.choices if each.part in ("categorical", "ignore")]
    things = tuple(each.column for each in spare if names_things(each, read))
    days, dated = (0.0, False) if time is None else reach(times_of(read[time.column], time.form))
    entity = found.role("entity")
    if entity is not None and time is not None:
        found = replace(found, choices=[_unless_it_is_somebodys(each, things, entity) for each in found.choices])
    pace = days * read[entity].nunique() / len(read) if entity is not None else 0.0
    found = replace(found, counted=things, days=days, dated=dated, pace=pace)
    return replace(found, notes=tuple(_missing_roles(found, read)))


def _unless_it_moves(choice: Choice, frame: pd.DataFrame, when: pd.Series) -> Choice:
    if choice.part not in ("categorical", "numeric") or not moves_on(frame[choice.column], when):
        return choice
    why = f"it moves on with time, {frame[choice.column].nunique():,} different so far: those to come are not learnt"
    return Choice(choice.column, "ignore", why)


def _unless_it_is_somebodys(choice: Choice, things: tuple[str, ...], entity: str) -> Choice:
    """An account or a device belongs to who uses it: which one it is says nothing, and that it is new is a feature."""
    if choice.part != "categorical" or choice.column not in things or not ACCOUNT.search(choice.column):
        return choice
    return Choice(choice.column, "ignore", f"{choice.why}: that one is new of {entity} is a feature below")


def _missing_roles(found: Proposal, frame: pd.DataFrame) -> Iterator[str]:
    """What is missed without a time, or without a column that says who or what a row is about, and what it may be."""
    if found.kind != "table":
        return
    if not any(frame[each.column].nunique() > 1 for each in found.choices if each.part in KINDS):
        yield "columns: nothing is left to learn from, for the reasons above. List as numeric or categorical what tells"
    for name in () if found.role("time") else [each.column for each in found.choices if each.part != "numeric"]:
        if TIME.search(name) and _may_be_times(frame[name]):
            text = f"columns.time: none was recognised. If {name} says when, such as {example(frame[name])}"
            yield f"{text}, say how it is written: `source.formats: {{{name}: {{date: ...}}}}`"
    clocks = [each.column for each in found.named("ignore") if found.dated and is_clock(frame[each.column])]
    if clocks:
        text = (
            f"columns.time: {found.role('time')} has no clock. If {clocks[0]} belongs to it, join both into one column"
        )
        yield f"{text}, such as 2026-01-31 14:05; without it nothing is counted by the hour"
    if found.role("key") is None:
        yield "columns.key: no column is different in every row; without one, answers and reports teach nothing"
    if found.role("entity") is None:
        spare = [each.column for each in found.choices if each.part in ("categorical", "ignore")]
        if maybe := maybe_entities(frame[spare])[:MOST_NAMED]:
            text = f"columns.entity: no name of a column says who or what a row is about. If one of {', '.join(maybe)}"
            yield f"{text} does, name it: alerts are then about it, and features can look back at its past"


def _may_be_times(column: pd.Series) -> bool:
    """Whether most values are of digits and of something else, as 31.1.26 is, and "lunch" and 7 are not."""
    known = column.dropna().astype("str")
    return bool(known.nunique() > 1 and known.str.contains(r"[0-9]\D|\D[0-9]").mean() > HALF)


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
            which = "of the rows" if len(known) == len(values) else f"of the {len(known):,} rows that have one"
            return Choice(name, "label", f"its name, and {share_of((known == 1).to_numpy())} {which} are 1", check)
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
