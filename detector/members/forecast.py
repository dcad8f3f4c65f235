"""One-step forecasts of all sensors from their last few rows: a ridge regression, in NumPy alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from detector.arrays import Counts, Flags, Floats
from detector.members.window_pca import MOST_INPUTS, scatter_of
from detector.series.segmented_windows import LaidWindows, thinned

RIDGE = 0.01
"""What is added to each input's variance, as a share of the mean variance of the inputs."""


@dataclass(frozen=True)
class Forecast:
    """A vector autoregression. Make one with ``Forecast.fit``.

    - ``centre``, (lags * n_sensors + n_sensors,): means of the inputs and of what is forecast.
    - ``weights``, (lags * n_sensors, n_sensors): inputs → forecast, both from their means.
    """

    centre: Floats
    weights: Floats

    @classmethod
    def fit(cls, laid: LaidWindows, chosen: Flags) -> Self:
        """Learn from the windows chosen, of ``lags + 1`` scaled rows, how their last row follows from those before it.

        Raises ``DataError`` if there are fewer than 2 windows.

        >>> ticking = np.tile([[0.0], [1.0]], (50, 1)).astype(np.float32)
        >>> laid = LaidWindows.lay(ticking, np.zeros(100), 2, lead=True)
        >>> Forecast.fit(laid, laid.whole).weights.round(2).tolist()
        [[-0.99]]
        """
        inputs = (laid.windows.length - 1) * laid.values.shape[1]
        if inputs > MOST_INPUTS:
            chosen = thinned(chosen, MOST_INPUTS)
        centre, scatter = scatter_of(laid, chosen)
        if scatter is not None:
            ridge = _ridge(float(np.trace(scatter[:inputs, :inputs])), inputs)
            weights = np.linalg.solve(scatter[:inputs, :inputs] + ridge * np.eye(inputs), scatter[:inputs, inputs:])
        else:  # fewer windows than inputs: the same by way of the products between windows
            deviation = laid.some(chosen).cut(laid.values) - centre
            before, after = deviation[:, :inputs], deviation[:, inputs:]
            alike = before @ before.T
            ridge = _ridge(float(np.trace(alike)), inputs)
            weights = before.T @ np.linalg.solve(alike + ridge * np.eye(len(alike)), after)
        return cls(centre, np.asarray(weights, dtype=np.float64))

    def errors(self, laid: LaidWindows, chosen: Flags | None = None) -> Floats:
        """How far each row is from its forecast, of shape (n_rows, n_sensors); NaN where no chosen window ends."""
        inputs = len(self.weights)
        windows = laid.some(chosen)
        found = np.full((len(laid.values), self.weights.shape[1]), np.nan)
        for part, block in laid.blocks(chosen):
            deviation = block - self.centre
            found[_last(windows.stops, part)] = deviation[:, inputs:] - deviation[:, :inputs] @ self.weights
        return found[laid.own]

    def state(self) -> dict[str, NDArray[Any]]:
        """The arrays, for npz."""
        return {"centre": self.centre, "weights": self.weights}

    @classmethod
    def from_state(cls, arrays: dict[str, NDArray[Any]]) -> Self:
        """The inverse of ``state``."""
        return cls(arrays["centre"], arrays["weights"])


def _ridge(total: float, inputs: int) -> float:
    return max(RIDGE * total / inputs, float(np.finfo(np.float32).eps))


def _last(stops: Counts, part: slice) -> Counts:
    return stops[part] - 1
