"""A convolutional autoencoder for windows of sensor readings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sklearn.base import BaseEstimator

from detector.encoders.checks import split_window
from detector.encoders.estimator import AutoencoderMixin
from detector.encoders.network import Network
from detector.training.loop import Rows


@dataclass(kw_only=True, eq=False, repr=False)
class Conv1dAutoencoder(AutoencoderMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn ships no types
    """Convolutions along time, each halving the window, down to a code and up again.

    Windows (n, timesteps, sensors) come flattened: ``X.reshape(len(X), -1)``. The decoder repeats time steps instead
    of transposing convolutions, which ONNX Runtime computes slowly. NaN readings count as the mean and are not scored.

    Parameters
    ----------
    timesteps : int, optional
        Length of a window; without it a row is the window of one sensor.
    kernel : int
        Time steps a filter sees.

    >>> Conv1dAutoencoder(timesteps=64, code=16)
    Conv1dAutoencoder(code=16, timesteps=64)
    """

    timesteps: int | None = None
    code: int = 8
    filters: tuple[int, ...] = (16, 32)
    kernel: int = 5
    linear: bool = True
    mask: float = 0.0
    loss: str = "mse"
    standardise: bool = True

    def _width(self, n_features: int) -> int:
        return split_window(self.timesteps, n_features)[1]

    def _sizes(self) -> tuple[int, ...]:
        return ()

    def _build(self, rows: Rows) -> Network:
        from keras import layers

        from detector.encoders.parts import chain, last_layer, rebuilding

        width = rows.shape[1]
        timesteps, sensors = split_window(self.timesteps, width)
        short = timesteps
        for _ in self.filters:
            short = -(-short // 2)

        def convolve(filters: int, **more: Any) -> Any:
            return layers.Conv1D(filters, self.kernel, padding="same", **more)

        narrow = chain(
            layers.Reshape((timesteps, sensors)),
            *[convolve(filters, strides=2, activation="relu") for filters in self.filters],
            layers.Flatten(),
        )
        to_code = layers.Dense(self.code, kernel_initializer=last_layer(self))
        widen = chain(
            layers.Dense(short * self.filters[-1], activation="relu"),
            layers.Reshape((short, self.filters[-1])),
            *[
                layer
                for filters in self.filters[-2::-1]
                for layer in (layers.UpSampling1D(2), convolve(filters, activation="relu"))
            ],
            layers.UpSampling1D(2),
            convolve(sensors, kernel_initializer=last_layer(self)),
        )
        flat = layers.Reshape((width,))

        def read(given: Any, _: Any) -> Any:
            return to_code(narrow(given))

        def write(code: Any) -> Any:
            return flat(widen(code)[:, :timesteps])

        return rebuilding(self, rows, read=read, write=write)
