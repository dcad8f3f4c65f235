"""A variational autoencoder, scored by reconstruction probability."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator

from detector.encoders.estimator import AutoencoderMixin
from detector.encoders.network import Network
from detector.training.loop import Rows
from detector.training.settings import Training

LEAST_VARIANCE = 1e-3


@dataclass(kw_only=True, eq=False, repr=False)
class VariationalAutoencoder(AutoencoderMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn ships no types
    """The code is a distribution, and a row is scored by how probable the decoder finds it.

    The encoder gives a mean and a log-variance for each part of the code; training draws a code from them by
    reparameterisation (Kingma and Welling, ICLR 2014) and minimises the negative log-likelihood plus ``beta`` times the
    divergence from a standard normal code (Higgins et al., ICLR 2017). ``score_samples`` is the reconstruction
    probability of An and Cho (2015): the mean log-density, in nats a value, of the row under the decoder's mean
    and variance, over codes drawn from the row's own distribution. The draws are made once, by a seeded Sobol sequence,
    so a score is a function of the row. ``encode`` gives the mean.

    Parameters
    ----------
    beta : float
        Weight of the divergence.
    warmup : float
        Share of the planned updates in which beta rises from 0, so that the code is not given up before it is used.
    draws : int
        Codes a row is scored by; a power of 2 is sampled most evenly.
    random_state : int
        Seeds weights, draws and the held-out rows.

    >>> VariationalAutoencoder(code=2, beta=0.5)
    VariationalAutoencoder(beta=0.5, code=2)
    """

    code: int = 8
    hidden: tuple[int, ...] = (64,)
    linear: bool = True
    beta: float = 1.0
    warmup: float = 0.25
    draws: int = 8
    standardise: bool = True

    def _sizes(self) -> tuple[int, ...]:
        return ()

    def _build(self, rows: Rows) -> Network:
        from keras import initializers, layers, ops

        from detector.encoders.parts import Draw, LinearPath, WarmUp, filled, last_layer, mean_over_seen, seen, stack

        width = rows.shape[1]
        narrow, widen = stack(self.hidden), stack(self.hidden[::-1])
        to_mean = layers.Dense(self.code, kernel_initializer=last_layer(self))
        to_spread = layers.Dense(self.code, kernel_initializer="zeros", bias_initializer=initializers.Constant(-2.0))
        to_values = layers.Dense(width, kernel_initializer=last_layer(self))
        to_variance = layers.Dense(width, activation="softplus", kernel_initializer="zeros")
        path = LinearPath(rows, self.code, random_state=self.random_state) if self.linear else None
        training = self.training or Training()
        epochs, steps = training.plan(len(rows) - training.held_out(len(rows)))
        rising = WarmUp(self.beta, int(self.warmup * epochs * steps))
        draw = Draw(self.random_state)
        codes = _normal_draws(self.draws, self.code, self.random_state)

        def describe(x: Any) -> tuple[Any, Any]:
            x = filled(x)
            h = narrow(x)
            mean = to_mean(h) if path is None else to_mean(h) + path.to_code(x)
            return mean, ops.clip(to_spread(h), -10.0, 4.0)

        def rebuild(code: Any) -> tuple[Any, Any]:
            h = widen(code)
            expected = to_values(h) if path is None else to_values(h) + path.from_code(code)
            return expected, to_variance(h) + LEAST_VARIANCE

        def surprise_of(x: Any, code: Any) -> Any:
            """Negative log-density in nats a value."""
            expected, variance = rebuild(code)
            nats = 0.5 * (ops.square(filled(x) - expected) / variance + ops.log(2 * np.pi * variance))
            ones = np.ones((width, 1), dtype="float32")
            there = seen(x)
            return ops.matmul(nats * there, ones) / ops.maximum(ops.matmul(there, ones), 1.0)

        def objective(x: Any) -> Any:
            mean, log_variance = describe(x)
            divergence = 0.5 * ops.sum(
                ops.square(mean) + ops.exp(log_variance) - 1.0 - log_variance, axis=1, keepdims=True
            )
            return surprise_of(x, draw([mean, log_variance])) + rising(divergence) / width

        def surprise(x: Any) -> Any:
            mean, log_variance = describe(x)
            spread = ops.exp(0.5 * log_variance)
            found = [surprise_of(x, mean + spread * at) for at in codes]
            return layers.Add()(found) / len(found) if len(found) > 1 else found[0]

        return Network(
            encode=lambda x: describe(x)[0],
            decode=lambda code: rebuild(code)[0],
            error=mean_over_seen(ops.square),
            loss=mean_over_seen(ops.square),
            objective=objective,
            surprise=surprise,
        )


def _normal_draws(draws: int, code: int, seed: int) -> list[NDArray[np.float32]]:
    """Evenly spread standard normal draws: a scrambled Sobol sequence through the inverse distribution."""
    from scipy.stats import norm, qmc

    size = 2 ** int(np.ceil(np.log2(draws)))
    even = qmc.Sobol(code, rng=np.random.default_rng(seed)).random(size)[:draws]
    return [row[None, :] for row in norm.ppf(np.clip(even, 1e-6, 1 - 1e-6)).astype(np.float32)]
