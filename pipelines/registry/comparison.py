"""What a comparison of champion and challenger found: the figures that a promotion is decided on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detector.metrics import ranking


@dataclass(frozen=True)
class Side:
    """One detector on the rows compared.

    - ``risk``, ``p_value`` (n_rows,): what it says of them.
    - ``precision``: average precision against labels, or against injected anomalies.
    - ``recall``: the share of (injected) anomalies among as many of the riskiest rows as people can look at.
    - ``calibration``: distance of the p-values of normal rows from uniform.
    - ``alerts``: rows flagged a day, or among a thousand where there is no time.
    - ``right``: those of them that are known to be anomalous.
    """

    risk: NDArray[np.float64]
    p_value: NDArray[np.float64]
    precision: float
    recall: float
    calibration: float
    alerts: float
    right: float = 0.0

    def metrics(self, name: str) -> dict[str, float]:
        """The figures by name, for a log."""
        return {
            f"ap_{name}": self.precision,
            f"recall_at_budget_{name}": self.recall,
            f"calibration_distance_{name}": self.calibration,
            f"alerts_a_day_{name}": self.alerts,
        }


@dataclass(frozen=True)
class Comparison:
    """What the comparison found.

    - ``basis``: "labels" or "injected anomalies".
    - ``gain``: the challenger's average precision minus the champion's on labels; its recall minus the champion's on
      injected anomalies.
    - ``stability``: Spearman's rank correlation of the two risks; of the unsupervised ones if a head decides for only
      one.
    - ``rows``, ``anomalies``: rows compared on, and (injected) anomalies among those the gain is of.
    - ``days``: what the rows span; 0 where there is no time.
    - ``budget``: the riskiest rows that count for recall.
    - ``noise``: what a calibration distance can be by chance.
    - ``truth`` (n_rows,): what the gain is measured against, one for each value of ``risks``.
    - ``risks``: risks that the gain is measured on: of the rows as they are, or with the injected ones among them.
    """

    champion: Side
    challenger: Side
    basis: str
    gain: ranking.Interval
    stability: float
    rows: int
    anomalies: int
    days: float
    budget: int
    noise: float
    truth: NDArray[np.float64]
    risks: tuple[NDArray[np.float64], NDArray[np.float64]]

    @property
    def figure_of_merit(self) -> str:
        """What the gain is a gain of."""
        return "average precision" if self.basis == "labels" else "recall of injected anomalies"

    @property
    def alert_unit(self) -> str:
        """What alerts are counted in."""
        return "a day" if self.days else "in a thousand rows"

    def metrics(self) -> dict[str, float]:
        """All figures by name, for a log."""
        return {
            **self.champion.metrics("champion"),
            **self.challenger.metrics("challenger"),
            "gain": self.gain.estimate,
            "gain_low": self.gain.low,
            "gain_high": self.gain.high,
            "rank_stability": self.stability,
            "compared_rows": float(self.rows),
            "compared_anomalies": float(self.anomalies),
            "compared_days": self.days,
        }
