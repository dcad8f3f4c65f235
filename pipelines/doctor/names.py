"""Which columns of a file name a row, who or what it is about, and things that come again."""

from __future__ import annotations

import pandas as pd

from detector.schema import MISSING, guess_kind
from pipelines.doctor.choice import Choice
from pipelines.doctor.column_names import ENTITIES, KEY, PARTIES, SORT
from pipelines.doctor.counters import is_running_number

HALF = 0.5
FEW_CODES = 50
LEAST_REPEATS = 2.0
FEW_REPEATED = 0.01
MANY_REPEATED = 0.1


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


def entity_of(frame: pd.DataFrame, *, few: int = 1) -> Choice | None:
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


def names_things(choice: Choice, frame: pd.DataFrame) -> bool:
    """Whether a column names many things that come again."""
    column = frame[choice.column].dropna()
    known = any(word in choice.column.lower() for word in ENTITIES) and not has_fractions(column)
    return known and FEW_CODES < column.nunique() <= len(column) / LEAST_REPEATS


def has_fractions(column: pd.Series) -> bool:
    """Whether a column holds numbers that are not all whole; of a CSV file they may be text.

    Some names of digits and letters are numbers by chance:

    >>> has_fractions(pd.Series(["12.5", "3", "n/a"])), has_fractions(pd.Series(["12e-5", "7a3f", "c0de", "99e9999"]))
    (True, False)
    """
    known = column[~column.astype("str").str.strip().str.lower().isin(MISSING)]
    numbers = pd.to_numeric(known, errors="coerce").dropna()
    return bool(len(numbers) > HALF * len(known) and (numbers % 1 != 0).any())
