"""An LSTM or GRU autoencoder for windows of any length."""

from __future__ import annotations

from dataclasses import dataclass

from sklearn.base import BaseEstimator

from detector.checks import one_of
from detector.encoders.checks import split_window
from detector.encoders.estimator import AutoencoderMixin
from detector.encoders.network import Network
from detector.training.loop import Rows

CELLS = ("lstm", "gru")


@dataclass(kw_only=True, eq=False, repr=False)
class RecurrentAutoencoder(AutoencoderMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn ships no types
    """A recurrent encoder reads a window step by step into a code; a recurrent decoder writes it out again.

    Windows (n, timesteps, sensors) come flattened: ``X.reshape(len(X), -1)``. Windows of different lengths are padded
    with NaN, before or after: a step without any reading is skipped, a missing reading counts as the mean, and neither
    is scored. After Malhotra et al., ICML workshop 2016.

    Parameters
    ----------
    timesteps : int, optional
        Longest window; without it a row is the window of one sensor.
    cell : str
        "lstm" or "gru".
    units : int
        Units of each recurrent layer.

    >>> RecurrentAutoencoder(timesteps=24, cell="gru")
    RecurrentAutoencoder(cell='gru', timesteps=24)
    """

    timesteps: int | None = None
    code: int = 8
    cell: str = "lstm"
    units: int = 32
    linear: bool = True
    mask: float = 0.0
    loss: str = "mse"
    standardise: bool = True

    def _check_settings(self) -> None:
        super()._check_settings()
        one_of("cell", self.cell, CELLS)

    def _width(self, n_features: int) -> int:
        return split_window(self.timesteps, n_features)[1]

    def _sizes(self) -> tuple[int, ...]:
        return ()

    def _build(self, rows: Rows) -> Network:
        from detector.encoders.sequences import Recurrent, build_window_network

        timesteps, sensors = split_window(self.timesteps, rows.shape[1])
        core = Recurrent(self.cell, units=self.units, timesteps=timesteps)
        return build_window_network(self, core, rows, sensors=sensors)
