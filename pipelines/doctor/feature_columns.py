"""What a column is that is neither key, time, entity nor label: a number, a category, a truth, a date, or nothing."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from detector.arrays import Flags
from detector.cleaning.values import read_dates, read_numbers
from detector.schema import MISSING, MISSING_WORDS, are_codes, guess_kind
from pipelines.doctor.choice import Choice
from pipelines.doctor.column_names import CODE, KEY, LABEL, TIME, YEAR, rank_of
from pipelines.doctor.counters import is_running_number
from pipelines.doctor.formats import NEARLY_ALL, example, propose, share_of
from pipelines.doctor.missing_words import with_missing, without, words_of
from pipelines.doctor.names import FEW_CODES, HALF, are_long_codes, has_fractions, is_nested
from pipelines.doctor.sensor_columns import as_sensor
from pipelines.doctor.times import is_clock
from pipelines.progress import percent

THESE_YEARS = (1800, 2100)
_READERS = {"numeric": read_numbers, "datetime": read_dates}
_WORDS = {"numeric": "a number", "datetime": "a date"}


def feature_of(name: str, column: pd.Series, *, rows: str) -> Choice:
    """What a column is taken for, where ``rows`` are a "table" or "sensors".

    >>> answers = pd.Series(["1", "2", "3", "4+"] * 25)
    >>> choice = feature_of("visits", answers, rows="table")
    >>> choice.part, choice.why
    ('categorical', "4 different, and 25 % is not a number, such as '4+'")
    """
    column = _without_missing(column)
    distinct = column.nunique()
    if distinct == 0:
        return Choice(name, "ignore", "it is always missing")
    if distinct == 1:
        return _constant(name, column, rows)
    if is_running_number(column):
        check = "list it under numeric if it is something that was measured"
        return Choice(name, "ignore", "it counts the rows: those to come lie beyond all that is learnt", check)
    if rows == "table":
        return next(_kinds(name, column, int(distinct)))
    words = words_of(column)
    numbers = without(column, words)
    choice = next(_kinds(name, numbers, int(numbers.nunique())))
    if choice.part != "numeric":
        choice = next(_kinds(name, column, int(distinct)))
    return as_sensor(with_missing(choice, words), column)


def _without_missing(column: pd.Series) -> pd.Series:
    """A column without what stands for a missing value; beside text, a sign is a value as any, such as + and -."""
    text = column.astype("str").str.strip().str.lower()
    known = column.mask(text.isin(MISSING))
    is_text = known.notna().any() and guess_kind(known)[0] == "categorical"
    return column.mask(text.isin(MISSING_WORDS)) if is_text else known


def _constant(name: str, column: pd.Series, rows: str) -> Choice:
    """A column of one value: another would be news, unless it is about the file, such as its number or its date."""
    has_gaps = bool(column.isna().any())
    kind, why = guess_kind(column)[0], f"it is {'missing or' if has_gaps else 'always'} {example(column.dropna())}"
    kind = "categorical" if kind == "numeric" and (are_codes(column) or CODE.search(name)) else kind
    is_text = kind == "datetime" or (rows == "sensors" and kind == "categorical")
    if is_text or has_gaps or any(each.search(name) for each in (LABEL, KEY, TIME, YEAR)):
        return Choice(name, "ignore", why)
    return Choice(name, kind, why, "any other value counts as an anomaly; ignore it if it is about the file")


def _kinds(name: str, column: pd.Series, distinct: int) -> Iterator[Choice]:
    """What a column of several values may be, the likeliest first."""
    kind, why = guess_kind(column)
    unread = _unread(column, kind)
    if unread.any():
        yield from _mixed(name, column, kind, unread)
    elif kind == "categorical" and not are_codes(column):
        yield from _text(name, column, distinct)
    if kind == "numeric" or are_codes(column):
        yield from _codes(name, column, distinct)
    yield Choice(name, kind, why, _check_of_year(name, column) if kind == "numeric" else "")


def _unread(column: pd.Series, kind: str) -> Flags:
    """Which values of text are not of the kind that most of them are."""
    if kind not in _READERS or not (column.dtype == object or pd.api.types.is_string_dtype(column)):
        return np.zeros(len(column), dtype=bool)
    return _READERS[kind](column)[1]


def _mixed(name: str, column: pd.Series, kind: str, unread: Flags) -> Iterator[Choice]:
    """A column that is mostly of a kind: what is not would go to the quarantine, row by row."""
    lost = f"{share_of(unread)} is not {_WORDS[kind]}, such as {example(column[unread])}"
    share = float(unread.sum() / column.count())
    yield from _in_a_form(name, column, kind, more_than=1 - share, are_whole=not has_fractions(column))
    if share <= 1 - NEARLY_ALL:
        yield from () if kind != "numeric" else _codes(name, column, column.nunique())
        yield Choice(name, kind, f"most of it is {_WORDS[kind]}", f"{lost}: these rows go to the quarantine")
    distinct = column.nunique()
    if distinct > FEW_CODES and (kind == "datetime" or has_fractions(column)):
        check = f"write it as {_WORDS[kind]} or leave it empty where it is none, and list it under {kind}"
        yield Choice(name, "ignore", lost, check)
    yield from _text(name, column, distinct, f"{distinct:,} different, and {lost}")


def _in_a_form(
    name: str, column: pd.Series, kind: str, *, more_than: float = 0.0, are_whole: bool = False
) -> Iterator[Choice]:
    """The kind of a column whose values are nearly all written in a form of their own.

    - ``more_than``: the share of them that is read without it.
    - ``are_whole``: whether those without it are whole numbers, among which 1,050 is a thousand and fifty.
    """
    found = propose(column, dates=kind == "datetime")
    found.sort(key=lambda each: are_whole and each[0].thousands is None)
    if found and found[0][1] >= NEARLY_ALL and found[0][1] > more_than:
        form = found[0][0]
        check = f"they would fit {found[1][0].describe()} too" if len(found) > 1 else ""
        yield Choice(name, kind, f"{percent(found[0][1])} are {kind}, written {form.describe()}", check, form)


def _text(name: str, column: pd.Series, distinct: int, why: str = "") -> Iterator[Choice]:
    """Categories, but for numbers and dates in a form of their own and for what hardly comes again."""
    for kind in () if why else ("numeric", "datetime"):
        yield from _in_a_form(name, column, kind)
    if is_clock(column) and distinct > FEW_CODES:
        check = "`features.calendar: [hour]` learns the hour of `columns.time`"
        yield Choice(name, "ignore", f"a time of day, {distinct:,} different: one is not like the next", check)
    if is_nested(column) and distinct > FEW_CODES:
        check = "write what matters of it into columns of their own"
        yield Choice(name, "ignore", f"each holds several values, such as {example(column)}", check)
    why = why or f"text, {distinct:,} different"
    if distinct > HALF * column.count() and distinct > FEW_CODES:
        yield Choice(name, "ignore", f"{why}: nearly every row that has one has another")
    yield Choice(name, "categorical", why)


def _codes(name: str, column: pd.Series, distinct: int) -> Iterator[Choice]:
    """Numbers that name something, by how they are written or by the column's name."""
    are_padded, is_long = are_codes(column), are_long_codes(column)
    is_name = CODE.search(name) is not None or rank_of(name) is not None
    if not (are_padded or is_long or (is_name and not has_fractions(column))):
        return
    sign = "zeros or a plus before its digits" if are_padded else "as many digits in each" if is_long else "its name"
    reason = f"{sign}, and {distinct:,} different numbers"
    if distinct <= max(FEW_CODES, 0.1 * len(column)):
        yield Choice(name, "categorical", reason, "a code, not an amount")
    many = "nearly every row has another" if distinct > HALF * len(column) else "too many to learn each"
    yield Choice(name, "ignore", f"{reason}: {many}", "list it under numeric if it is an amount and no code")


def _check_of_year(name: str, column: pd.Series) -> str:
    """What a person should know of years: they only go on."""
    if not YEAR.search(name) or not pd.to_numeric(column, errors="coerce").dropna().between(*THESE_YEARS).all():
        return ""
    return "years to come lie beyond all that is learnt; ignore it if it says when the row happened"
