"""What a false discovery rate rests on: how many calibration rows, how clean; and what is done where it cannot."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import numpy as np

from detector.arrays import Flags, Floats
from detector.decide.fdr import Totals, discoveries

FALLBACK_SHARE = 0.01
"""The share of normal rows that a fallback flags where there are too few calibration rows for a rate."""
MOSTLY_LEARNT = 0.5
TWICE, MOST_FDR = 2.0, 0.99
"""By how much a rate that flags nothing is raised, and to what at most. Of normal rows alone, a rate of 10 % flags
something in one batch of ten, twice the rate in two."""


@dataclass(frozen=True)
class Support:
    """What is known of the rows a calibration rests on.

    - ``rows``: how many.
    - ``smallest``: the least p-value.
    - ``trimmed``: how many more there were, a group apart from all others, that were taken out as anomalies.
    - ``stands_out``: the risk above which a smaller group lies apart, which was not.
    """

    rows: int
    smallest: float
    trimmed: int = 0
    stands_out: float = float("inf")

    @property
    def least_fdr(self) -> float:
        """The least false discovery rate that can be asked for at all: 1 / (rows + 1)."""
        return 1.0 / (self.rows + 1)

    def rows_needed(self, fdr: float) -> int:
        """Calibration rows without which a rate can flag nothing.

        >>> Support(rows=5, smallest=1 / 6).rows_needed(0.1)
        9
        """
        return ceil(1 / fdr - 1e-9) - 1

    def why_not(self, fdr: float, *, learnt: float = 0.0) -> str | None:
        """Why a false discovery rate cannot be promised, in a sentence; None if it can.

        - ``learnt``: share of the rows to be decided on that the detector learnt from.

        >>> print(Support(rows=5, smallest=1 / 6).why_not(0.1))
        5 calibration rows cannot support a false discovery rate of 10 %, the least is 17 %: it takes at least 9.
        """
        rate = f"a false discovery rate of {fdr * 100:.10g} %"
        if self.least_fdr > fdr:
            least = f"the least is {100 * self.least_fdr:.2g} %"
            return (
                f"{self.rows:,} calibration rows cannot support {rate}, {least}: it takes at least "
                f"{self.rows_needed(fdr):,}."
            )
        if self.trimmed:
            return (
                f"Among the training rows {self.trimmed:,} lie apart from all others and count as anomalies; {rate} "
                f"holds only if they are. Label them, or leave them out of training."
            )
        if learnt > MOSTLY_LEARNT:
            return (
                f"{100 * learnt:.0f} % of the rows were learnt from, and anomalies among them are part of what is "
                f"normal; {rate} cannot be promised for them. Train on rows known to be normal, or flag by a budget or "
                f"a quantile."
            )
        return None

    def facts(self) -> dict[str, float]:
        """The diagnosis in numbers, for a bundle's metrics and MLflow."""
        return {
            "calibration_trimmed": self.trimmed,
            "calibration_least_fdr": self.least_fdr,
            "calibration_least_p_value": self.smallest,
            "calibration_stands_out": int(np.isfinite(self.stands_out)),
            "calibration_promises": int(self.trimmed == 0),
        }

    def fallback(self, p_value: Floats, risk: Floats, fdr: float, *, totals: Totals | None = None) -> tuple[Flags, str]:
        """The rows to flag where a rate flags none, and which they are in words: the most blatant, or nothing.

        Where there are too few calibration rows for the rate: those riskier than 99 % of them, or than all. Else those
        that twice the rate flags. If there are none, and a small group of calibration rows lies apart: those as far out
        as it.

        - ``totals``: those of the whole batch, where rows that are no ``candidates`` were left out.

        >>> Support(rows=5, smallest=1 / 6).fallback(np.array([1 / 6, 0.5]), np.array([9.0, 1.0]), 0.1)
        (array([ True, False]), 'rows riskier than all 5 calibration rows')
        """
        if self.least_fdr > fdr:
            if self.least_fdr > FALLBACK_SHARE:
                return p_value <= self.least_fdr, f"rows riskier than all {self.rows:,} calibration rows"
            return (
                p_value <= FALLBACK_SHARE,
                f"rows riskier than {100 * (1 - FALLBACK_SHARE):.0f} % of the calibration rows",
            )
        twice = min(TWICE * fdr, MOST_FDR)
        totals = totals or Totals.of(p_value)
        passed = discoveries(p_value, twice, null_share=totals.share_of_normal_rows, rows=totals.rows)
        if passed.any():
            return passed, f"rows that a rate of {twice * 100:.10g} % flags"
        return risk > self.stands_out, "rows as far from all others as a small group of training rows"

    def candidates(self, p_value: Floats, risk: Floats, fdr: float) -> Flags:
        """Rows of one part of a batch that a rate or its fallback may flag once it sees the whole batch; no others.

        >>> Support(rows=99, smallest=1 / 100).candidates(np.array([0.15, 0.5]), np.array([2.0, 1.0]), 0.1)
        array([ True, False])
        """
        if self.least_fdr > fdr:
            return self.fallback(p_value, risk, fdr)[0] | (p_value <= fdr)
        return (p_value <= min(TWICE * fdr, MOST_FDR)) | (risk > self.stands_out)
