"""Whether the columns are what the configuration says, judged by some of the rows."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import pandas as pd

from detector.cleaning.values import Reading, read_booleans, read_categories, read_dates, read_names, read_numbers
from detector.errors import SchemaError, nearest
from detector.schema import KINDS, ROLES, Schema
from pipelines.config import ColumnsSection
from pipelines.doctor.check import Check, State

MANY_MISSING = 0.5
MOSTLY_UNREAD = 0.5
MANY_REPEATED = 0.1
MANY_VALUES = 0.9
FEW_ROWS = 50

_WORDS = {"numeric": "a number", "boolean": "true or false", "datetime": "a date", "time": "a time"}
_LABEL = re.compile(r"(is_?)?(fraud|fraudulent|anomaly|anomalous|outlier|label|class|target|y)")
_ISO = "Expected times such as 2024-01-31 10:00:00, or seconds since 1970."
_READERS = {"numeric": read_numbers, "boolean": read_booleans, "datetime": read_dates}


def check_columns(section: ColumnsSection, frame: pd.DataFrame) -> Iterator[Check]:
    """Every named column: whether it is there; every column: whether its values fit its meaning."""
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
    yield Check("columns", "ok", f"{len(schema.features)} to learn from: {kinds}")
    yield from _roles(schema, frame)
    for name in schema.features:
        yield from _feature(name, schema.kind_of(name), frame[name], guessed=name not in _listed(section))


def _listed(section: ColumnsSection) -> set[str]:
    return {name for kind in KINDS for name in getattr(section, kind)}


def _named(section: ColumnsSection) -> list[tuple[str, str]]:
    roles = [(f"columns.{role}", name) for role in ROLES if (name := getattr(section, role)) is not None]
    return roles + [(f"columns.{kind}", name) for kind in (*KINDS, "ignore") for name in getattr(section, kind)]


def _without(section: ColumnsSection, lost: set[str]) -> ColumnsSection:
    roles = {role: None for role in ROLES if getattr(section, role) in lost}
    kinds = {kind: tuple(n for n in getattr(section, kind) if n not in lost) for kind in (*KINDS, "ignore")}
    return section.model_copy(update={**roles, **kinds})


def _roles(schema: Schema, frame: pd.DataFrame) -> Iterator[Check]:
    if schema.key is not None:
        yield _key(schema.key, frame[schema.key])
    if schema.time is not None:
        yield _time(schema.time, frame[schema.time])
    if schema.entity is not None:
        names = read_names(frame[schema.entity])
        state: State = "warning" if names.isna().any() else "ok"
        found = f"{schema.entity!r}: {names.nunique():,} different, {_share(names.isna())} missing"
        yield Check("columns.entity", state, found)
    if schema.label is not None:
        yield _label(schema.label, frame[schema.label])
    else:
        yield from _unnamed_label(schema, frame)


def _key(name: str, column: pd.Series) -> Check:
    names = read_names(column)
    absent, repeated = names.isna(), names.duplicated() & names.notna()
    if repeated.mean() > MANY_REPEATED:
        found = f"{name!r} is the same in {_share(repeated)} of the rows"
        return Check("columns.key", "problem", found, "It names no row: choose another, or leave it out.")
    if absent.any() or repeated.any():
        found = f"{name!r}: {_share(absent)} missing, {_share(repeated)} repeated"
        return Check("columns.key", "warning", found, "These rows will go to the quarantine.")
    return Check("columns.key", "ok", f"{name!r} is different in every row")


def _time(name: str, column: pd.Series) -> Check:
    times, unread = _read("time", column)
    if times.isna().all():
        return Check("columns.time", "problem", f"{name!r} holds no time, such as {_example(column)}", _ISO)
    found = f"{name!r}: {times.min():%Y-%m-%d %H:%M} to {times.max():%Y-%m-%d %H:%M}"
    if times.isna().any():
        found += f"; {_share(unread)} unreadable, {_share(times.isna() & ~unread)} missing"
        return Check("columns.time", "warning", found, "These rows will go to the quarantine.")
    return Check("columns.time", "ok", found)


def _label(name: str, column: pd.Series) -> Check:
    labels, unread = _read("boolean", column)
    ones, zeros = int((labels == 1).sum()), int((labels == 0).sum())
    found = f"{name!r}: {ones:,} anomalous, {zeros:,} normal, {_share(labels.isna() & ~unread)} unknown"
    if unread.any():
        found += f", {_share(unread)} unreadable, such as {_example(column[unread])}"
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
        if _LABEL.fullmatch(name.lower()) and set(read_booleans(frame[name])[0].dropna()) <= {0.0, 1.0}:
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
        found = f"{title}: {_share(unread)} is not {_WORDS[kind]}, such as {_example(column[unread])}"
        if unread.mean() > MOSTLY_UNREAD:
            yield Check(place, "problem", found, "List it under `categorical` or `ignore`.")
        else:
            yield Check(place, "warning", found, "These rows will go to the quarantine.")
    if missing.all():
        yield Check(place, "warning", f"{title} is always missing", "It tells nothing.")
    elif missing.mean() > MANY_MISSING:
        yield Check(place, "warning", f"{title}: {_share(missing)} missing", "Is that meant?")
    different = values.nunique()
    if different == 1 and not missing.any():
        yield Check(place, "warning", f"{title} is always {_example(column)}", "It tells nothing.")
    if len(values) >= FEW_ROWS and _names_rows(kind, values, different):
        advice = "If it names the row, make it the `key` or list it under `ignore`."
        yield Check(place, "warning", f"{title} is different in nearly every row", advice)
    if kind == "numeric" and (infinite := np.isinf(values.to_numpy())).any():
        found = f"{title}: {_share(infinite)} infinite"
        yield Check(place, "warning", found, "These rows will go to the quarantine.")


def _names_rows(kind: str, values: pd.Series, different: int) -> bool:
    """Whether a column looks like a row's number or name: text that never repeats, or a count upwards."""
    if kind == "categorical":
        return different > MANY_VALUES * len(values)
    if kind != "numeric" or different < len(values):
        return False
    return bool((values % 1 == 0).all() and values.is_monotonic_increasing)


def _read(kind: str, column: pd.Series) -> Reading:
    if kind == "categorical":
        return read_categories(column), np.zeros(len(column), dtype=bool)
    return _READERS["datetime" if kind == "time" else kind](column)


def _share(mask: pd.Series | np.ndarray) -> str:
    share = float(np.mean(mask))
    return f"{share:.0%}" if share in (0.0, 1.0) or share >= 0.1 else f"{share:.2%}"


def _example(column: pd.Series) -> str:
    known = column.dropna()
    text = repr(str(known.iloc[0])) if len(known) else "nothing"
    return text if len(text) <= 40 else text[:39] + "…"
