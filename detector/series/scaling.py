"""Each sensor in ranges of its own training values, with a floor, so that quiet sensors do not drown the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from detector.arrays import Flags, Floats
from detector.errors import DataError
from detector.series.segments import carry_on

SAME = 1e-9


@dataclass(frozen=True)
class SeriesScaling:
    """How readings become numbers around 0 to 1. Make one with ``SeriesScaling.fit``.

    - ``low``, ``span``, ``middle``, (n_sensors,): each sensor's least value, range with its floor, and median, in its
      own unit.
    - ``known``, (n_sensors,): the sensors that read in training. The others are passed over.
    - ``moving``, (n_sensors,): those of them that were not constant. A constant one is expected to stay so.
    - ``reach``: scaled values are cut so many ranges outside the training range.
    """

    low: Floats
    span: Floats
    middle: Floats
    known: Flags
    moving: Flags
    reach: float

    @classmethod
    def fit(cls, seen: Floats, *, range_floor: float, reach: float) -> Self:
        """Learn each sensor's range from normal rows, shape (n_rows, n_sensors), NaN where missing.

        ``range_floor`` is the least range, as a share of the median range of the sensors that move. Raises
        ``DataError`` if no sensor has a value.

        >>> scaling = SeriesScaling.fit(np.array([[0.0, 7.0], [4.0, 7.0]]), range_floor=0.1, reach=10.0)
        >>> scaling.span.tolist(), scaling.moving.tolist()
        ([4.0, 0.4], [True, False])
        """
        known = np.asarray(~np.isnan(seen).all(axis=0))
        if not known.any():
            raise DataError("No sensor has a value in any usable training row. Give rows with readings.")
        low, middle, width = np.zeros(len(known)), np.zeros(len(known)), np.zeros(len(known))
        low[known], middle[known] = np.nanmin(seen[:, known], axis=0), np.nanmedian(seen[:, known], axis=0)
        width[known] = np.nanmax(seen[:, known], axis=0) - low[known]
        moving = known & (width > SAME * np.maximum(1.0, np.abs(low)))
        typical = float(np.median(width[moving])) if moving.any() else 1.0
        least = np.where(moving, range_floor * typical, range_floor * max(1.0, typical))
        return cls(low, np.maximum(width, least), middle, known, moving, reach)

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
        return cls(**{name: arrays[name] for name in names}, reach=float(arrays["reach"]))
