"""The hour of the day and the day of the week of a date, as points on a circle: 23:59 lies next to 0:01."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from detector.arrays import Floats
from detector.schema import Schema

CYCLES = {"hour": 24.0, "weekday": 7.0}
LEAST_DAYS = 14
"""A date with fewer different days in training, most of them apart, has no weekday: of months' ends, the next may fall
on one that none did. Smaller, and such rows are all odd; larger, and weekdays are learnt later."""


def find_clocks(rows: pd.DataFrame, schema: Schema) -> tuple[tuple[str, str], ...]:
    """The dates of cleaned rows whose hour or weekday can be learnt, each with which.

    >>> ends = pd.DataFrame({"due": pd.to_datetime(["2026-01-31", "2026-02-28", "2026-03-31"])})
    >>> find_clocks(ends, Schema(datetime=("due",)))
    (('due', 'hour'),)
    """
    return tuple(
        (name, part)
        for name in schema.datetime
        for part in CYCLES
        if part == "hour" or not _are_few_days(rows[name].dropna().to_numpy(dtype="datetime64[D]"))
    )


def _are_few_days(days: NDArray[np.datetime64]) -> bool:
    """Whether dates are of few days, most of which have none beside them."""
    found = np.unique(days)
    return len(found) < LEAST_DAYS and 2 * len(found) < (found[-1] - found[0]).astype(int) + 1


def to_cycle(times: NDArray[np.datetime64], part: str) -> Floats:
    """Hour of day or day of week as sine and cosine, shape (n_rows, 2); NaN where the time is missing.

    >>> to_cycle(np.array(["2026-01-05T06:00"], dtype="datetime64[us]"), "hour").round(3)
    array([[1., 0.]])
    """
    seconds = times.astype("datetime64[us]").astype(np.int64) // 1_000_000
    days, of_day = np.divmod(seconds, 86_400)
    hours = of_day // 3600 + of_day // 60 % 60 / 60.0 + of_day % 60 / 3600.0
    position = hours if part == "hour" else (days + 3) % 7 + hours / 24.0  # 1970 began on a Thursday
    angle = np.where(np.isnat(times), np.nan, position) * (2 * np.pi / CYCLES[part])
    return np.column_stack([np.sin(angle), np.cos(angle)])


def from_cycle(pair: NDArray[np.floating[Any]], part: str) -> Floats:
    """The inverse of ``to_cycle``: hours in [0, 24) or days in [0, 7), Monday first.

    >>> from_cycle(np.array([[1.0, 0.0]]), "hour")
    array([6.])
    """
    turns = np.arctan2(pair[:, 0], pair[:, 1]) / (2 * np.pi)
    return np.asarray(np.mod(turns, 1.0) * CYCLES[part])
