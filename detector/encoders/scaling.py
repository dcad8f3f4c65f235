"""Numbers → numbers of mean 0 and deviation 1, and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from detector.resolution import LAST_BITS

LIMIT = 1e6
"""Where scaled values end: far beyond any normal one, and its square is still a float32."""


@dataclass(frozen=True)
class Scaling:
    """One centre and one scale for each column, or for each sensor or channel that comes back every few columns.

    - ``centre``, ``scale``, (width,): what is subtracted, and then divided by. Never near 0: a constant column keeps
      its unit.
    """

    centre: NDArray[np.float64]
    scale: NDArray[np.float64]

    @classmethod
    def fit(cls, X: NDArray[np.floating[Any]], width: int) -> Self:
        """Take mean and deviation of the values that are not NaN; column j belongs to sensor j modulo ``width``.

        >>> Scaling.fit(np.array([[1.0, 5.0, 3.0, 5.0]]), 2)
        Scaling(centre=array([2., 5.]), scale=array([1., 1.]))
        """
        values = X.reshape(-1, width)
        seen = ~np.isnan(values)
        n_seen = np.maximum(seen.sum(axis=0), 1)
        centre = np.where(seen, values, 0.0).sum(axis=0, dtype=np.float64) / n_seen
        spread = np.where(seen, values - centre, 0.0)
        scale = np.sqrt(np.square(spread).sum(axis=0) / n_seen)
        share = LAST_BITS * np.finfo(np.float32).eps if X.dtype == np.float32 else 1e-9
        return cls(centre, np.where(scale > share * np.maximum(np.abs(centre), 1e-9), scale, 1.0))

    @classmethod
    def none(cls, width: int) -> Self:
        """Leave values as they are."""
        return cls(np.zeros(width), np.ones(width))

    def scaled(self, X: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
        """Scaled values, cut at ±``LIMIT``; NaN stays.

        >>> Scaling(np.array([10.0]), np.array([2.0])).scaled(np.array([[14.0, np.nan]]))
        array([[ 2., nan]], dtype=float32)
        """
        width = len(self.centre)
        values = (X.reshape(-1, width) - self.centre) / self.scale
        return np.clip(values, -LIMIT, LIMIT).astype(np.float32).reshape(X.shape)

    def unscaled(self, Z: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """Scaled values in their own units.

        >>> Scaling(np.array([10.0]), np.array([2.0])).unscaled(np.array([[2.0]]))
        array([[14.]])
        """
        width = len(self.centre)
        values: NDArray[np.float64] = Z.reshape(-1, width).astype(np.float64) * self.scale + self.centre
        return values.reshape(Z.shape)
