"""Which columns of a file name a row, who or what it is about, and things that come again."""

from __future__ import annotations

import re

import pandas as pd

from detector.schema import MISSING, guess_kind
from pipelines.doctor.choice import Choice
from pipelines.doctor.column_names import KEY, PARTIES, rank_of
from pipelines.doctor.counters import is_running_number
from pipelines.doctor.formats import NEARLY_ALL

HALF = 0.5
FEW_CODES = 50
LEAST_REPEATS = 2.0
FEW_REPEATED = 0.01
MANY_REPEATED = 0.1
LEAST_LONG = 11
TWO = 2
"""Of two values one is yes and one is no, such as whether somebody pays by card."""


def key_of(frame: pd.DataFrame, copies: pd.Series) -> Choice | None:
    """The column that names a row; that some rows are there twice as a whole does not speak against it."""
    spoilt: dict[str, int] = {}
    forgiven = int(copies.sum()) if copies.mean() <= MANY_REPEATED else 0
    for name in map(str, frame.columns):
        column = frame[name]
        bad = int((column.isna() | column.duplicated()).sum())
        may_repeat = KEY.search(name) and rank_of(name) is None
        if bad > (FEW_REPEATED * len(frame) + forgiven if may_repeat else 0):
            continue
        if not (has_fractions(column) or is_nested(column)) and guess_kind(column)[0] != "datetime":
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
    """The column that names who or what a row is about; of a ``few`` things, which one it is belongs to the row.

    A ``few`` whole numbers are no customers, but grades, such as how a household is off.
    """
    found: list[tuple[tuple[int, bool, int], Choice]] = []
    for name in map(str, frame.columns):
        column, rank = frame[name].dropna(), rank_of(name)
        if rank is None or column.empty or has_fractions(column):
            continue
        many = column.nunique()
        repeats = len(column) / many
        is_party = rank < len(PARTIES) and guess_kind(column)[0] != "numeric"
        if many > (min(few, TWO) if is_party else few) and repeats >= LEAST_REPEATS:
            why = f"{many:,} different, {repeats:,.0f} rows each"
            choice = Choice(name, "entity", why, "alerts are about it, and features look back at its past")
            found.append(((rank, not KEY.search(name), -many), choice))
    return min(found, key=lambda each: each[0])[1] if found else None


def maybe_entities(frame: pd.DataFrame) -> list[str]:
    """The columns of text whose values come again, the most different first: who a row is about may be among them."""
    many = {str(name): frame[name].nunique() for name in frame.columns if guess_kind(frame[name])[0] == "categorical"}
    chosen = [name for name, count in many.items() if FEW_CODES < count <= frame[name].count() / LEAST_REPEATS]
    return sorted((name for name in chosen if not is_nested(frame[name])), key=lambda name: -many[name])


def names_things(choice: Choice, frame: pd.DataFrame) -> bool:
    """Whether a column names many things, of which some come again: how often one does can be counted."""
    column = frame[choice.column].dropna()
    if rank_of(choice.column) is None or has_fractions(column) or _is_prose(column):
        return False
    return bool(column.nunique() > FEW_CODES and column.duplicated().mean() > FEW_REPEATED)


def is_nested(column: pd.Series) -> bool:
    """Whether values hold several, as lists and objects do.

    >>> is_nested(pd.Series(["{'lat': 48.1}", None, "{}"])), is_nested(pd.Series(["[see note]", "none"]))
    (True, False)
    """
    known = column.dropna().astype("str").str.strip()
    return bool(len(known) and known.str.fullmatch(r"\{.*\}|\[.*\]", flags=re.DOTALL).mean() > HALF + HALF / 2)


def are_long_codes(column: pd.Series) -> bool:
    """Whether numbers are whole and nearly all of as many digits, more than what is counted or paid ever has.

    >>> are_long_codes(pd.Series([358888888888888, 350000023107599])), are_long_codes(pd.Series([4_000_000_000, 90]))
    (True, False)
    """
    digits = column.dropna().astype("str").str.strip()
    digits = digits[digits.str.fullmatch(rf"[0-9]{{{LEAST_LONG},}}")].str.len()
    return bool(len(digits) and (digits == digits.mode()[0]).sum() >= NEARLY_ALL * column.count())


def has_fractions(column: pd.Series) -> bool:
    """Whether a column holds numbers that are not all whole; of a CSV file they may be text.

    Some names of digits and letters are numbers by chance:

    >>> has_fractions(pd.Series(["12.5", "3", "n/a"])), has_fractions(pd.Series(["12e-5", "7a3f", "c0de", "99e9999"]))
    (True, False)
    """
    known = column.dropna()
    known = known[~known.astype("str").str.strip().str.lower().isin(MISSING)]
    numbers = pd.to_numeric(known, errors="coerce").dropna()
    return bool(len(numbers) > HALF * len(known) and (numbers % 1 != 0).any())
