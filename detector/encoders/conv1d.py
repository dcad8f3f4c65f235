"""A convolutional autoencoder for windows of sensor readings."""

from __future__ import annotations

from typing import Any

from sklearn.base import BaseEstimator

from detector.encoders.checks import check_shares, check_sizes, split_window
from detector.encoders.estimator import AutoencoderMixin, Network, Weights
from detector.training.loop import OnEpoch, Rows, Training, penalty


class Conv1dAutoencoder(AutoencoderMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn ships no types
    """Convolutions along time, each halving the window, down to a code and up again.

    Windows (n, timesteps, sensors) come flattened: ``X.reshape(len(X), -1)``. The decoder repeats time steps instead
    of transposing convolutions, which ONNX Runtime computes slowly. NaN readings count as the mean and are not judged.

    Parameters
    ----------
    timesteps : int, optional
        Length of a window; without it a row is the window of one sensor.
    code : int
        Length of the code.
    filters : tuple of int
        Filters of the encoder's convolutions; the decoder mirrors them.
    kernel : int
        Time steps a filter sees.
    linear : bool
        Whether there is a linear path beside the network, started at the principal components of the windows.
    mask : float
        Share of the readings hidden in training.
    loss : str
        How a residual counts in training: "mse", "mae", "huber" or "log_cosh".
    standardise : bool
        Whether each sensor is scaled to mean 0 and deviation 1.
    training : Training, optional
        Optimiser, schedule, epochs and so on; the defaults if not given.
    initial_weights : mapping of str to array, optional
        ``weights_`` of an earlier fit, to start from.
    on_epoch : callable, optional
        Told the number of epochs done and planned after each.
    random_state : int
        Seeds weights, masks and the held-out rows.

    >>> Conv1dAutoencoder(timesteps=64, code=16)
    Conv1dAutoencoder(code=16, timesteps=64)
    """

    def __init__(
        self,
        *,
        timesteps: int | None = None,
        code: int = 8,
        filters: tuple[int, ...] = (16, 32),
        kernel: int = 5,
        linear: bool = True,
        mask: float = 0.0,
        loss: str = "mse",
        standardise: bool = True,
        training: Training | None = None,
        initial_weights: Weights | None = None,
        on_epoch: OnEpoch | None = None,
        random_state: int = 0,
    ) -> None:
        self.timesteps = timesteps
        self.code = code
        self.filters = filters
        self.kernel = kernel
        self.linear = linear
        self.mask = mask
        self.loss = loss
        self.standardise = standardise
        self.training = training
        self.initial_weights = initial_weights
        self.on_epoch = on_epoch
        self.random_state = random_state

    def _check_settings(self) -> None:
        super()._check_settings()
        check_sizes(self, "filters", "kernel")
        check_shares(self, "mask")

    def _width(self, n_features: int) -> int:
        return split_window(self.timesteps, n_features)[1]

    def _build(self, rows: Rows) -> Network:
        from keras import layers, ops

        from detector.encoders.parts import Damage, LinearPath, chain, filled, mean_over_seen

        width = rows.shape[1]
        timesteps, sensors = split_window(self.timesteps, width)
        last = "zeros" if self.linear else "glorot_uniform"
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
        to_code = layers.Dense(self.code, kernel_initializer=last)
        widen = chain(
            layers.Dense(short * self.filters[-1], activation="relu"),
            layers.Reshape((short, self.filters[-1])),
            *[
                layer
                for filters in self.filters[-2::-1]
                for layer in (layers.UpSampling1D(2), convolve(filters, activation="relu"))
            ],
            layers.UpSampling1D(2),
            convolve(sensors, kernel_initializer=last),
        )
        flat = layers.Reshape((width,))
        path = LinearPath(rows, self.code, random_state=self.random_state) if self.linear else None

        def encode(x: Any) -> Any:
            x = filled(x)
            code = to_code(narrow(x))
            return code if path is None else code + path.to_code(x)

        def decode(code: Any) -> Any:
            expected = flat(widen(code)[:, :timesteps])
            return expected if path is None else expected + path.from_code(code)

        return Network(
            encode=encode,
            decode=decode,
            error=mean_over_seen(ops.square),
            loss=mean_over_seen(penalty(self.loss)),
            damage=Damage(mask=self.mask, seed=self.random_state),
        )
