"""A frame of rows → whole numbers: times, amounts in units, names as codes, and when a label became known."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from hashlib import blake2b
from math import isnan
from typing import Any

import numpy as np
import pandas as pd

from detector.arrays import Floats, Integers, Places, Times
from detector.cleaning import text as texts
from detector.errors import DataError
from detector.features.events import NEVER
from detector.features.measures import DEGREE, MISSING

MOST_UNITS = 2.0**31
Codes = Callable[[pd.Series], Integers]


@dataclass(frozen=True)
class Table:
    """Rows as whole numbers, in the order they came.

    - ``time``, (n_rows,): microseconds since 1970.
    - ``order``, (n_rows,): positions of the rows in order of (time, key); without a key, rows of one moment in the
      order they came.
    - ``columns``, (n_rows,): what a sequence carries, by ``column_keys``.
    """

    time: Times
    order: Places
    columns: dict[str, Integers]


def times(column: pd.Series) -> Integers:
    """Microseconds since 1970.

    Raises ``DataError`` if the column holds no dates, or misses one.

    >>> times(pd.Series(pd.to_datetime(["1970-01-01 00:00:01"])))
    array([1000000])
    """
    if not pd.api.types.is_datetime64_any_dtype(column) or column.isna().any():
        raise DataError(
            f"Features expected a date in every row of {column.name!r}, received type {column.dtype} with "
            f"{int(column.isna().sum())} missing. Pass the rows through clean(), which reads dates and "
            f"quarantines such rows."
        )
    if isinstance(column.dtype, pd.DatetimeTZDtype):
        column = column.dt.tz_convert("UTC").dt.tz_localize(None)
    return np.asarray(column.to_numpy().astype("datetime64[us]").astype(np.int64))


def ordered(time: Times, key: pd.Series | None) -> Places:
    """Positions in order of (time, key).

    >>> ordered(np.array([5, 4, 5]), pd.Series(["b", "c", "a"]))
    array([1, 2, 0])
    """
    order = np.argsort(time, kind="stable")
    tied = np.diff(time[order]) == 0
    if key is not None and tied.any():
        at = np.flatnonzero(np.append(tied, False) | np.append(False, tied))
        rows = order[at]
        order[at] = rows[np.lexsort((ranks(key.iloc[rows]), time[rows]))]
    return order


def ranks(key: pd.Series) -> Integers:
    """Numbers that stand in the order of the keys.

    >>> ranks(pd.Series(["b", "a", "c"]))
    array([2, 1, 3])
    """
    if pd.api.types.is_integer_dtype(key) and not key.isna().any():
        return np.asarray(key.to_numpy(dtype=np.int64))
    if isinstance(key.dtype, pd.StringDtype) and not key.hasnans:
        return texts.ranks(key)
    return np.asarray(pd.factorize(key, sort=True)[0].astype(np.int64))


def units(values: Floats, name: str, scale: int) -> Integers:
    """Numbers as whole units, ``MISSING`` where NaN.

    Raises ``DataError`` if one is infinite or beyond 2^31 units.

    >>> units(np.array([0.29, 12.5]), "amount", 100)
    array([  29, 1250])
    """
    known = ~np.isnan(values)
    whole = np.rint(np.where(known, values, 0.0) * scale)
    if len(whole) and float(np.abs(whole).max()) >= MOST_UNITS:
        raise _beyond(float(values[int(np.abs(whole).argmax())]), name, scale)
    return np.where(known, whole.astype(np.int64), MISSING)


def unit(value: float, name: str, scale: int) -> int:
    """One number as whole units, by the same rules.

    >>> unit(0.29, "amount", 100)
    29
    """
    if isnan(value):
        return MISSING
    if abs(value * scale) >= MOST_UNITS - 0.5:
        raise _beyond(value, name, scale)
    return round(value * scale)


def _beyond(value: float, name: str, scale: int) -> DataError:
    return DataError(
        f"{name} {value:g} is beyond {MOST_UNITS / scale:,.0f}, the most that is counted with {scale:,} "
        f"units to one. Quarantine the row, or count with fewer decimals."
    )


def places(values: Floats) -> Integers:
    """Degrees in hundred-thousandths, ``MISSING`` where unknown or no place on earth."""
    known = np.abs(values) <= 360
    return np.where(known, np.rint(np.where(known, values, 0.0) * DEGREE).astype(np.int64), MISSING)


def place(value: float) -> int:
    """One number of degrees, by the same rules.

    >>> place(9.25)
    925000
    """
    return round(value * DEGREE) if abs(value) <= 360 else MISSING


def codes(column: pd.Series) -> Integers:
    """A number for each different name, good within this frame only; ``MISSING`` where there is none."""
    found = pd.factorize(column)[0].astype(np.int64)
    return np.where(found < 0, MISSING, found)


def lasting_codes(column: pd.Series) -> Integers:
    """A number for each different name, the same in every frame: 63 bits of a hash of its text.

    >>> bool(lasting_codes(pd.Series(["a", 7]))[1] == lasting_codes(pd.Series(["7"]))[0])
    True
    """
    numbers, names = pd.factorize(column)
    hashed = np.array([*map(lasting_code, names), MISSING], dtype=np.int64)
    return np.asarray(hashed[numbers])


def lasting_code(name: Any) -> int:
    """The number of one name."""
    return int.from_bytes(blake2b(text(name).encode(), digest_size=8).digest(), "little") >> 1


def text(name: Any) -> str:
    """A name as text, the same whether it came as text, as an integer or as a whole float.

    >>> text(7.0), text("a")
    ('7', 'a')
    """
    if isinstance(name, str):
        return name
    return str(int(name)) if isinstance(name, float | np.floating) and float(name).is_integer() else str(name)


def turn_times(time: Times, columns: Iterable[pd.Series]) -> list[Integers]:
    """When each row came to each turn, never before it happened or the turn before; ``NEVER`` where it did not.

    >>> turn_times(np.array([5]), [pd.Series(pd.to_datetime(["1970-01-01"])), pd.Series([pd.NaT])])[0]
    array([5])
    """
    found = []
    for column in columns:
        dated, turn = column.notna().to_numpy(), np.full(len(time), NEVER)
        if dated.any():
            turn[dated] = times(column[dated])
        found.append(time := np.maximum(time, turn))
    return found


def known_times(time: Times, label: pd.Series, reported: pd.Series | None) -> Integers:
    """When each row was known to be fraud: as reported, never before it happened; ``NEVER`` for all others."""
    fraud = label.to_numpy(dtype=np.float64, na_value=np.nan) == 1
    known = time.copy()
    if reported is not None:
        dated = reported.notna().to_numpy()
        fraud = fraud & dated
        if dated.any():
            known[dated] = np.maximum(time[dated], times(reported[dated]))
    return np.where(fraud, known, NEVER)


def groups(rows: pd.DataFrame, by: Iterable[str]) -> Integers:
    """A number from 0 for each entity, -1 where a column is missing."""
    found: Integers | None = None
    for name in by:
        numbers, names = pd.factorize(rows[name])
        if found is None:
            found = numbers.astype(np.int64)
        else:
            joined = np.where((found < 0) | (numbers < 0), -1, found * len(names) + numbers)
            found = pd.factorize(np.where(joined < 0, -1, joined), sort=True)[0].astype(np.int64)
            found = found - 1 if (joined < 0).any() else found
    assert found is not None
    return found
