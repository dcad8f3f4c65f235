"""A dense autoencoder for rows of numbers and of coded categories."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator

from detector.encoders.estimator import AutoencoderMixin
from detector.encoders.network import Network
from detector.encoders.scaling import Scaling
from detector.errors import SettingError
from detector.training.loop import Rows, penalty


@dataclass(kw_only=True, eq=False, repr=False)
class MixedAutoencoder(AutoencoderMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn ships no types
    """Numbers are rebuilt by value, categories by the probability of each level.

    For arrays, and as a branch of ``MultimodalAutoencoder``; for frames see ``TabularDetector``. A row's error is the
    mean of its numbers' squared scaled residuals and its categories' cross-entropies.

    Parameters
    ----------
    categorical : tuple of int
        Positions of the columns whose numbers are codes of a category. A code not seen in fitting is never expected,
        so it costs the row dearly; NaN is a missing category and is not scored.
    embedding : int
        Length of the vector a category is embedded to.

    Attributes
    ----------
    levels_ : list of array
        The codes known of each categorical column.

    >>> MixedAutoencoder(categorical=(0, 3), code=4)
    MixedAutoencoder(categorical=(0, 3), code=4)
    """

    categorical: tuple[int, ...] = ()
    code: int = 8
    hidden: tuple[int, ...] = (64,)
    embedding: int = 8
    noise: float = 0.0
    mask: float = 0.0
    loss: str = "mse"

    _choices = ("expected", "decoded")

    def _checked(self, X: Any, *, reset: bool) -> Any:
        data = super()._checked(X, reset=reset)
        if reset:
            chosen = list(self.categorical)
            if len(set(chosen)) < len(chosen) or not all(0 <= at < data.shape[1] for at in chosen):
                raise SettingError(
                    f"categorical must be different positions from 0 to {data.shape[1] - 1}. Received: "
                    f"categorical={self.categorical!r}."
                )
            self.levels_ = [np.unique(data[:, at][~np.isnan(data[:, at])]) for at in chosen]
            centre, scale = self.scaling_.centre.copy(), self.scaling_.scale.copy()
            centre[chosen], scale[chosen] = 0.0, 1.0
            self.scaling_ = Scaling(centre, scale)
        return data

    def _values(self, data: Any) -> Rows:
        values = self.scaling_.scaled(data)
        for at, levels in zip(self.categorical, self.levels_, strict=True):
            place = np.searchsorted(levels, data[:, at])
            known = np.isin(data[:, at], levels)
            values[:, at] = np.where(known, place + 1, np.where(np.isnan(data[:, at]), np.nan, 0))
        return values

    def _restored(self, expected: NDArray[np.float32]) -> NDArray[np.float64]:
        restored = self.scaling_.unscaled(expected)
        for at, levels in zip(self.categorical, self.levels_, strict=True):
            known = levels if len(levels) else np.array([np.nan])
            restored[:, at] = known[np.clip(expected[:, at].astype(int) - 1, 0, len(known) - 1)]
        return restored

    def _sizes(self) -> tuple[int, ...]:
        return tuple(len(levels) for levels in self.levels_)

    def _build(self, rows: Rows) -> Network:
        from keras import layers, ops

        from detector.encoders.parts import Damage, Levels, concatenated, filled, seen, stack

        chosen, width = list(self.categorical), rows.shape[1]
        numeric = [at for at in range(width) if at not in chosen]
        sizes = [max(len(levels), 1) + 1 for levels in self.levels_]
        pick = np.eye(width, dtype="float32")
        to_numbers, to_codes = pick[:, numeric], pick[:, chosen]
        in_order, ones = pick[:, [*numeric, *chosen]], np.ones((width, 1), dtype="float32")
        embed = [layers.Embedding(size, self.embedding) for size in sizes]
        narrow, widen = stack(self.hidden), stack(self.hidden[::-1])
        to_code = layers.Dense(self.code)
        to_values = layers.Dense(len(numeric)) if numeric else None
        to_levels = Levels(sizes) if sizes else None
        damage = Damage(mask=self.mask, seed=self.random_state)
        noise = Damage(noise=self.noise, seed=self.random_state + 1)
        moving = to_numbers.sum(axis=1)

        def encode(x: Any) -> Any:
            given = filled(x)
            parts = [ops.matmul(given, to_numbers), seen(x)] if numeric else [seen(x)]
            parts += [layer(ops.cast(given[:, at], "int32")) for layer, at in zip(embed, chosen, strict=True)]
            return to_code(narrow(concatenated(parts)))

        def decode(code: Any) -> Any:
            h = widen(code)
            heads = [] if to_values is None else [to_values(h)]
            heads += [] if to_levels is None else [to_levels(h)]
            return concatenated(heads)

        def error_by(count: Any) -> Any:
            def error(x: Any, expected: Any) -> Any:
                given, there = filled(x), seen(x)
                parts = [count(ops.matmul(given, to_numbers) - expected[:, : len(numeric)])] if numeric else []
                if to_levels is not None:
                    parts.append(to_levels.surprise(ops.take(given, chosen, axis=1), expected[:, len(numeric) :]))
                costs = concatenated(parts)
                there = ops.matmul(there, in_order)
                return ops.matmul(costs * there, ones) / ops.maximum(ops.matmul(there, ones), 1.0)

            return error

        def choose(expected: Any) -> Any:
            answer = ops.matmul(expected[:, : len(numeric)], to_numbers.T) if numeric else 0.0
            start = len(numeric)
            for i, size in enumerate(sizes):
                likelihood = expected[:, start + 1 : start + size]
                best = ops.max(likelihood, axis=1, keepdims=True)
                level = ops.max(
                    ops.cast(likelihood >= best, "float32") * np.arange(1, size, dtype="float32"), axis=1, keepdims=True
                )
                answer = answer + ops.matmul(level, to_codes.T[i : i + 1])
                start += size
            return answer

        return Network(
            encode=encode,
            decode=decode,
            error=error_by(ops.square),
            loss=error_by(penalty(self.loss)),
            damage=lambda x: damage(noise(x) * moving + x * (1.0 - moving)),
            choose=choose,
        )
