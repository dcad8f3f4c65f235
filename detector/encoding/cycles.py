"""Hour of day and day of week as points on a circle, so that 23:59 lies next to 0:01."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from detector.arrays import Floats

CYCLES = {"hour": 24.0, "weekday": 7.0}


def to_cycle(times: pd.Series, part: str) -> Floats:
    """Hour of day or day of week as sine and cosine, shape (n_rows, 2); NaN where the time is missing.

    >>> to_cycle(pd.Series(pd.to_datetime(["2026-01-05 06:00"])), "hour").round(3)
    array([[1., 0.]])
    """
    hours = times.dt.hour + times.dt.minute / 60.0 + times.dt.second / 3600.0
    position = hours if part == "hour" else times.dt.day_of_week + hours / 24.0
    angle = position.to_numpy(dtype=np.float64, na_value=np.nan) * (2 * np.pi / CYCLES[part])
    return np.column_stack([np.sin(angle), np.cos(angle)])


def from_cycle(pair: NDArray[np.floating[Any]], part: str) -> Floats:
    """The inverse of ``to_cycle``: hours in [0, 24) or days in [0, 7), Monday first.

    >>> from_cycle(np.array([[1.0, 0.0]]), "hour")
    array([6.])
    """
    turns = np.arctan2(pair[:, 0], pair[:, 1]) / (2 * np.pi)
    return np.asarray(np.mod(turns, 1.0) * CYCLES[part])
