"""What a meter did where what it added says too little: it stood still, or ran backwards."""

from __future__ import annotations

import numpy as np

from detector.arrays import Counts, Floats
from detector.series.flatline import is_alike
from detector.series.resample import RegularSeries

LEAST_STANDING = 2
"""Steps in a row without anything added after which what comes at once may be what was not counted."""
CAUGHT_UP = 0.5
"""The least part of what was added at once that was expected of the steps before it."""


def is_meter(series: RegularSeries, sensor: int) -> bool:
    """Whether the values of a sensor are what it added."""
    return series.sensors[sensor] in series.counters


def ran_backwards(series: RegularSeries, sensor: int, first: int, last: int) -> tuple[float, float] | None:
    """From where to where a meter ran backwards over steps; None if it did not, or is none.

    That it is lower once is no such thing: it was exchanged, or began anew.
    """
    if not is_meter(series, sensor):
        return None
    before = _steps_before(series, first)
    steps = np.append(before[~np.isnan(series.levels[before, sensor])][-1:], np.arange(first, last + 1))
    read = series.levels[steps, sensor]
    read = read[~np.isnan(read)]
    moves = np.diff(read)
    if (moves < 0).sum() < 2 or (moves < 0).sum() <= (moves > 0).sum():
        return None
    return float(read[0]), float(read[-1])


def stood_from(series: RegularSeries, sensor: int, step: int, expected: Floats) -> int | None:
    """Since which step a meter had stood still that then added at once what it had not counted; None if it did not.

    - ``expected``, (n,): what it should have added in the last steps up to this one.
    """
    if not is_meter(series, sensor):
        return None
    run = _steps_before(series, step)[-len(expected) + 1 :] if len(expected) > 1 else np.arange(0)
    values = np.where(series.observed[run, sensor], series.values[run, sensor], np.nan)
    moved = np.flatnonzero(~is_alike(values, 0.0))
    run = run[int(moved[-1]) + 1 :] if len(moved) else run
    missed = np.nansum(expected[-1 - len(run) : -1])
    if len(run) < LEAST_STANDING or missed < CAUGHT_UP * (series.values[step, sensor] - expected[-1]):
        return None
    return int(run[0])


def _steps_before(series: RegularSeries, step: int) -> Counts:
    """The steps of the same segment before one."""
    return np.arange(int(np.searchsorted(series.segment, series.segment[step])), step)
