"""One column as it came → one column typed, with the values that could not be read.

What a value means never depends on the other rows of its batch. By kind:

``numeric``
    Numbers, and text that is one (``" 12.5 "``, ``"1e3"``). True is 1. A comma is not read: ``"1,000"`` means
    a thousand to some and one to others.
``boolean``
    True, 1, ``t``, ``true``, ``y``, ``yes``, ``on`` and their opposites, in any case.
``datetime``
    Dates, ISO 8601 text, whole numbers of eight digits (``20240131``), and seconds since 1970 from 1e8
    (March 1973) to below 1e11, as numbers or as text. Times with a zone become UTC; those without are taken
    as UTC. Kept to the microsecond.
``categorical``
    Text without surrounding space. The numbers 1 and 1.0 and the text ``"1"`` are one category.

Empty text is missing everywhere. The words ``NA``, ``N/A``, ``NaN``, ``NaT``, ``null`` and ``None``, and the signs
``.``, ``..``, ``-``, ``--`` and ``?`` alone, are missing except in a category, a key or an entity, where ``"NA"`` may
be Namibia.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from pandas.api import types

from detector.arrays import Flags
from detector.cleaning.text import TEXT, as_arrow, trimmed
from detector.errors import SchemaError
from detector.schema import MISSING

Reading = tuple[pd.Series, Flags]

INFINITE = {"inf": np.inf, "+inf": np.inf, "infinity": np.inf, "-inf": -np.inf, "-infinity": -np.inf}
TRUTH = {
    **dict.fromkeys(("true", "t", "yes", "y", "on"), 1.0),
    **dict.fromkeys(("false", "f", "no", "n", "off"), 0.0),
}
NUMBER = r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?"
MOMENT = r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?(Z|[+-][0-9]{2}:[0-9]{2})?"
"""A date with its time as it can be read without a second look."""
YEAR_1 = np.datetime64("0001-01-01", "us")


def read_numbers(column: pd.Series) -> Reading:
    """Float64 values with NaN where missing or unreadable, and where they are unreadable.

    Raises ``SchemaError`` if the column holds dates or another type that is no number.

    >>> values, unread = read_numbers(pd.Series(["3", "NA", "x"]))
    >>> values.tolist(), unread.tolist()
    ([3.0, nan, nan], [False, False, True])
    """
    column = _plain(column)
    if column.dtype == np.float64:
        return column, np.zeros(len(column), dtype=bool)
    if isinstance(column.dtype, pd.CategoricalDtype):
        return _by_category(column, read_numbers)
    if column.dtype == object:
        column = _without_booleans(column)
    if types.is_numeric_dtype(column) and not types.is_complex_dtype(column):
        values = column.to_numpy(dtype=np.float64, na_value=np.nan)
        return pd.Series(values, index=column.index, copy=False), np.zeros(len(column), dtype=bool)
    text = _as_text(column, "a number")
    values = np.full(len(text), np.nan)
    readable = text.str.fullmatch(NUMBER).to_numpy(dtype=bool, na_value=False)
    values[readable] = text[readable].astype(np.float64)
    if (left := ~readable & text.notna().to_numpy()).any():
        values[left] = text[left].str.lower().map(INFINITE).to_numpy(dtype=np.float64)
    return pd.Series(values, index=column.index, copy=False), left & np.isnan(values)


def read_booleans(column: pd.Series) -> Reading:
    """Float64 zeros and ones with NaN where missing or unreadable, and where they are unreadable.

    Raises ``SchemaError`` if the column holds dates or another type that is neither true nor false.

    >>> values, unread = read_booleans(pd.Series(["Yes", "0", "2"]))
    >>> values.tolist(), unread.tolist()
    ([1.0, 0.0, nan], [False, False, True])
    """
    column = _plain(column)
    if isinstance(column.dtype, pd.CategoricalDtype):
        return _by_category(column, read_booleans)
    if types.is_numeric_dtype(column):
        values, unread = read_numbers(column)
    else:
        text = _as_text(column, "true or false")
        named = text.str.lower().map(TRUTH).astype(np.float64)
        values, unread = read_numbers(text)
        values, unread = values.fillna(named), unread & named.isna().to_numpy()
    unread = unread | (values.notna() & ~values.isin([0.0, 1.0])).to_numpy()
    return values.mask(unread), unread


def read_dates(column: pd.Series) -> Reading:
    """``datetime64[us]`` values in UTC with NaT where missing or unreadable, and where they are unreadable.

    Raises ``SchemaError`` if the column holds booleans or another type that is no date.

    >>> values, unread = read_dates(pd.Series(["2024-01-31T10:00:00+02:00", "31/01/24"]))
    >>> str(values[0]), unread.tolist()
    ('2024-01-31 08:00:00', [False, True])
    """
    column = _plain(column)
    if isinstance(column.dtype, pd.CategoricalDtype):
        return _by_category(column, read_dates)
    if types.is_datetime64_any_dtype(column):
        values = column if column.dt.tz is None else column.dt.tz_convert("UTC").dt.tz_localize(None)
        return values.astype("datetime64[us]"), np.zeros(len(column), dtype=bool)
    if types.is_numeric_dtype(column) and not types.is_bool_dtype(column):
        return _dates_from_numbers(read_numbers(column)[0])
    if isinstance(column.dtype, pd.StringDtype) and (values := _moments(column)) is not None:
        return values, np.zeros(len(column), dtype=bool)
    text = _as_text(column, "a date")
    digits = text.str.fullmatch(NUMBER).to_numpy(dtype=bool, na_value=False)
    # pandas reads "now" and "today" from the clock, and drops to nanoseconds, with their short range of
    # years, for the whole batch if one row has more than six decimals.
    iso = text.where(text.str.match("[0-9]").to_numpy(dtype=bool, na_value=False) & ~digits)
    iso = iso.str.replace(r"(\.[0-9]{6})[0-9]+", r"\1", regex=True)
    values = _dates_from_iso(iso)
    if digits.any():
        values[digits] = _dates_from_numbers(text[digits].astype(np.float64))[0]
    return values, (values.isna() & text.notna()).to_numpy()


def _moments(column: pd.Series) -> pd.Series | None:
    """Text that is ISO 8601 throughout, or missing, all with a zone or all without; None if it takes another look."""
    for kind in (pa.timestamp("us"), pa.timestamp("us", "UTC")):
        with suppress(pa.ArrowInvalid):
            found = np.asarray(as_arrow(column).cast(kind), dtype="datetime64[us]")
            return None if (found < YEAR_1).any() else pd.Series(found, index=column.index, copy=False)
    return None


def _dates_from_iso(text: pd.Series) -> pd.Series:
    values = pd.to_datetime(text, format="ISO8601", errors="coerce", utc=True).dt.tz_localize(None)
    return values.astype("datetime64[us]")


def _dates_from_numbers(numbers: pd.Series) -> Reading:
    seconds = numbers.where((numbers >= 1e8) & (numbers < 1e11))
    values = pd.Series(pd.NaT, index=numbers.index, dtype="datetime64[us]")
    known = seconds.notna()
    values.loc[known] = (seconds[known] * 1e6).round().astype(np.int64).astype("datetime64[us]")
    days = numbers[(numbers >= 1e7) & (numbers < 1e8) & (numbers % 1 == 0)]
    if len(days):
        text = days.astype(np.int64).astype("str")
        values.loc[days.index] = pd.to_datetime(text, format="%Y%m%d", errors="coerce")
    return values, (values.isna() & numbers.notna()).to_numpy()


def read_categories(column: pd.Series) -> pd.Series:
    """Text, the same for the same value whatever type the column came in.

    >>> read_categories(pd.Series([1.0, 2.5])).tolist()
    ['1', '2.5']
    """
    if column.dtype == TEXT:
        return trimmed(column)
    column = _plain(column)
    if isinstance(column.dtype, pd.CategoricalDtype):
        return _by_category(column, lambda known: (read_categories(known), np.zeros(len(known), dtype=bool)))[0]
    if not (column.dtype == object or types.is_string_dtype(column)):
        codes, values = pd.factorize(column)
        known = pd.Series([_text_of(value) for value in values], dtype="str")
        return pd.Series(known.array.take(codes, allow_fill=True), index=column.index, copy=False)
    return trimmed(_text(column))


def read_names(column: pd.Series) -> pd.Series:
    """Keys or entities: typed ones as they are, whole floats as integers, all others as text without space around it.

    A column of integers with a gap reaches pandas as floats; its names would otherwise change with the batch.

    >>> read_names(pd.Series([17.0, None])).tolist()
    [17, <NA>]
    """
    if column.dtype == TEXT:
        return trimmed(column)
    column = _plain(column)
    if isinstance(column.dtype, pd.CategoricalDtype):
        return read_categories(column)
    if types.is_float_dtype(column):
        known = column.dropna().to_numpy(dtype=np.float64)
        if ((np.abs(known) < 2.0**63) & (np.trunc(known) == known)).all():
            return column.astype("int64" if len(known) == len(column) else "Int64")
    if column.dtype == object or types.is_string_dtype(column):
        return trimmed(_text(column))
    return column


def _plain(column: pd.Series) -> pd.Series:
    """An Arrow column of an uncommon type (dates, booleans, decimals, dictionaries) as Python objects."""
    if isinstance(column.dtype, pd.ArrowDtype) and column.dtype.kind not in "iufU":
        return column if column.dtype.name.startswith("timestamp") else column.astype(object)
    return column


def _by_category(column: pd.Series, read: Callable[[pd.Series], Reading]) -> Reading:
    """Read the categories of a pandas categorical once, and give each row its own."""
    values, unread = read(pd.Series(column.cat.categories, name=column.name))
    codes = column.cat.codes.to_numpy()
    taken = pd.Series(values.array.take(codes, allow_fill=True), index=column.index, copy=False)
    return taken, np.append(unread, False)[codes]


def _without_booleans(column: pd.Series) -> pd.Series:
    if not any(isinstance(value, (bool, np.bool_)) for value in column):
        return column
    values = [int(value) if isinstance(value, (bool, np.bool_)) else value for value in column]
    return pd.Series(values, index=column.index, name=column.name, dtype=object)


def _as_text(column: pd.Series, wanted: str) -> pd.Series:
    """Stripped text without the words for missing, or an error where the type says it can never do."""
    if not (column.dtype == object or types.is_string_dtype(column)):
        raise SchemaError(
            f"Column {column.name!r} should hold {wanted} in each row, but its type is {column.dtype}. "
            f"List it under another kind, or convert it before.",
            column=str(column.name),
        )
    text = _text(column).str.strip()
    return text.mask(text.str.lower().isin(MISSING))


def _text(column: pd.Series) -> pd.Series:
    if column.dtype != object or types.infer_dtype(column, skipna=True) == "string":
        return column.astype("str")
    absent = column.isna().to_numpy()
    text = [None if gone else _text_of(value) for value, gone in zip(column, absent, strict=True)]
    return pd.Series(text, index=column.index, name=column.name, dtype="str")


def _text_of(value: Any) -> str:
    """One value as text: whole numbers without a point, dates in ISO 8601, bytes decoded."""
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    if isinstance(value, (datetime, date)):
        return value.isoformat().removesuffix("T00:00:00")
    if isinstance(value, (float, np.floating, Decimal)):
        if -(2.0**64) < value < 2.0**64 and value % 1 == 0:
            return str(int(value))
        if isinstance(value, Decimal):
            return f"{value.normalize():f}"
    return str(value)


def naive_utc(moment: datetime) -> pd.Timestamp:
    """A moment without its zone, as columns of times hold it: in UTC; without a zone it is in UTC already.

    >>> naive_utc(datetime.fromisoformat("2026-03-01T12:00:00+02:00"))
    Timestamp('2026-03-01 10:00:00')
    """
    stamp = pd.Timestamp(moment)
    return stamp if stamp.tzinfo is None else stamp.tz_convert("UTC").tz_localize(None)
