"""A Transformer autoencoder for windows of any length."""

from __future__ import annotations

from sklearn.base import BaseEstimator

from detector.encoders.checks import check_shares, check_sizes, split_window
from detector.encoders.estimator import AutoencoderMixin, Network, Weights
from detector.errors import SettingError
from detector.training.loop import OnEpoch, Rows, Training


class TransformerAutoencoder(AutoencoderMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn ships no types
    """Self-attention over the steps of a window, pooled to a code, and self-attention to write it out again.

    Windows (n, timesteps, sensors) come flattened: ``X.reshape(len(X), -1)``. Windows of different lengths are padded
    with NaN: a step without any reading is not looked at, a missing reading counts as the mean, and neither is judged.
    For tokens see ``TokenAutoencoder(network="transformer")``.

    Parameters
    ----------
    timesteps : int, optional
        Longest window; without it a row is the window of one sensor.
    code : int
        Length of the code.
    units : int
        Width of the vectors a step is turned into; a multiple of ``heads``.
    heads : int
        Attentions side by side.
    blocks : int
        Attention layers of the encoder, and of the decoder.
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

    >>> TransformerAutoencoder(timesteps=24, units=16, heads=2)
    TransformerAutoencoder(heads=2, timesteps=24, units=16)
    """

    def __init__(
        self,
        *,
        timesteps: int | None = None,
        code: int = 8,
        units: int = 32,
        heads: int = 4,
        blocks: int = 1,
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
        self.units = units
        self.heads = heads
        self.blocks = blocks
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
        check_sizes(self, "units", "heads", "blocks")
        check_shares(self, "mask")
        if self.units % self.heads:
            raise SettingError(f"units must be a multiple of heads. Received: units={self.units}, heads={self.heads}.")

    def _width(self, n_features: int) -> int:
        return split_window(self.timesteps, n_features)[1]

    def _build(self, rows: Rows) -> Network:
        from detector.encoders.sequences import Attentive
        from detector.encoders.window_network import build_window_network

        timesteps, sensors = split_window(self.timesteps, rows.shape[1])
        return build_window_network(
            Attentive(width=self.units, heads=self.heads, blocks=self.blocks, timesteps=timesteps),
            rows,
            sensors=sensors,
            code=self.code,
            linear=self.linear,
            mask=self.mask,
            loss=self.loss,
            random_state=self.random_state,
        )
