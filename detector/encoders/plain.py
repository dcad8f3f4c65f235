"""A dense autoencoder for plain numeric rows."""

from __future__ import annotations

from typing import Any

from sklearn.base import BaseEstimator

from detector.encoders.checks import check_not_negative, check_shares, check_sizes
from detector.encoders.estimator import AutoencoderMixin, Network, Weights
from detector.training.loop import OnEpoch, Rows, Training, penalty


class DenseAutoencoder(AutoencoderMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn ships no types
    """Dense layers around a short code, beside a linear path that starts as PCA.

    Parameters
    ----------
    code : int
        Length of the code.
    hidden : tuple of int
        Units of the encoder's hidden layers; the decoder mirrors them.
    linear : bool
        Whether there is a linear path beside the network, started at the principal components: the reconstruction
        starts as PCA's, and the network learns what is not linear.
    noise : float
        Standard deviation of the noise put on the scaled values in training.
    mask : float
        Share of the values hidden in training.
    loss : str
        How a residual counts in training: "mse", "mae", "huber" or "log_cosh".
    standardise : bool
        Whether columns are scaled to mean 0 and deviation 1; if not, the residuals count in the columns' own units.
    training : Training, optional
        Optimiser, schedule, epochs and so on; the defaults if not given.
    initial_weights : mapping of str to array, optional
        ``weights_`` of an earlier fit, to start from.
    on_epoch : callable, optional
        Told the number of epochs done and planned after each.
    random_state : int
        Seeds weights, noise and the held-out rows.

    >>> DenseAutoencoder(code=2, hidden=(32, 16))
    DenseAutoencoder(code=2, hidden=(32, 16))
    """

    def __init__(
        self,
        *,
        code: int = 8,
        hidden: tuple[int, ...] = (64,),
        linear: bool = True,
        noise: float = 0.0,
        mask: float = 0.0,
        loss: str = "mse",
        standardise: bool = True,
        training: Training | None = None,
        initial_weights: Weights | None = None,
        on_epoch: OnEpoch | None = None,
        random_state: int = 0,
    ) -> None:
        self.code = code
        self.hidden = hidden
        self.linear = linear
        self.noise = noise
        self.mask = mask
        self.loss = loss
        self.standardise = standardise
        self.training = training
        self.initial_weights = initial_weights
        self.on_epoch = on_epoch
        self.random_state = random_state

    def _check_settings(self) -> None:
        super()._check_settings()
        check_sizes(self, "hidden")
        check_shares(self, "mask")
        check_not_negative(self, "noise")

    def _build(self, rows: Rows) -> Network:
        from keras import layers, ops

        from detector.encoders.parts import Damage, LinearPath, filled, mean_over_seen, stack

        width = rows.shape[1]
        last = "zeros" if self.linear else "glorot_uniform"
        narrow, widen = stack(self.hidden), stack(self.hidden[::-1])
        to_code = layers.Dense(self.code, kernel_initializer=last)
        to_values = layers.Dense(width, kernel_initializer=last)
        path = LinearPath(rows, self.code, random_state=self.random_state) if self.linear else None

        def encode(x: Any) -> Any:
            x = filled(x)
            code = to_code(narrow(x))
            return code if path is None else code + path.to_code(x)

        def decode(code: Any) -> Any:
            expected = to_values(widen(code))
            return expected if path is None else expected + path.from_code(code)

        return Network(
            encode=encode,
            decode=decode,
            error=mean_over_seen(ops.square),
            loss=mean_over_seen(penalty(self.loss)),
            damage=Damage(noise=self.noise, mask=self.mask, seed=self.random_state),
        )
