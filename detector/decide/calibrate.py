"""Risk → p-value: the share of normal rows at least this risky, counted among rows held out from fitting.

``detector.decide.policy`` turns p-values into flags; its names can be had from here too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, expm1, log
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from detector.arrays import Floats
from detector.checks import one_of
from detector.decide.policy import Budget, Policy, discoveries, level, row_of_numbers, severity, share
from detector.errors import BundleError, DataError, SettingError

__all__ = ["Budget", "Calibrator", "ParetoTail", "Policy", "discoveries", "severity"]

TAILS = ("empirical", "pareto")
MAX_ROWS = 200_000
BLOCK = 65_536
MIN_ROWS_FOR_TAIL = 500
MIN_EXCEEDANCES = 50
TAIL_SHARE = 0.02
SMALLEST_TAIL_P = 1e-12
MAX_SHAPE = 0.9


@dataclass(frozen=True)
class ParetoTail:
    """A generalised Pareto distribution of what lies above a high threshold.

    - ``threshold``: the risk where the tail begins.
    - ``share``: the p-value there.
    - ``scale``, ``shape``: a shape of 0 is the exponential distribution; the larger, the heavier.
    """

    threshold: float
    share: float
    scale: float
    shape: float

    @classmethod
    def fit(cls, ordered: Floats) -> Self | None:
        """Fit the upper 2 % of ordered risks, or the upper 50; None where they are too few or all alike.

        By probability-weighted moments (Hosking and Wallis, Technometrics 1987), which need no search. A tail
        with an end would call every row beyond it impossible, so a shape below 0 is taken as 0.
        """
        n = len(ordered)
        if n < MIN_ROWS_FOR_TAIL:
            return None
        k = max(MIN_EXCEEDANCES, ceil(n * TAIL_SHARE))
        threshold = ordered[n - k - 1]
        excess = ordered[n - k :] - threshold
        mean = float(excess.mean())
        if mean <= 0.0:
            return None
        weighted = float((excess * (k - np.arange(1, k + 1)) / (k - 1)).mean())
        spread = mean - 2.0 * weighted
        shape = min(max(2.0 - mean / spread, 0.0), MAX_SHAPE) if spread > 0.0 else 0.0
        return cls(float(threshold), (1 + k) / (n + 1), mean * (1.0 - shape), shape)

    def survival(self, risk: Floats) -> Floats:
        """The p-value of risks at or above the threshold, never below 1e-12."""
        with np.errstate(over="ignore"):  # so far out that the reach is infinite and the p-value the smallest
            reach = np.maximum(risk - self.threshold, 0.0) / self.scale
        log_left = -reach if self.shape == 0.0 else -np.log1p(self.shape * reach) / self.shape
        return np.maximum(self.share * np.exp(log_left), SMALLEST_TAIL_P)

    def risk_at(self, p_value: float) -> float:
        """The risk that has this p-value; the inverse of ``survival``."""
        log_left = log(p_value / self.share)
        reach = -log_left if self.shape == 0.0 else expm1(-self.shape * log_left) / self.shape
        return self.threshold + self.scale * reach


class Calibrator:
    """Conformal p-values from held-out rows.

    For a new row from the same source as the held-out ones, P(p-value ≤ t) ≤ t for every t, whatever the
    detector and whatever the distribution (Bates, Candès, Lei, Romano and Sesia, Annals of Statistics 2023).

    - ``risk``, (n_rows,): risks of held-out normal rows; higher is more anomalous.
    - ``tail``, {"empirical", "pareto"}: how ``p_value`` counts beyond the riskiest 2 %. The empirical p-value is never
      below 1 / (n + 1). The Pareto one tells rows further out apart (Pickands, Annals of Statistics 1975; Siffer et
      al., KDD 2017), but extrapolates: the guarantee above does not hold for it.
    - ``max_rows``: more rows than this are sampled down; a random sample keeps the guarantee.
    - ``random_state``: seed of that sample.

    Raises ``SettingError`` if ``tail`` is neither of the two, or if ``max_rows`` is below 1; ``ShapeError`` if ``risk``
    is not a plain row of numbers; ``DataError`` if there is no risk, if one is not finite, or if there are too few for
    a Pareto tail.

    >>> calibrator = Calibrator(np.array([0.1, 0.2, 0.3, 0.4]))
    >>> calibrator.p_value(np.array([0.0, 0.3, 9.0]))
    array([1. , 0.6, 0.2])
    """

    def __init__(
        self, risk: ArrayLike, *, tail: str = "empirical", max_rows: int = MAX_ROWS, random_state: int = 0
    ) -> None:
        if max_rows < 1:
            raise SettingError(f"max_rows must be at least 1. Received: max_rows={max_rows}.")
        values = row_of_numbers(risk, "risk")
        if not len(values):
            raise DataError("Calibration needs at least one held-out row, got none. Hold some rows back from fitting.")
        if not np.isfinite(values).all():
            raise DataError(f"Calibration risks must be finite, got {values[~np.isfinite(values)][0]}.")
        if len(values) > max_rows:
            values = np.random.default_rng(random_state).choice(values, max_rows, replace=False)
        self.risk: Floats = np.sort(values)
        self.pareto = ParetoTail.fit(self.risk)
        self.tail = self._known_tail(tail)

    def __repr__(self) -> str:
        return f"Calibrator({self.size:,} rows, tail={self.tail!r})"

    @property
    def size(self) -> int:
        """How many held-out rows are remembered."""
        return len(self.risk)

    @property
    def smallest(self) -> float:
        """The smallest p-value a row can get."""
        return SMALLEST_TAIL_P if self.tail == "pareto" else 1.0 / (self.size + 1)

    def p_value(self, risk: ArrayLike, *, tail: str | None = None) -> Floats:
        """(1 + number of held-out risks ≥ this one) / (n + 1) for each row, in (0, 1].

        A tie counts against the row being anomalous. ``tail`` ("empirical" or "pareto") takes the place of the
        calibrator's own. Raises ``ShapeError`` if ``risk`` is not a plain row of numbers; ``DataError`` if a risk is
        NaN, or if there is no Pareto tail.
        """
        tail = self.tail if tail is None else self._known_tail(tail)
        values = row_of_numbers(risk, "risk")
        if np.isnan(values).any():
            raise DataError(f"{int(np.isnan(values).sum())} risks are NaN. Send such rows to quarantine before.")
        p_value = (1.0 + self.size - _count_below(self.risk, values)) / (1.0 + self.size)
        if tail == "pareto" and self.pareto is not None:
            beyond = values > self.pareto.threshold
            p_value[beyond] = self.pareto.survival(values[beyond])
        return p_value

    def threshold(self, quantile: float) -> float:
        """Return the risk above which, and only above which, the p-value is at most 1 - quantile.

        Infinite where there are too few held-out rows for any row to come so far. Raises ``SettingError`` if
        ``quantile`` is not between 0 and 1.

        >>> Calibrator(np.arange(1.0, 100.0)).threshold(0.95)
        95.0
        """
        limit = level(share("quantile", quantile))
        if self.tail == "pareto" and self.pareto is not None and limit < self.pareto.share:
            return self.pareto.risk_at(limit) if limit >= SMALLEST_TAIL_P else float("inf")
        above = np.arange(self.size + 1)
        allowed = int(((1.0 + above) / (self.size + 1.0) <= limit).sum())
        return float(self.risk[self.size - allowed]) if allowed else float("inf")

    def state(self) -> dict[str, NDArray[Any]]:
        """Everything ``from_state`` needs, as arrays fit for an ``.npz`` without pickle."""
        return {"risk": self.risk, "tail": np.array(self.tail)}

    @classmethod
    def from_state(cls, state: Mapping[str, NDArray[Any]]) -> Self:
        """The inverse of ``state``.

        Raises ``BundleError`` if a part is missing or has no meaning.
        """
        try:
            risk, tail = state["risk"], str(state["tail"])
            return cls(risk, tail=tail, max_rows=max(1, np.size(risk)))
        except (KeyError, ValueError) as error:
            raise BundleError(f"The saved calibration cannot be used: {error}. Train the detector again.") from error

    def _known_tail(self, tail: str) -> str:
        one_of("tail", tail, TAILS)
        if tail == "pareto" and self.pareto is None:
            raise DataError(
                f"A Pareto tail needs {MIN_ROWS_FOR_TAIL} held-out rows whose largest risks differ, "
                f"got {self.size}. Hold more rows back, or use tail='empirical'."
            )
        return tail


def _count_below(ordered: Floats, values: Floats) -> Floats:
    """How many of the ordered numbers are less than each value."""
    counts = np.empty(len(values))
    # Searched in sorted blocks, neighbours in the search are neighbours in the cache: three times as fast.
    for start in range(0, len(values), BLOCK):
        block = values[start : start + BLOCK]
        order = np.argsort(block)
        counts[start + order] = np.searchsorted(ordered, block[order], side="left")
    return counts
