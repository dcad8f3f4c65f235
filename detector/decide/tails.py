"""How p-values go on where no calibration row has been: two tails, fitted and conservative."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, expm1, log
from typing import Self

import numpy as np

from detector.arrays import Floats

MIN_ROWS_FOR_TAIL = 500
MIN_EXCEEDANCES = 50
TAIL_SHARE = 0.02
SMALLEST_TAIL_P = 1e-12
MAX_SHAPE = 0.9
BEYOND_ROWS = 20
"""Largest risks whose mean excess is the unit of distances beyond the largest. Fewer, and one odd row sets it; more,
and it becomes that of the bulk, in which every oddity looks far."""
MOST_TRUST = 100.0
"""By how much a p-value beyond all calibration rows may fall below 1 / (n + 1)."""
BULK = 0.95


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
    def fit(cls, ordered: Floats, *, least: float = 0.0) -> Self | None:
        """Fit the upper 2 % of ordered risks, or the upper 50; None where they are too few or all alike.

        They are alike where they are ``least`` or less above the threshold, in the mean.

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
        if mean <= least:
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


@dataclass(frozen=True)
class Bulk:
    """Risks in units of the bulk: arcsinh((risk - median) / (95 % quantile - median)).

    As good as linear in the bulk and logarithmic far out, so that risks which are logarithms of distances and risks
    which are distances have tails that look alike.
    """

    centre: float
    scale: float

    @classmethod
    def of(cls, ordered: Floats, *, least: float = 0.0) -> Self | None:
        """Of ordered risks; None if the bulk has no width, beyond ``least``."""
        centre, high = float(np.median(ordered)), float(np.quantile(ordered, BULK))
        return cls(centre, high - centre) if high - centre > least else None

    def units(self, risk: Floats) -> Floats:
        """Of each risk."""
        with np.errstate(over="ignore"):  # so far out that the units are infinite
            return np.asarray(np.arcsinh((risk - self.centre) / self.scale))

    def risk_at(self, units: float) -> float:
        """The inverse of ``units``."""
        return float(self.centre + self.scale * np.sinh(units))


@dataclass(frozen=True)
class BeyondLargest:
    """How far beyond the largest calibration risk a risk lies: a generalised Pareto distribution of shape 1.

    Given that a normal row is riskier than all n calibration rows, which has a probability of 1 / (n + 1) whatever the
    distribution, it goes a distance x further with probability 1 / (1 + x / scale), never below 1 / 100. The scale is
    the mean excess of the 20 largest over the next, all in the units of ``Bulk``. So a wrong tail can only divide the
    last 1 / (n + 1) wrongly.

    The shape is not estimated. Twenty exceedances leave it uncertain by .3 and more (Davison and Smith, JRSS B 1990),
    and on 25 sets of normal rows the plain peaks over a threshold (Siffer et al., KDD 2017) put two to four times as
    many of them beyond a tenth of the tail as there should be; a shape of 1, at the upper end of what is plausible, put
    there .7 to 1.0 times as many.

    - ``bulk``: the units.
    - ``largest``, ``scale``: in these.
    """

    bulk: Bulk
    largest: float
    scale: float

    @classmethod
    def fit(cls, ordered: Floats, *, least: float = 0.0) -> Self | None:
        """Fit ordered risks; None where the bulk or the largest are all alike, up to ``least``."""
        bulk, k = Bulk.of(ordered, least=least), min(BEYOND_ROWS, len(ordered) // 4)
        if bulk is None or k < 1 or float((ordered[-k:] - ordered[-k - 1]).mean()) <= least:
            return None
        top = bulk.units(ordered[-k - 1 :])
        scale = float((top[1:] - top[0]).mean())
        return cls(bulk, float(top[-1]), scale) if 0.0 < scale < float("inf") else None

    def survival(self, risk: Floats) -> Floats:
        """For risks above the largest: the probability, given that one lies there, that it lies so far out."""
        reach = np.maximum(self.bulk.units(risk) - self.largest, 0.0) / self.scale
        return np.asarray(np.maximum(1.0 / (1.0 + reach), 1.0 / MOST_TRUST))

    def risk_at(self, left: float) -> float:
        """The risk beyond which this probability is left; the inverse of ``survival``."""
        return self.bulk.risk_at(self.largest + self.scale * (1.0 / left - 1.0))
