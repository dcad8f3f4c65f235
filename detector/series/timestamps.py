"""Times in order: reading them, the sampling interval, and clocks that were put forward or back.

Times here are whole microseconds since 1970, and the rows of one series share a code. A time without a zone counts as
UTC; where that is wrong, summer time shows as an hour that comes twice in autumn or is left out in spring.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from detector.arrays import Codes, Flags, Floats, Times
from detector.errors import DataError

HOUR = 3_600_000_000
UNITS = {"d": 24 * HOUR, "h": HOUR, "min": HOUR // 60, "s": HOUR // 3600, "ms": 1000}
OWN_PACE = 1.5
ENOUGH = 5
LONGEST = np.timedelta64(3, "h")
"""No clock is put back by more."""
REMEDY = (
    "Write the times with their zone, such as 2024-10-27T02:00:00+01:00, or convert them to UTC "
    "(pandas: tz_localize(zone, ambiguous='infer'), then tz_convert('UTC'))."
)


def read_times(column: pd.Series) -> Times:
    """A column of UTC times without zone as microseconds.

    Raises ``DataError`` if it holds anything else, such as times of several zones, or if a time is missing.

    >>> read_times(pd.Series(pd.to_datetime(["1970-01-01 00:00:01"]))).tolist()
    [1000000]
    """
    if isinstance(column.dtype, pd.DatetimeTZDtype) or not pd.api.types.is_datetime64_any_dtype(column):
        raise DataError(
            f"Column {column.name!r} should hold UTC times without a zone, but its type is {column.dtype}. "
            f"Pass the rows through clean(), which converts text, zones and mixed zones."
        )
    if column.isna().any():
        row = column.index[column.isna().to_numpy()][0]
        raise DataError(
            f"The time in column {column.name!r} is missing at row {row}. Pass the rows through clean(), which "
            f"quarantines such rows."
        )
    times: Times = column.to_numpy().astype("datetime64[us]").astype(np.int64)
    return times


def infer_interval(time: Times, codes: Codes, names: pd.Index | None) -> int:
    """The median of the differences between neighbouring times, over all series: the lower one of two.

    Rows are sorted by code, then time; repeated times are passed over. Raises ``DataError`` if no series has two times,
    or if one keeps another pace than the rest: its median is more than half as long again, or as short.

    >>> infer_interval(np.array([0, 60, 120, 300]), np.zeros(4, dtype=np.int64), None)
    60
    """
    difference = np.diff(time)
    usable = (codes[1:] == codes[:-1]) & (difference > 0)
    if not usable.any():
        raise DataError(
            "The sampling interval is unclear from the times: no series has two different ones. Give more rows, "
            "or the interval, such as every='1min'."
        )
    middle = int(np.quantile(difference[usable], 0.5, method="lower"))
    groups = pd.Series(difference[usable]).groupby(codes[1:][usable])
    own = groups.quantile(0.5, interpolation="lower")[groups.size() >= ENOUGH]
    strangers = own[(own > OWN_PACE * middle) | (own * OWN_PACE < middle)]
    if len(strangers):
        pace = show_span(int(strangers.iloc[0]))
        raise DataError(
            f"{name_series(names, int(strangers.index[0]))} is sampled about every {pace}, all series together every "
            f"{show_span(middle)}. Fit series of different pace apart, or give the interval, such as every='1min', "
            f"with align='mean'."
        )
    return middle


def is_second_pass(times: NDArray[np.datetime64], zone: str) -> Flags:
    """Which times, in UTC and without zone, are in an hour that a zone's clock tells for the second time.

    >>> times = np.array(["2026-10-25T00:45", "2026-10-25T01:00", "2026-10-25T01:45", "2026-10-25T02:00"])
    >>> is_second_pass(times.astype("datetime64[us]"), "Europe/Berlin").tolist()
    [False, True, True, False]
    """
    fallen = _offset(times - LONGEST, zone) - _offset(times, zone)
    found = fallen > np.timedelta64(0)
    found[found] = _offset(times[found] - fallen[found], zone) > _offset(times[found], zone)
    return np.asarray(found)


def _offset(times: NDArray[np.datetime64], zone: str) -> NDArray[np.timedelta64]:
    """How far a zone's clock is ahead of UTC."""
    told = pd.DatetimeIndex(times).tz_localize("UTC").tz_convert(zone).tz_localize(None)
    return np.asarray(told.to_numpy().astype("datetime64[us]") - times.astype("datetime64[us]"))


def refuse_summer_time(time: Times, codes: Codes, values: Floats, names: pd.Index | None, *, every: int) -> None:
    """Raise if a clock was put back by an hour, so that an hour of other readings comes twice.

    Rows are in the order they came. Those that repeat a time with the same values are copies, and say nothing of the
    clock. From an interval of half an hour on, the two cannot be told apart. Raises ``DataError`` if all of a series'
    steps back in time are of one hour, or if it repeats a whole hour of times.
    """
    if 2 * every > HOUR:
        return
    order = np.lexsort((time, codes))
    t, c, v = time[order], codes[order], values[order]
    repeats = np.append(False, (np.diff(t) == 0) & (np.diff(c) == 0))
    same = np.append(False, ((v[1:] == v[:-1]) | (np.isnan(v[1:]) & np.isnan(v[:-1]))).all(axis=1))
    own = np.sort(order[~(repeats & same)])
    _refuse_step_back(time[own], codes[own], names, every)
    again = repeats & ~same
    _refuse_repeated_hour(t[again], c[again], names, every)


def _refuse_step_back(time: Times, codes: Codes, names: pd.Index | None, every: int) -> None:
    by_code = np.argsort(codes, kind="stable")
    t, c = time[by_code], codes[by_code]
    difference = np.diff(t)
    back = np.flatnonzero((difference < 0) & (c[1:] == c[:-1]))
    hour = np.abs(difference[back] + HOUR - every) <= every // 2
    only = ~np.isin(c[back], c[back[~hour]])
    if only.any():
        first = back[only][0]
        raise DataError(
            f"The clock of {name_series(names, int(c[first]), 'the')} is put back by one hour after "
            f"{show_time(t[first])}: the next reading is of {show_time(t[first + 1])}. So summer time ended, and the "
            f"times have no zone. {REMEDY}"
        )


def _refuse_repeated_hour(time: Times, codes: Codes, names: pd.Index | None, every: int) -> None:
    if not len(time):
        return
    breaks = np.flatnonzero((np.diff(time) > 1.5 * every) | (np.diff(codes) != 0)) + 1
    starts, stops = np.append(0, breaks), np.append(breaks, len(time))
    whole = (np.abs((stops - starts) * every - HOUR) <= every // 2) & (stops - starts > 2)
    if whole.any():
        start, stop = starts[whole][0], stops[whole][0]
        raise DataError(
            f"{name_series(names, int(codes[start]))} has two different readings at each time from "
            f"{show_time(time[start])} to {show_time(time[stop - 1])}, a whole hour. So summer time ended, and the "
            f"times have no zone. {REMEDY}"
        )


def is_spring_forward(before: Times, after: Times, *, every: int) -> Flags:
    """Where a gap is one hour and ends as an hour begins: as when a clock without zone is put forward.

    >>> before, after = np.array([119, 119]) * HOUR // 60, np.array([180, 240]) * HOUR // 60
    >>> is_spring_forward(before, after, every=HOUR // 60).tolist()
    [True, False]
    """
    hour: Flags = np.abs(after - before - HOUR - every) <= every // 2
    return hour & (after % HOUR < every) & (2 * every <= HOUR)


def name_series(names: pd.Index | None, code: int, article: str = "The") -> str:
    """How a message calls a series.

    >>> name_series(pd.Index(["pump"]), 0), name_series(None, 0)
    ("The series of entity 'pump'", 'The series')
    """
    return f"{article} series" if names is None else f"{article} series of entity {names.tolist()[code]!r}"


def show_time(time: int | np.int64) -> str:
    """Microseconds as a time.

    >>> show_time(1_000_000)
    '1970-01-01 00:00:01'
    """
    return str(pd.Timestamp(int(time), unit="us"))


def show_span(span: int) -> str:
    """Microseconds in the largest unit that divides them.

    >>> show_span(90_000_000), show_span(60_000_000)
    ('90 s', '1 min')
    """
    for unit, size in UNITS.items():
        if span and span % size == 0:
            return f"{span // size} {unit}"
    return f"{span} µs"
