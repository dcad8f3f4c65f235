"""Each sensor in ranges of its own training values, so that units do not matter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from detector.arrays import Flags, Floats
from detector.errors import DataError
from detector.resolution import float_resolution, smallest_step
from detector.series.segments import carry_on

SAME = 1e-9
ARITHMETIC = 1e-5
"""The least resolution, in ranges: some hundred times what float32 loses when a window is rebuilt."""
COARSEST = 0.05
CONSTANT_SHARE = 0.1
"""The range that a constant is given, as a share of its size, or of the usual range where that is less."""
FLICKER = 0.05
"""A sensor of two or three values that differ by a smaller share of their size is a constant whose last digit flickers.
"""


@dataclass(frozen=True)
class SeriesScaling:
    """How readings become numbers around 0 to 1. Make one with ``SeriesScaling.fit``.

    - ``low``, ``span``, ``middle``, (n_sensors,): each sensor's least value, range with its floor, and median, in its
      own unit.
    - ``known``, (n_sensors,): the sensors that read in training. The others are passed over.
    - ``moving``, (n_sensors,): those of them that were not constant. A constant one is expected to stay so.
    - ``reach``: scaled values are cut so many ranges outside the training range.
    - ``resolution``, (n_sensors,): residuals up to this, in ranges, are those of rounding, see ``resolution_of``.
    """

    low: Floats
    span: Floats
    middle: Floats
    known: Flags
    moving: Flags
    reach: float
    resolution: Floats

    @classmethod
    def fit(cls, seen: Floats, *, range_floor: float, reach: float, coarsest: float = COARSEST) -> Self:
        """Learn each sensor's range from normal rows, shape (n_rows, n_sensors), NaN where missing.

        ``range_floor`` is the least range, as a share of the median range of the sensors that move, and 0 for none;
        ``coarsest`` the most that a sensor's step counts as its resolution, in ranges. A sensor that varies by
        rounding alone is constant. Its range is a tenth of its size, which for 0 is 1, or of the median range where
        that is less, but for this not below 1: so it speaks whatever the others' units. One whose last digit flickers
        has no less. Raises ``DataError`` if no sensor has a value.

        >>> readings = np.array([[0.0, 0.3, 7.0, 0.002], [4.0, 0.3, 7.0, 0.003]])
        >>> scaling = SeriesScaling.fit(readings, range_floor=0.0, reach=10.0)
        >>> scaling.span.round(4).tolist(), scaling.moving.tolist()
        ([4.0, 0.03, 0.2001, 0.001], [True, False, False, True])
        """
        known = np.asarray(~np.isnan(seen).all(axis=0))
        if not known.any():
            raise DataError("No sensor has a value in any usable training row. Give rows with readings.")
        low, middle, width = np.zeros(len(known)), np.zeros(len(known)), np.zeros(len(known))
        low[known], middle[known] = np.nanmin(seen[:, known], axis=0), np.nanmedian(seen[:, known], axis=0)
        width[known] = np.nanmax(seen[:, known], axis=0) - low[known]
        rounding = np.array([float_resolution(column) for column in seen.T])
        moving = known & (width > np.maximum(SAME * np.maximum(1.0, np.abs(low)), rounding))
        typical = float(np.median(width[moving])) if moving.any() else 1.0
        size = np.where(middle == 0, 1.0, np.abs(middle))
        still = CONSTANT_SHARE * np.minimum(size, max(1.0, typical))
        step, flickers = steps_of(seen, rounding)
        span = np.maximum(width, np.where(moving & ~flickers, range_floor * typical, still))
        resolution = resolution_of(step, flickers, rounding, span, coarsest=coarsest)
        return cls(low, span, middle, known, moving, reach, resolution)

    def scale(self, values: Floats, segment: NDArray[Any]) -> NDArray[np.float32]:
        """Readings in ranges; where one is missing, the last of the segment stands in, or the median.

        >>> scaling = SeriesScaling.fit(np.array([[0.0], [4.0]]), range_floor=0.1, reach=10.0)
        >>> scaling.scale(np.array([[1.0], [np.nan], [400.0]]), np.zeros(3)).ravel().tolist()
        [0.25, 0.25, 11.0]
        """
        filled = carry_on(values, segment, self.middle)
        scaled: NDArray[np.float32] = np.clip((filled - self.low) / self.span, -self.reach, 1 + self.reach).astype(
            np.float32
        )
        return scaled

    def unscale(self, scaled: Floats) -> Floats:
        """The moving sensors' scaled values in their units, of shape (n_rows, n_sensors).

        A constant sensor is given its value, one that never read NaN.

        >>> scaling = SeriesScaling.fit(np.array([[0.0, 7.0], [4.0, 7.0]]), range_floor=0.1, reach=10.0)
        >>> scaling.unscale(np.array([[0.5]])).tolist()
        [[2.0, 7.0]]
        """
        values = np.tile(np.where(self.known, self.low, np.nan), (len(scaled), 1))
        values[:, self.moving] = scaled * self.span[self.moving] + self.low[self.moving]
        return values

    def state(self) -> dict[str, NDArray[Any]]:
        """The arrays, for npz."""
        return {name: np.asarray(value) for name, value in vars(self).items()}

    @classmethod
    def from_state(cls, arrays: dict[str, NDArray[Any]]) -> Self:
        """The inverse of ``state``."""
        names = ("low", "span", "middle", "known", "moving")
        resolution = arrays.get("resolution", np.zeros(len(arrays["low"])))  # bundles of 0.1 knew none
        return cls(**{name: arrays[name] for name in names}, reach=float(arrays["reach"]), resolution=resolution)


def steps_of(seen: Floats, rounding: Floats) -> tuple[Floats, Flags]:
    """Each sensor's smallest step in training, 0 for none, and whether it is a constant whose last digit flickers.

    ``seen`` are training rows of shape (n_rows, n_sensors), ``rounding`` how far a sensor's values lie apart by
    rounding.

    >>> step, flickers = steps_of(np.array([[0.0, 0.0, 20.0], [9.9, 1.0, 20.1], [10.0, 0.0, 20.0]]), np.zeros(3))
    >>> step.round(3).tolist(), flickers.tolist()
    ([0.1, 1.0, 0.1], [False, False, True])
    """
    step, flickers = np.zeros(seen.shape[1]), np.zeros(seen.shape[1], dtype=bool)
    for sensor, column in enumerate(seen.T):
        step[sensor] = smallest_step(column, float(rounding[sensor]))
        if step[sensor]:
            most, width = np.nanmax(np.abs(column)), np.nanmax(column) - np.nanmin(column)
            flickers[sensor] = step[sensor] >= (width - rounding[sensor]) / 2 and width < FLICKER * most
    return step, flickers


def resolution_of(step: Floats, flickers: Flags, rounding: Floats, span: Floats, *, coarsest: float) -> Floats:
    """Each sensor's resolution in ranges.

    The largest of three: what float32 loses in a window; how far its values lie apart by ``rounding``; and its smallest
    ``step`` in training. A step counts as ``coarsest`` ranges at most: where it is a large part of the range it is no
    digit but a state, such as that of a valve, and a wrong state has to be found. Two or three values that hardly
    differ are no states: one and a half of their steps count, so a constant sensor whose last digit ``flickers``
    reports nothing until it is off by two.

    >>> step, flickers, span = np.array([0.1, 1.0, 0.1]), np.array([False, False, True]), np.array([10.0, 1.0, 0.1])
    >>> resolution_of(step, flickers, np.zeros(3), span, coarsest=0.05).round(3).tolist()
    [0.01, 0.05, 1.5]
    """
    share = step / span
    own = np.where(flickers, 1.5 * share, np.minimum(share, coarsest))
    return np.asarray(np.maximum(np.maximum(ARITHMETIC, rounding / span), own))
