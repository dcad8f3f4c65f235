"""The density member: how far a row lies from a bounded set of reference rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from detector.arrays import Floats, Places
from detector.errors import SettingError

PART = 256
"""Rows whose distances are looked at together: they stay in the processor's cache."""
CANCELLED = 2e-6
"""What a squared distance is reduced by, as a share of the row's squared length: about 16 last bits of float32, which
the difference of large products loses. Smaller, and equal rows lie apart by what the processor rounds; larger, and a
row close to a reference would count as that."""


@dataclass(frozen=True)
class References:
    """Reference rows, and the mean distance to the nearest few of them as a score.

    Source: Ramaswamy, Rastogi and Shim, Efficient Algorithms for Mining Outliers, SIGMOD 2000.

    - ``rows``, (n_references, n_inputs): in the scaled space in which distances mean something.
    - ``k``: neighbours whose distances are averaged.
    - ``weights``, (n_inputs,): what a row is multiplied by before distances are measured; the references are so
      already.
    """

    rows: NDArray[np.float32]
    k: int
    weights: NDArray[np.float32]

    @classmethod
    def fit(
        cls,
        X: NDArray[np.float32],
        *,
        references: int = 1000,
        k: int = 5,
        weights: NDArray[np.float32] | None = None,
        random_state: int = 0,
    ) -> Self:
        """Keep a random sample of prepared rows, ``space`` of ``detector.encoding.onnx``.

        Scoring time grows with the number of ``references``; there are never more than rows, nor is ``k``. Raises
        ``SettingError`` if ``references`` or ``k`` is not positive.
        """
        if references < 1 or k < 1:
            raise SettingError(f"references and k must be at least 1. Received: references={references}, k={k}.")
        if len(X) > references:
            X = X[np.sort(np.random.default_rng(random_state).choice(len(X), references, replace=False))]
        weights = np.ones(X.shape[1], dtype=np.float32) if weights is None else weights
        return cls(np.ascontiguousarray(X * weights, dtype=np.float32), min(k, len(X)), weights)

    def squared_distances(self, X: NDArray[np.floating[Any]]) -> Floats:
        """Squared distance of each row to each reference beyond rounding, shape (n_rows, n_references)."""
        X = np.asarray(X, dtype=np.float64) * self.weights
        rows = self.rows.astype(np.float64)
        product = (X**2).sum(axis=1)[:, None] + (rows**2).sum(axis=1) - 2 * X @ rows.T
        return np.asarray(np.maximum(product - CANCELLED * (X**2).sum(axis=1)[:, None], 0.0))

    def score(self, X: NDArray[np.floating[Any]], own: Places | None = None) -> Floats:
        """Mean distance to the k nearest references, shape (n_rows,); the slow, obvious way.

        ``own``, (n_rows,), is the place of each row among the references, which is left out; -1 where it is none. The
        only reference there is stays.
        """
        left_out = own is not None and len(self.rows) > 1
        k = min(self.k, len(self.rows) - 1) if left_out else self.k
        found = np.empty(len(X))
        for start in range(0, len(X), PART):
            block = slice(start, start + PART)
            squared = self.squared_distances(X[block])
            if own is not None and left_out:
                inside = np.flatnonzero(own[block] >= 0)
                squared[inside, own[block][inside]] = np.inf
            found[block] = np.sqrt(np.partition(squared, k - 1, axis=1)[:, :k]).mean(axis=1)
        return found

    def differences(self, X: NDArray[np.floating[Any]]) -> Floats:
        """Squared difference, input by input, from the mean of the k nearest references, shape (n_rows, n_inputs)."""
        weighted = np.asarray(X * self.weights, dtype=np.float32)
        half = 0.5 * (self.rows.astype(np.float64) ** 2).sum(axis=1).astype(np.float32)
        nearest = np.concatenate([self._nearest(part, half) for part in _parts(weighted)] or [np.zeros((0, 1), int)])
        return np.asarray((X * self.weights - self.rows[nearest].mean(axis=1, dtype=np.float64)) ** 2)

    def _nearest(self, weighted: NDArray[np.float32], half: NDArray[np.float32]) -> NDArray[np.int64]:
        """Which references are nearest: |x - r|² less |x|², halved, has the same order."""
        distances = half - weighted @ self.rows.T
        if self.k == 1:
            return np.asarray(distances.argmin(axis=1)[:, None])
        return np.asarray(np.argpartition(distances, self.k - 1, axis=1)[:, : self.k])

    def state(self) -> dict[str, NDArray[Any]]:
        """The arrays, for npz."""
        return {"rows": self.rows, "k": np.array(self.k), "weights": self.weights}

    @classmethod
    def from_state(cls, arrays: dict[str, NDArray[Any]]) -> Self:
        """The inverse of ``state``."""
        return cls(arrays["rows"], int(arrays["k"]), arrays["weights"])


def _parts(rows: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    return [rows[start : start + PART] for start in range(0, len(rows), PART)]
