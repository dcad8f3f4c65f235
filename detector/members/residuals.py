"""Residuals → how unusual each sensor's is, against residuals of rows that were not learnt from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from detector.arrays import Flags, Floats

Residuals = Literal["z", "mahalanobis"]


@dataclass(frozen=True)
class ResidualRule:
    """A z-score for each sensor, or the distance of all together. Make one with ``ResidualRule.fit``.

    - ``baseline``, (n_sensors,): mean of the squared residuals; of the residuals themselves where there is a
      ``precision``.
    - ``deviation``, (n_sensors,): spread of the squared residuals.
    - ``precision``, (n_sensors, n_sensors): the inverse of the residuals' covariance: then what counts is the
      Mahalanobis distance, which finds sensors whose residuals no longer go together.
    - ``cap``: the most that one sensor's z-score, or a row's squared distance a sensor, counts: lest one drown the
      others.
    - ``known``, (n_sensors,): the sensors that count.
    """

    baseline: Floats
    deviation: Floats
    precision: Floats | None
    cap: float
    known: Flags

    @classmethod
    def fit(cls, errors: Floats, compared: Flags, *, kind: Residuals, known: Flags, floor: float, cap: float) -> Self:
        """Learn what is usual from errors of shape (n_rows, n_sensors).

        Those count where a reading was compared with what was expected. Errors are squared residuals, in ranges, for
        "z", and residuals for "mahalanobis"; ``floor`` is the least deviation of a residual, in ranges; ``known`` are
        the sensors that count.

        >>> errors = np.array([[0.0], [2.0], [4.0]])
        >>> seen = np.full((3, 1), True)
        >>> rule = ResidualRule.fit(errors, seen, kind="z", known=seen[0], floor=0.05, cap=100.0)
        >>> rule.parts(np.array([[2.0], [1e9]]), seen[:2]).ravel().tolist()
        [0.0, 100.0]
        """
        kept = np.where(compared, errors, 0.0)
        count = np.maximum(compared.sum(axis=0), 1)
        baseline = kept.sum(axis=0) / count
        centred = np.where(compared, errors - baseline, 0.0)
        if kind == "z":
            spread = np.sqrt((centred**2).sum(axis=0) / count)
            return cls(baseline, np.maximum(spread, floor**2), None, cap, known)
        together = np.maximum(compared.astype(np.float64).T @ compared, 1)
        covariance = centred.T @ centred / together
        covariance[np.diag_indices_from(covariance)] += floor**2
        found, directions = np.linalg.eigh(covariance)  # of pairs seen at different times it may not be positive
        precision = (directions / np.maximum(found, floor**2)) @ directions.T
        return cls(baseline, np.ones(len(baseline)), precision, cap, known)

    def parts(self, errors: Floats, compared: Flags) -> Floats:
        """What each sensor adds to how unusual a row is, which is their sum; 0 where nothing was compared.

        With z-scores that is their mean over the sensors; with a distance, its square a sensor, split by what each
        sensor's residual has to do with it.
        """
        counts = compared & self.known
        n_known = max(1, int(self.known.sum()))
        if self.precision is None:
            z = np.minimum((errors - self.baseline) / self.deviation, self.cap)
            return np.asarray(np.where(counts, z, 0.0) / n_known)
        centred = np.where(counts, errors - self.baseline, 0.0)
        parts = centred * (centred @ self.precision) / n_known
        total = parts.sum(axis=1, keepdims=True)
        return np.asarray(parts * np.minimum(1.0, self.cap / np.maximum(total, self.cap * 1e-9)))

    def state(self) -> dict[str, NDArray[Any]]:
        """The arrays, for npz."""
        stored = {"usual" if name == "baseline" else name: value for name, value in vars(self).items()}
        return {name: np.asarray(value) for name, value in stored.items() if value is not None}

    @classmethod
    def from_state(cls, arrays: dict[str, NDArray[Any]]) -> Self:
        """The inverse of ``state``."""
        return cls(arrays["usual"], arrays["deviation"], arrays.get("precision"), float(arrays["cap"]), arrays["known"])
