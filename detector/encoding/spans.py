"""Days between the dates of a row: from an order to its delivery, from the start of a policy to a claim."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from detector.arrays import Floats
from detector.schema import Schema

MICROSECONDS_A_DAY = 86_400e6
MOST_PAIRED = 3
"""Of so many dates each is paired with each. Of more, all are with the first, and with the time of the row if it has
one: what lies between others follows from that."""
MOST_SPANS = 12


@dataclass(frozen=True)
class Span:
    """The days from one date to another, mostly later one; missing where either is.

    >>> rows = pd.DataFrame({"ordered": ["2026-01-01", "2026-01-05"], "sent": ["2026-01-03T12:00", "2026-01-04"]})
    >>> Span("ordered", "sent").days(rows.astype("datetime64[us]")).tolist()
    [2.5, -1.0]
    """

    earlier: str
    later: str

    @property
    def name(self) -> str:
        """What reasons call it."""
        return f"days from {self.earlier} to {self.later}"

    @property
    def columns(self) -> tuple[str, str]:
        """Both dates."""
        return self.earlier, self.later

    def days(self, rows: pd.DataFrame) -> Floats:
        """Of cleaned rows, shape (n_rows,)."""
        return _apart(*(rows[name].to_numpy(dtype="datetime64[us]") for name in self.columns))

    def days_plain(self, rows: Sequence[Mapping[str, Any]]) -> Floats:
        """Of the cells of rows, as ``plain_row`` returns them."""
        return _apart(*(np.array([row[name] for row in rows], dtype="datetime64[us]") for name in self.columns))


def damped(days: Floats) -> Floats:
    """Days on a scale on which 1 is about as far from 20 as 20 is from 200, and 400 near 500, however many came before.

    >>> damped(np.array([0.0, 1.0, 20.0, 200.0, -20.0])).round(1).tolist()
    [0.0, 0.7, 3.0, 5.3, -3.0]
    """
    return np.sign(days) * np.log1p(np.abs(days))


def undamped(values: Floats) -> Floats:
    """The inverse of ``damped``."""
    return np.sign(values) * np.expm1(np.abs(values))


def find_spans(rows: pd.DataFrame, schema: Schema) -> tuple[Span, ...]:
    """Those between the dates of cleaned rows, and between these and the time of the row."""
    dates = list(dict.fromkeys(name for name in (schema.time, *schema.datetime) if name is not None))
    is_paired = schema.time is None and len(dates) <= MOST_PAIRED
    pairs = combinations(dates, 2) if is_paired else ((dates[0], other) for other in dates[1:])
    found = []
    for pair in list(pairs)[:MOST_SPANS]:
        days = Span(*pair).days(rows)
        if not np.isnan(days).all():
            found.append(Span(*pair) if np.nanmedian(days) >= 0 else Span(*pair[::-1]))
    return tuple(found)


def _apart(earlier: NDArray[np.datetime64], later: NDArray[np.datetime64]) -> Floats:
    """Days between times; in floats, as dates may be too far apart for whole microseconds."""
    days = (later.astype(np.int64).astype(np.float64) - earlier.astype(np.int64)) / MICROSECONDS_A_DAY
    return np.where(np.isnat(earlier) | np.isnat(later), np.nan, days)
