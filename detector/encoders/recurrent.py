"""An LSTM or GRU autoencoder for windows of any length."""

from __future__ import annotations

from sklearn.base import BaseEstimator

from detector.encoders.checks import check_shares, check_sizes, split_window
from detector.encoders.estimator import AutoencoderMixin, Network, Weights
from detector.training.loop import OnEpoch, Rows, Training
from detector.training.settings import one_of

CELLS = ("lstm", "gru")


class RecurrentAutoencoder(AutoencoderMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn ships no types
    """A recurrent encoder reads a window step by step into a code; a recurrent decoder writes it out again.

    Windows (n, timesteps, sensors) come flattened: ``X.reshape(len(X), -1)``. Windows of different lengths are padded
    with NaN, before or after: a step without any reading is skipped, a missing reading counts as the mean, and neither
    is judged. After Malhotra et al., ICML workshop 2016.

    Parameters
    ----------
    timesteps : int, optional
        Longest window; without it a row is the window of one sensor.
    code : int
        Length of the code.
    cell : str
        "lstm" or "gru".
    units : int
        Units of each recurrent layer.
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

    >>> RecurrentAutoencoder(timesteps=24, cell="gru")
    RecurrentAutoencoder(cell='gru', timesteps=24)
    """

    def __init__(
        self,
        *,
        timesteps: int | None = None,
        code: int = 8,
        cell: str = "lstm",
        units: int = 32,
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
        self.cell = cell
        self.units = units
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
        one_of("cell", self.cell, CELLS)
        check_sizes(self, "units")
        check_shares(self, "mask")

    def _width(self, n_features: int) -> int:
        return split_window(self.timesteps, n_features)[1]

    def _build(self, rows: Rows) -> Network:
        from detector.encoders.sequences import Recurrent
        from detector.encoders.window_network import build_window_network

        timesteps, sensors = split_window(self.timesteps, rows.shape[1])
        return build_window_network(
            Recurrent(self.cell, units=self.units, timesteps=timesteps),
            rows,
            sensors=sensors,
            code=self.code,
            linear=self.linear,
            mask=self.mask,
            loss=self.loss,
            random_state=self.random_state,
        )
