"""Rows of plain values, as JSON has them, as a frame; and values of a frame as JSON can hold them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import chain
from operator import itemgetter
from types import NoneType
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from detector.cleaning.text import TEXT, listed


def framed(rows: Iterable[Mapping[str, Any]], columns: Iterable[str] | None = None) -> pd.DataFrame:
    """Rows of plain values as a frame that changes none of them, with these columns or all.

    >>> framed([{"n": 1, "x": 2}, {"n": None, "x": 3}]).dtypes.astype(str).to_dict()
    {'n': 'object', 'x': 'int64'}
    """
    every = list(rows)
    if columns is None:
        names = list(dict.fromkeys(chain.from_iterable(every)))
    else:
        names = [name for name in sorted(columns) if any(name in row for row in every)]
    found = {name: _typed(_column(every, name)) for name in names}
    return pd.DataFrame(found, index=range(len(every)), copy=False)


def plain(value: Any) -> Any:
    """A value as JSON can hold it.

    >>> plain(float("nan")), plain(pd.Timestamp("2026-03-01")), plain(3)
    (None, '2026-03-01T00:00:00', 3)
    """
    if value is None or value is pd.NaT or value is pd.NA or (isinstance(value, float) and not math.isfinite(value)):
        return None
    return value.isoformat() if isinstance(value, pd.Timestamp) else value


def plain_list(column: pd.Series) -> list[Any]:
    """The values of a column as JSON can hold them.

    >>> plain_list(pd.Series(["a", None], dtype="str")), plain_list(pd.Series([1.5, float("inf")]))
    (['a', None], [1.5, None])
    """
    if isinstance(column.dtype, pd.StringDtype):
        return listed(column)
    return [plain(value) for value in column.tolist()]


def _column(rows: Sequence[Mapping[str, Any]], name: str) -> list[Any]:
    """One value of each row; None where a row has none."""
    try:
        return list(map(itemgetter(name), rows))
    except KeyError:
        return [row.get(name) for row in rows]


def _typed(values: list[Any]) -> Any:
    """Values for a column; beside a missing one a large number would be rounded, so these stay as they are."""
    kinds = set(map(type, values))
    if kinds == {float}:
        return np.array(values)
    if str in kinds and kinds <= {str, NoneType}:
        with suppress(UnicodeError):  # of half a character
            return pd.Series(TEXT.__from_arrow__(pa.array(values, pa.large_string())), copy=False)
    return pd.Series(values, dtype=object) if NoneType in kinds else values
