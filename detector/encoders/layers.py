"""Keras layers that several architectures share. Imports Keras, so it is imported only where a network is built."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


class Corruption(keras.layers.Layer):  # type: ignore[misc]  # keras ships no types
    """Damage a row, so that a network that repairs it must learn how columns depend on each other.

    Gaussian noise goes onto the values, at a level that each row draws between 0 and ``noise``, because one constant
    level is fragile (Sattarov et al., KDD 2025). Every second row also has a share of its cells hidden, drawn between 0
    and ``mask``; a hidden cell looks like a missing one, a hidden category like an unseen one. Acts in validation
    too, so that early stopping watches the task that is trained.
    """

    def __init__(self, *, noise: float, mask: float, unseen: int, seed: int) -> None:
        super().__init__()
        self.noise = noise
        self.mask = mask
        self.unseen = unseen
        self.generator = keras.random.SeedGenerator(seed)

    def call(self, row: dict[str, Any]) -> dict[str, Any]:
        """``values``, ``missing`` and ``labels``, those that are there, each of shape (n_rows, ·)."""
        n_rows = ops.shape(next(iter(row.values())))[0]
        chosen = ops.cast(keras.random.uniform((n_rows, 1), seed=self.generator) < 0.5, "float32")
        share = chosen * keras.random.uniform((n_rows, 1), 0.0, self.mask, seed=self.generator)
        level = keras.random.uniform((n_rows, 1), 0.0, self.noise, seed=self.generator)
        damaged = dict(row)
        if "values" in row:
            shape = ops.shape(row["values"])
            hidden = ops.cast(keras.random.uniform(shape, seed=self.generator) < share, "float32")
            noisy = row["values"] + level * keras.random.normal(shape, seed=self.generator)
            damaged["missing"] = ops.maximum(row["missing"], hidden)
            damaged["values"] = noisy * (1.0 - damaged["missing"])
        if "labels" in row:
            hidden = keras.random.uniform(ops.shape(row["labels"]), seed=self.generator) < share
            damaged["labels"] = ops.where(hidden, ops.cast(self.unseen, "float32"), row["labels"])
        return damaged
