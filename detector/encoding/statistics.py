"""What is learnt of one column of a table: whether it is of use, centre and scale, levels, decimals."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from detector.arrays import Flags, Floats
from detector.resolution import float_resolution

HUGE = 1e100  # the square of a mean of such numbers is no number any more
WHOLE = 2.0**53
LARGEST = float(np.finfo(np.float64).max)
NORMAL_WIDTH = 4.653  # from the 1st to the 99th percentile of a standard normal distribution


def useless(column: pd.Series) -> str | None:
    """Why a column cannot be used; None if it can. A number that varies by rounding alone is always the same."""
    present = column.dropna()
    if present.empty:
        return "always missing"
    first = present.iloc[0]
    same = present == first
    if isinstance(first, float):
        values = present.to_numpy(dtype=np.float64)
        same = abs(present - first) <= float_resolution(values)
    if len(present) == len(column) and bool(same.all()):
        return f"always {first:g}" if isinstance(first, float) else f"always {first}"
    return None


def location_and_scale(numeric: Floats, baseline: Flags) -> tuple[Floats, Floats]:
    """The mean, and a spread: the 1st to 99th percentile, in standard deviations of a normal distribution.

    Against the standard deviation, this keeps one huge value from flattening a column; against the quartiles, it gives
    a column that is nearly always the same its full range. A column of two values has no percentiles to speak of: its
    standard deviation makes a rare flag weigh more than a common one. A column that varies only among unusual rows
    takes its spread from all. A spread that is rounding alone is none: divided by it, the last bits of a value would
    count as deviations.
    """
    centre, scale = np.zeros(numeric.shape[1]), np.ones(numeric.shape[1])
    for i, column in enumerate(numeric.T):
        every = column[~np.isnan(column)]
        chosen = column[baseline & ~np.isnan(column)]
        rounding = float_resolution(every)
        spread = _spread(chosen, rounding) if len(chosen) else 0.0
        centre[i] = _mean(chosen if len(chosen) else every)
        scale[i] = spread or _spread(every, rounding) or 1.0
    return centre, scale


def _mean(values: Floats) -> float:
    """The mean, also of numbers whose sum is none."""
    size = float(np.abs(values).max())
    return float(values.mean()) if size < HUGE else float((values / size).mean()) * size


def _spread(values: Floats, rounding: float) -> float:
    """The spread, also of numbers whose squares or differences are none; one beyond all numbers is the largest."""
    size = float(np.abs(values).max())
    if size >= HUGE:
        with np.errstate(over="ignore"):
            return min(_spread(values / size, rounding / size) * size, LARGEST)
    least, most = values.min(), values.max()
    if most - least <= rounding:
        return 0.0
    if ((values == least) | (values == most)).all():
        return float(values.std())
    low, high = np.percentile(values, [1, 99])
    return float((high - low if high - low > rounding else most - least) / NORMAL_WIDTH)


def levels_of(text: pd.Series, most: int) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """The most frequent levels, and how often each code was seen: missing, rarer, then theirs."""
    frequency = text.value_counts(dropna=True)
    frequency = frequency.sort_index().sort_values(ascending=False, kind="stable")
    kept = frequency.iloc[:most]
    seen = [int(text.isna().sum()), int(frequency.iloc[most:].sum()), *kept.tolist()]
    return tuple(str(level) for level in kept.index), np.array(seen, dtype=np.int64)


def decimals_of(values: Floats) -> int:
    """How many digits after the point values are written with, at most 3."""
    sample = values[np.abs(values) < WHOLE][:1000]  # larger ones have none
    for digits in range(4):
        if np.allclose(sample, np.round(sample, digits), rtol=0, atol=1e-9):
            return digits
    return 3
