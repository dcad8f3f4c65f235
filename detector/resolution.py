"""Resolution: the least difference between two values that says anything, in the values' own unit.

A signal without noise is rebuilt up to rounding, and what rounding leaves depends on the processor. Divided by its own
spread it would look like any other deviation: a residual of 1e-15 would be an anomaly among residuals of 1e-16. So
whatever is compared with a spread is first compared with the resolution. Taken too small, the last bits of numbers and
the last digit of a sensor are reported as anomalies; taken too large, small true deviations are passed over.
"""

from __future__ import annotations

import numpy as np

from detector.arrays import Flags, Floats

FEW = 0.05
LEVELS = 3
SAME, SAME_AS_ZERO = 1e-6, 1e-9
"""Up to this share of its size, and of 0 up to this, another number than the only one ever seen is that number.
Smaller, and what float32 or a unit's conversion rounds is news; larger, and a small true change is not."""
LAST_BITS = 4
"""Neighbouring floating-point numbers that count as one: what a sum or a mean of a few of them is off by."""


def float_resolution(values: Floats) -> float:
    """How far values may lie apart by rounding alone: 4 neighbouring numbers at the median of their sizes.

    Of float32 where all are float32 numbers, for so they may have come, else of float64. Whole numbers that vary are
    counts, which are exact. NaN is passed over.

    >>> float_resolution(np.array([20.0, 20.0])) > 20.000004 - 20.0
    True
    >>> float_resolution(np.array([16_000_000.0, 16_000_001.0]))
    0.0
    """
    seen = values[np.isfinite(values)]
    if not len(seen) or (seen.min() < seen.max() and bool((seen == np.rint(seen)).all())):
        return 0.0
    size = np.median(np.abs(seen))  # not the largest: one wild value would hide all others
    with np.errstate(over="ignore"):
        single = bool((seen.astype(np.float32) == seen).all())
    return LAST_BITS * float(np.spacing(np.float32(size) if single else size))


def is_same(values: Floats, constant: float) -> Flags:
    """Which values are a constant up to rounding: to a millionth of its size; whole numbers are exact.

    >>> is_same(np.array([1.0, 1.0000000001, 1.001]), 1.0).tolist(), bool(is_same(np.array([1e7 + 1]), 1e7)[0])
    ([True, True, False], False)
    """
    with np.errstate(over="ignore", invalid="ignore"):
        close = np.abs(values - constant) <= max(SAME * abs(constant), SAME_AS_ZERO)
    if float(constant).is_integer():
        close &= (values == constant) | (values != np.rint(values))
    return np.asarray(close | (values == constant))


def smallest_step(values: Floats, least: float) -> float:
    """The smallest difference between two values that is more than ``least``; 0 if there is none. NaN is passed over.

    Where nearly all values came more than once, and of three levels or more, those that came once do not count: a few
    values with other decimals would hide the steps of all others.

    >>> smallest_step(np.array([1.0, 1.5, 1.5 + 1e-12, 3.0]), 1e-9)
    0.5
    """
    levels, counts = np.unique(values[np.isfinite(values)], return_counts=True)
    again = counts > 1
    if again.sum() >= LEVELS and counts[~again].sum() <= FEW * counts.sum():
        levels = levels[again]
    steps = np.diff(levels)
    steps = steps[steps > least]
    return float(steps.min()) if len(steps) else 0.0


def beyond(errors: Floats, resolution: Floats, *, signed: bool) -> Floats:
    """What squared residuals, or, ``signed``, residuals, have beyond the resolution of their columns.

    Squares are reduced by the square of the resolution, down to 0, so that large residuals hardly change.

    >>> beyond(np.array([[0.01, 4.0]]), np.array([0.2, 0.2]), signed=False).tolist()
    [[0.0, 3.96]]
    >>> beyond(np.array([[0.1, -5.0]]), np.array([0.2, 3.0]), signed=True).tolist()
    [[0.0, -4.0]]
    """
    if not resolution.any():
        return errors
    squares = np.maximum((errors**2 if signed else errors) - resolution**2, 0.0)
    return np.asarray(np.sign(errors) * np.sqrt(squares) if signed else squares)
