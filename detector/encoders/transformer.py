"""A Transformer autoencoder for windows of any length."""

from __future__ import annotations

from dataclasses import dataclass

from sklearn.base import BaseEstimator

from detector.encoders.checks import check_heads, split_window
from detector.encoders.estimator import AutoencoderMixin
from detector.encoders.network import Network
from detector.training.loop import Rows


@dataclass(kw_only=True, eq=False, repr=False)
class TransformerAutoencoder(AutoencoderMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn ships no types
    """Self-attention over the steps of a window, pooled to a code, and self-attention to write it out again.

    Windows (n, timesteps, sensors) come flattened: ``X.reshape(len(X), -1)``. Windows of different lengths are padded
    with NaN: a step without any reading is not looked at, a missing reading counts as the mean, and neither is scored.
    For tokens see ``TokenAutoencoder(network="transformer")``.

    Parameters
    ----------
    timesteps : int, optional
        Longest window; without it a row is the window of one sensor.
    units : int
        Width of the vectors a step is turned into; a multiple of ``heads``.
    heads : int
        Attentions side by side.
    blocks : int
        Attention layers of the encoder, and of the decoder.

    >>> TransformerAutoencoder(timesteps=24, units=16, heads=2)
    TransformerAutoencoder(heads=2, timesteps=24, units=16)
    """

    timesteps: int | None = None
    code: int = 8
    units: int = 32
    heads: int = 4
    blocks: int = 1
    linear: bool = True
    mask: float = 0.0
    loss: str = "mse"
    standardise: bool = True

    def _check_settings(self) -> None:
        super()._check_settings()
        check_heads(self)

    def _width(self, n_features: int) -> int:
        return split_window(self.timesteps, n_features)[1]

    def _sizes(self) -> tuple[int, ...]:
        return ()

    def _build(self, rows: Rows) -> Network:
        from detector.encoders.sequences import Attentive, build_window_network

        timesteps, sensors = split_window(self.timesteps, rows.shape[1])
        core = Attentive(width=self.units, heads=self.heads, blocks=self.blocks, timesteps=timesteps)
        return build_window_network(self, core, rows, sensors=sensors)
