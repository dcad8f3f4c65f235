"""Whether the columns are what the configuration says, by some of the rows."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator

import numpy as np
import pandas as pd

from detector.cleaning.values import Reading, read_booleans, read_categories, read_dates, read_names, read_numbers
from detector.errors import SchemaError, nearest
from detector.schema import KINDS, ROLES, Schema, guess_kind
from pipelines.config import ColumnsSection
from pipelines.doctor.check import Check, State, likewise
from pipelines.doctor.counters import is_running_number
from pipelines.doctor.formats import MANY_LOST, example, forms_of_text, share_of, unread_check
from pipelines.doctor.missing_words import number_for_none
from pipelines.doctor.names import MANY_REPEATED
from pipelines.doctor.times import are_misread, moves_on
from pipelines.progress import counted

MANY_MISSING = 0.5
MANY_VALUES = 0.9
NEARLY_ALL_ROWS = 0.99
FEW_ROWS = 50
ABSURD = 1e9

_WORDS = {"numeric": "a number", "boolean": "true or false", "datetime": "a date", "time": "a time"}
_LABEL = re.compile(r"(is_?)?(fraud|fraudulent|anomaly|anomalous|outlier|label|class|target|y|betrug|auffällig)")
_READERS = {"numeric": read_numbers, "boolean": read_booleans, "datetime": read_dates}


def check_columns(section: ColumnsSection, frame: pd.DataFrame, *, skips: bool = False) -> Iterator[Check]:
    """Every named column: whether it is there; every column: whether its values fit its meaning.

    - ``skips``: Whether the service skips rows that another file has, too.
    """
    present = [str(name) for name in frame.columns]
    lost = [(place, name) for place, name in _named(section) if name not in present]
    for place, name in lost:
        yield Check(place, "problem", f"there is no column {name!r}", nearest(name, present))
    known = _without(section, {name for _, name in lost})
    try:
        schema = known.schema_of(frame)
    except SchemaError as error:
        yield Check("columns", "problem", str(error), "Give each column one meaning.")
        return
    if not schema.features:
        yield Check("columns", "problem", "no column is a feature", "Name some as numeric or categorical.")
        return
    kinds = ", ".join(f"{len(names)} {kind}" for kind in KINDS if (names := getattr(schema, kind)))
    yield Check("columns", "ok", f"{len(schema.features):,} to learn from: {kinds}")
    yield from _roles(schema, frame, skips=skips)
    guessed = set(schema.features) - _listed(section)
    yield from kind_checks(schema, frame, guessed)
    yield from likewise(
        (name, check)
        for name in schema.features
        for check in _feature(name, schema.kind_of(name), frame[name], guessed=name in guessed)
    )
    yield from _moving(schema, frame)


def _moving(schema: Schema, frame: pd.DataFrame) -> Iterator[Check]:
    """A warning of each column that time moves on: no value of the rows to come was learnt."""
    if schema.time is None:
        return
    when = read_dates(frame[schema.time])[0].dropna()
    for name in (*schema.categorical, *schema.numeric):
        if moves_on(frame[name], when):
            found = f"{name!r} moves on with time: {frame[name].nunique():,} values, none of which came again"
            advice = (
                "Each value to come will be one that was never learnt. If it is a period or a version, `ignore` it."
            )
            yield Check(f"columns.{schema.kind_of(name)}", "warning", found, advice)


def _listed(section: ColumnsSection) -> set[str]:
    return {name for kind in KINDS for name in getattr(section, kind)}


def _named(section: ColumnsSection) -> list[tuple[str, str]]:
    roles = [(f"columns.{role}", name) for role in ROLES if (name := getattr(section, role)) is not None]
    return roles + [(f"columns.{kind}", name) for kind in (*KINDS, "ignore") for name in getattr(section, kind)]


def _without(section: ColumnsSection, lost: set[str]) -> ColumnsSection:
    roles = {role: None for role in ROLES if getattr(section, role) in lost}
    kinds = {kind: tuple(n for n in getattr(section, kind) if n not in lost) for kind in (*KINDS, "ignore")}
    return section.model_copy(update={**roles, **kinds})


def _roles(schema: Schema, frame: pd.DataFrame, *, skips: bool) -> Iterator[Check]:
    if schema.key is not None:
        yield _key(schema.key, frame[schema.key], frame.duplicated(), skips=skips)
        yield from _totals(schema.key, frame[schema.key])
    if schema.time is not None:
        yield _time(schema.time, frame[schema.time])
    if schema.entity is not None:
        names = read_names(frame[schema.entity])
        state: State = "warning" if names.isna().any() else "ok"
        found = f"{schema.entity!r}: {names.nunique():,} different, {share_of(names.isna())} missing"
        yield Check("columns.entity", state, found)
    if schema.label is not None:
        yield _label(schema.label, frame[schema.label])
    else:
        yield from _unnamed_label(schema, frame)


def _key(name: str, column: pd.Series, copies: pd.Series, *, skips: bool) -> Check:
    names = read_names(column)
    absent, repeated = names.isna(), names.duplicated() & names.notna()
    copied = repeated & copies
    if (repeated & ~copied).mean() > MANY_REPEATED:
        found = f"{name!r} is the same in {share_of(repeated)} of the rows"
        return Check("columns.key", "problem", found, "It names no row: choose another, or leave it out.")
    if absent.any() or repeated.any():
        found = f"{name!r}: {share_of(absent)} missing, {share_of(repeated)} repeated"
        if copied.any():
            found += f", {share_of(copied)} in rows that are copies of others as a whole"
        state: State = "problem" if ((absent | repeated) & ~copied).mean() > MANY_LOST else "warning"
        advice = "These rows will go to the quarantine."
        if copied.any() and skips:
            advice = "The service skips copies of rows of another file; all others will go to the quarantine."
        return Check("columns.key", state, found, advice)
    return Check("columns.key", "ok", f"{name!r} is different in every row")


def _totals(name: str, column: pd.Series) -> Iterator[Check]:
    """A warning of the few rows whose key is a word where all others have a number: a total below the rows."""
    names = read_names(column).dropna().astype("str")
    words = names[~names.str.contains(r"\d")]
    if 0 < len(words) <= (1 - NEARLY_ALL_ROWS) * len(names):
        found = f"{name!r} holds no digit in {counted(len(words))}, unlike all others, such as {example(words)}"
        advice = "If it is a total, take it out of the file: it counts as a row, to learn from and to score."
        yield Check("columns.key", "warning", found, advice)


def _time(name: str, column: pd.Series) -> Check:
    times, unread = _read("time", column)
    if unread.any():
        return unread_check("columns.time", repr(name), column, unread, "a time")
    if times.isna().all():
        return Check("columns.time", "problem", f"{name!r} is always missing", "Name another column.")
    found = f"{name!r}: {times.min():%Y-%m-%d %H:%M} to {times.max():%Y-%m-%d %H:%M}"
    if are_misread(times):
        advice = "Years far from ours: is it another column, or written in another form than `source.formats` says?"
        return Check("columns.time", "problem", found, advice)
    if times.isna().any():
        found += f"; {share_of(times.isna())} missing"
        state: State = "problem" if times.isna().mean() > MANY_LOST else "warning"
        return Check("columns.time", state, found, "These rows will go to the quarantine.")
    return Check("columns.time", "ok", found)


def _label(name: str, column: pd.Series) -> Check:
    labels, unread = _read("boolean", column)
    ones, zeros = int((labels == 1).sum()), int((labels == 0).sum())
    found = f"{name!r}: {ones:,} anomalous, {zeros:,} normal, {share_of(labels.isna() & ~unread)} unknown"
    if unread.any():
        found += f", {share_of(unread)} unreadable, such as {example(column[unread])}"
        return Check("columns.label", "problem", found, "Expected 1 (anomalous), 0 (normal) or nothing.")
    if not zeros:
        return Check("columns.label", "problem", found, "There is no normal row to learn from.")
    if not ones:
        return Check("columns.label", "warning", found, "Without both, `evaluate` has nothing to measure.")
    if ones > zeros:
        return Check("columns.label", "warning", found, "More anomalous than normal: is 1 the anomaly?")
    return Check("columns.label", "ok", found)


def _unnamed_label(schema: Schema, frame: pd.DataFrame) -> Iterator[Check]:
    """A feature that is likely the truth: learning from it would be cheating."""
    for name in (*schema.numeric, *schema.boolean):
        if _LABEL.fullmatch(name.lower()) and not read_booleans(frame[name])[1].any():
            found = f"the feature {name!r} looks like the known truth"
            yield Check("columns.label", "warning", found, f"Set `label: {name}`, or list it under `ignore`.")


def _feature(name: str, kind: str, column: pd.Series, *, guessed: bool) -> Iterator[Check]:
    """What is odd about one feature; nothing if nothing is."""
    place = f"columns.{kind}"
    try:
        values, unread = _read(kind, column)
    except SchemaError as error:
        yield Check(place, "problem", str(error))
        return
    title = f"{name!r} (guessed {kind})" if guessed else repr(name)
    missing = values.isna().to_numpy() & ~unread
    if unread.any():
        yield unread_check(place, title, column, unread, _WORDS[kind])
    if kind == "categorical" and guessed:
        yield from forms_of_text(name, column)
    if missing.all():
        advice = "Nothing is learnt from it; any value counts as an anomaly. Is it to be filled in? `ignore` it."
        yield Check(place, "warning", f"{title} is always missing", advice)
    elif missing.mean() > MANY_MISSING:
        yield Check(place, "warning", f"{title}: {share_of(missing)} missing", "Is that meant?")
    different = values.nunique()
    if different == 1 and not missing.any():
        advice = "Nothing is learnt from it; any other value counts as an anomaly. Is it to change? `ignore` it."
        yield Check(place, "warning", f"{title} is always {example(column)}", advice)
    if len(values) >= FEW_ROWS and _names_rows(kind, values, different):
        advice = "If it names the row, make it the `key` or list it under `ignore`."
        yield Check(place, "warning", f"{title} is different in nearly every row", advice)
    if kind == "numeric" and (none := number_for_none(values)) is not None:
        advice = f"If it stands for a missing value, say so: `source.formats: {{{name}: {{missing: [{none}]}}}}`."
        yield Check(place, "warning", f"{title} holds {none} again and again, far from all others", advice)
    elif kind == "numeric" and (far := _absurd(values)) is not None:
        advice = f"If it is none, leave such rows out of training: `train.cleaning.rules: ['{name} < …']`."
        yield Check(place, "warning", f"{title} holds {far:g}, far beyond all others", advice)
    if kind == "numeric" and (infinite := np.isinf(values.to_numpy())).any():
        found = f"{title}: {share_of(infinite)} infinite"
        yield Check(place, "warning", found, "These rows will go to the quarantine.")


def _absurd(values: pd.Series) -> float | None:
    """The largest value of a column, if no other is anywhere near it."""
    size = values[np.isfinite(values)].abs()
    if size.empty or size.max() <= ABSURD * max(1.0, float(size.quantile(0.99))):
        return None
    return float(values[size.idxmax()])


def _names_rows(kind: str, values: pd.Series, different: int) -> bool:
    """Whether a column looks like a row's number or name: text that never repeats, or a count upwards."""
    if kind == "categorical":
        return different > MANY_VALUES * len(values)
    return kind == "numeric" and is_running_number(values)


def _read(kind: str, column: pd.Series) -> Reading:
    if kind == "categorical":
        return read_categories(column), np.zeros(len(column), dtype=bool)
    return _READERS["datetime" if kind == "time" else kind](column)


MOST_LISTED = 60
MOST_CODES = 5_000
LEAST_REPEATS = 2.0
_CODE = re.compile(
    r"(.*[_\W])?(mcc|sic|naics|code|kind|type|category|zip|postcode|postal|plz|bin|country|currency|iso|channel|"
    r"branch|shop|store|terminal|merchant|id|no|nr|number)(_?(id|code|no|nr|number))?",
)


def kind_checks(schema: Schema, frame: pd.DataFrame, guessed: Collection[str]) -> Iterator[Check]:
    """Every feature; of very many those that nothing speaks against are only counted."""
    checks = [kind_check(name, schema.kind_of(name), frame[name], guessed=name in guessed) for name in schema.features]
    if len(checks) <= MOST_LISTED:
        yield from checks
        return
    yield from (check for check in checks if check.state != "ok")
    quiet = Counter((check.place, check.found.partition(": ")[2]) for check in checks if check.state == "ok")
    for (place, found), count in quiet.items():
        yield Check(place, "ok", f"{counted(count, 'column')}: {found}")


def kind_check(name: str, kind: str, column: pd.Series, *, guessed: bool) -> Check:
    """One feature: what it is taken for and why, and what speaks against it.

    >>> column = pd.Series([5411, 5812] * 50)
    >>> kind_check("mcc", "numeric", column, guessed=True).advice
    'If they are codes, list it under `columns.categorical`; the difference of two codes means nothing.'
    """
    place = f"columns.{kind}"
    if not guessed:
        return Check(place, "ok", f"{name!r}: {kind}, as the configuration says")
    why = guess_kind(column)[1]
    found = f"{name!r}: {kind}, guessed, as {why}"
    if kind == "numeric" and _CODE.fullmatch(name.lower()) and _are_codes(column):
        advice = "If they are codes, list it under `columns.categorical`; the difference of two codes means nothing."
        return Check(place, "warning", found, advice)
    return Check(place, "ok", found)


def _are_codes(column: pd.Series) -> bool:
    """Whether numbers are whole, none below zero, and come again and again."""
    numbers = pd.to_numeric(column, errors="coerce").dropna()
    if numbers.empty or (numbers % 1 != 0).any() or (numbers < 0).any():
        return False
    different = numbers.nunique()
    return bool(1 < different <= MOST_CODES and len(numbers) >= LEAST_REPEATS * different)
