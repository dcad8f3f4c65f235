"""Days, for budgets that are a day's: which rows share one, and how many of each day other batches have flagged."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import date
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from detector.errors import SettingError, ShapeError

NO_DAY = date.min
"""Under which rows without a time are counted."""

Used = Callable[[Sequence[date]], Mapping[date, int]]
"""For some days: how many rows of each other batches have flagged."""


def as_date(day: np.datetime64) -> date:
    """A day as Python's own type.

    >>> as_date(np.datetime64("2026-03-01"))
    datetime.date(2026, 3, 1)
    """
    found = day.astype("datetime64[D]").item()
    return found if isinstance(found, date) else NO_DAY


def counts_by_day(days: NDArray[Any]) -> dict[date, int]:
    """How often each day occurs.

    >>> counts_by_day(np.array(["2026-03-01", "2026-03-01"], dtype="datetime64[D]"))
    {datetime.date(2026, 3, 1): 2}
    """
    found, counts = np.unique(days.astype("datetime64[D]"), return_counts=True)
    return {as_date(day): int(count) for day, count in zip(found, counts, strict=True)}


def group_by_day(day: ArrayLike | None, n_rows: int) -> tuple[NDArray[np.int64], list[date]]:
    """The number of each row's day, and the days by their number; rows without a time share one.

    Raises
    ------
    SettingError
        If no days are given.
    ShapeError
        If there is not one for each row.

    >>> group_by_day(np.array(["2026-03-02T01:00", "2026-03-02T23:00"], dtype="datetime64[s]"), 2)
    (array([0, 0]), [datetime.date(2026, 3, 2)])
    """
    if day is None:
        raise SettingError("A budget per day needs each row's day. Give a time column, or a budget per batch.")
    if np.shape(day) != (n_rows,):
        raise ShapeError(f"decide expected one day for each of {n_rows} rows, got shape {np.shape(day)}.")
    values = pd.Series(day)
    if pd.api.types.is_datetime64_any_dtype(values):
        values = values.dt.normalize()
    codes, found = pd.factorize(values, use_na_sentinel=False)
    return np.asarray(codes, dtype=np.int64), [_date_of(each) for each in found]


def _date_of(day: Any) -> date:
    if pd.isna(day):
        return NO_DAY
    if isinstance(day, pd.Timestamp | np.datetime64):
        return as_date(np.datetime64(pd.Timestamp(day).tz_localize(None), "D"))
    return day if isinstance(day, date) else NO_DAY
