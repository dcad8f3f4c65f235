"""The Keras model that is trained. Imports Keras, so it is imported only where a network is built."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np


class Trainer(keras.Model):  # type: ignore[misc]  # keras ships no types
    """A model whose optimiser has its variables before the first step, which TensorFlow else traces twice.

    - ``planned``: what it was compiled for, so that it is not again; None before.
    """

    planned: Any = None

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """As in Keras."""
        super().compile(*args, **kwargs)
        self.optimizer.build(self.trainable_variables)
        self._begin = [np.asarray(each) for each in self.optimizer.variables]

    def rewind(self) -> None:
        """Have the optimiser begin anew, as if nothing had been trained."""
        for variable, value in zip(self.optimizer.variables, self._begin, strict=True):
            variable.assign(value)
