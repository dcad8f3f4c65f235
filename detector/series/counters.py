"""Meters that count upwards: what they will show was never learnt, what they add from step to step was."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from detector.arrays import Floats
from detector.series.segments import bounds


def added(levels: Floats, segment: NDArray[Any], limit: int) -> Floats:
    """What counters, the columns of ``levels``, added in each step.

    Up to ``limit`` steps without a reading share what came over them. NaN at the first reading of a segment, after more
    steps without one, and where a counter is below its last reading: it was exchanged, or began at zero again, and how
    much it counted in between is not known.

    >>> levels = np.array([[97.0], [99.0], [np.nan], [103.0], [1.0], [4.0]])
    >>> added(levels, np.zeros(6), 5).ravel().tolist()
    [nan, 2.0, nan, 2.0, nan, 3.0]
    """
    place = np.arange(len(levels))[:, None]
    last = np.maximum.accumulate(np.where(np.isnan(levels), -1, place), axis=0)
    before = np.vstack([np.full((1, levels.shape[1]), -1), last[:-1]])
    begins = np.concatenate([np.full(end - first, first) for first, end in bounds(segment)])[:, None]
    steps = place - before
    grown = (levels - np.take_along_axis(levels, np.maximum(before, 0), axis=0)) / steps
    known = (before >= begins) & (steps <= limit + 1) & (grown >= 0)
    # A difference of large numbers has digits that the meter does not: the same amount must be one value.
    return np.where(known, grown, np.nan).astype(np.float32).astype(np.float64)
