"""A dense autoencoder with a sparse code, for wide rows that are mostly zeros."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator

from detector.checks import check_interval, one_of
from detector.encoders.checks import check_not_negative, check_numbers
from detector.encoders.estimator import AutoencoderMixin
from detector.encoders.network import Network
from detector.encoders.scaling import Scaling
from detector.training.loop import Rows, penalty

SPARSITIES = ("l1", "kl")


@dataclass(kw_only=True, eq=False, repr=False)
class SparseAutoencoder(AutoencoderMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn ships no types
    """Few units of the code answer to a row, and rows may come as a SciPy CSR array.

    A CSR array is made dense a batch at a time, in fitting and in scoring; what ``reconstruct`` gives back is dense.
    Columns are scaled by their root mean square and not centred, so that a zero stays a zero. A zero is a value; NaN
    is refused.

    Parameters
    ----------
    sparsity : str
        "l1": the sum of a non-negative code counts as loss. "kl": each unit of the code should be active in a share
        ``target`` of the rows, and the Kullback-Leibler divergence from that counts (Ng, CS294A notes, 2011).
    weight : float
        How much sparsity counts beside the reconstruction.
    target : float
        Activity that "kl" aims at.
    mask : float
        Share of the values set to zero at random in training.
    standardise : bool
        Whether columns are scaled.

    >>> SparseAutoencoder(sparsity="kl", target=0.1)
    SparseAutoencoder(sparsity='kl', target=0.1)
    """

    code: int = 32
    hidden: tuple[int, ...] = (64,)
    sparsity: str = "l1"
    weight: float = 1e-3
    target: float = 0.05
    mask: float = 0.1
    loss: str = "mse"
    standardise: bool = True

    def _check_settings(self) -> None:
        super()._check_settings()
        one_of("sparsity", self.sparsity, SPARSITIES)
        check_not_negative(self, "weight")
        check_interval(self, "(0, 1)", "target")

    def _checked(self, X: Any, *, reset: bool) -> Any:
        data = check_numbers(self, X, reset=reset, allow_nan=False, accept_sparse=True)
        if reset:
            self.scaling_ = _scaling(data) if self.standardise else Scaling.none(data.shape[1])
        return data

    def _values(self, data: Any) -> Rows:
        if isinstance(data, np.ndarray):
            return super()._values(data)
        from scipy.sparse import csr_array

        scaled = csr_array(data, dtype=np.float32, copy=True)
        scaled.data = (data.data / self.scaling_.scale[data.indices]).astype(np.float32)
        return scaled

    def _sizes(self) -> tuple[int, ...]:
        return ()

    def _build(self, rows: Rows) -> Network:
        from keras import layers, ops

        from detector.encoders.parts import Damage, mean_of, stack

        narrow, widen = stack(self.hidden), stack(self.hidden[::-1])
        to_code = layers.Dense(self.code, activation="relu" if self.sparsity == "l1" else "sigmoid")
        to_values = layers.Dense(rows.shape[1])
        target = self.target

        def divergence(code: Any) -> Any:
            active = ops.clip(ops.mean(code, axis=0), 1e-6, 1 - 1e-6)
            return ops.sum(target * ops.log(target / active) + (1 - target) * ops.log((1 - target) / (1 - active)))

        def size(code: Any) -> Any:
            return ops.sum(ops.abs(code), axis=1, keepdims=True)

        measure = size if self.sparsity == "l1" else divergence
        return Network(
            encode=lambda x: to_code(narrow(x)),
            decode=lambda code: to_values(widen(code)),
            error=mean_of(ops.square),
            loss=mean_of(penalty(self.loss)),
            damage=Damage(mask=self.mask, hidden=0.0, seed=self.random_state),
            penalty=lambda code: self.weight * measure(code),
        )

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = False
        tags.input_tags.sparse = True
        return tags


def _scaling(data: Any) -> Scaling:
    """Root mean square of each column, dense or CSR."""
    squares: NDArray[np.float64]
    if isinstance(data, np.ndarray):
        squares = np.square(data, dtype=np.float64).mean(axis=0)
    else:
        squares = np.bincount(data.indices, np.square(data.data, dtype=np.float64), data.shape[1]) / data.shape[0]
    return Scaling(np.zeros(len(squares)), np.where(squares > 0, np.sqrt(squares), 1.0))
