"""A dense autoencoder for plain numeric rows."""

from __future__ import annotations

from dataclasses import dataclass

from sklearn.base import BaseEstimator

from detector.encoders.estimator import AutoencoderMixin
from detector.encoders.network import Network
from detector.training.loop import Rows


@dataclass(kw_only=True, eq=False, repr=False)
class DenseAutoencoder(AutoencoderMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn ships no types
    """Dense layers around a short code, beside a linear path that starts as PCA.

    Parameters
    ----------
    >>> DenseAutoencoder(code=2, hidden=(32, 16))
    DenseAutoencoder(code=2, hidden=(32, 16))
    """

    code: int = 8
    hidden: tuple[int, ...] = (64,)
    linear: bool = True
    noise: float = 0.0
    mask: float = 0.0
    loss: str = "mse"
    standardise: bool = True

    def _sizes(self) -> tuple[int, ...]:
        return ()

    def _build(self, rows: Rows) -> Network:
        from keras import layers

        from detector.encoders.parts import last_layer, rebuilding, stack

        narrow, widen = stack(self.hidden), stack(self.hidden[::-1])
        to_code = layers.Dense(self.code, kernel_initializer=last_layer(self))
        to_values = layers.Dense(rows.shape[1], kernel_initializer=last_layer(self))
        return rebuilding(
            self, rows, read=lambda given, _: to_code(narrow(given)), write=lambda code: to_values(widen(code))
        )
