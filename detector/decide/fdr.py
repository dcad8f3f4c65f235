"""False discovery rates: the step-up rule, and the share of rows that are normal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from detector.arrays import Flags, Floats

NORMAL_FROM = 0.5
"""Rows whose p-value is above this are taken for normal. Smaller, and anomalies count as normal and cost findings;
larger, and the share rests on few rows."""


@dataclass(frozen=True)
class Totals:
    """What a false discovery rate must know of all rows of a batch, where only the suspicious ones are at hand.

    - ``rows``: how many there are.
    - ``above``: how many of them have a p-value above ``NORMAL_FROM``.
    """

    rows: int
    above: int

    @classmethod
    def of(cls, p_value: Floats) -> Self:
        """Those of rows that are all at hand.

        >>> Totals.of(np.array([0.1, 0.5, 0.9]))
        Totals(rows=3, above=1)
        """
        return cls(len(p_value), int((p_value > NORMAL_FROM).sum()))

    @property
    def share_of_normal_rows(self) -> float:
        """At most this share of rows is normal: twice that of p-values above one half (Storey, JRSS B 2002).

        With one row added, as Storey, Taylor and Siegmund do (JRSS B 2004), the step-up rule keeps its promise with it.

        >>> Totals.of(np.array([0.001, 0.002, 0.003, 0.004, 0.6, 0.7])).share_of_normal_rows
        1.0
        >>> Totals.of(np.r_[np.full(60, 1e-3), np.linspace(0.025, 1, 40)]).share_of_normal_rows
        0.42
        """
        return min(1.0, (1.0 + self.above) / ((1.0 - NORMAL_FROM) * self.rows)) if self.rows else 1.0


def discoveries(p_value: Floats, fdr: float, *, null_share: float = 1.0, rows: int | None = None) -> Flags:
    """Which p-values pass the step-up rule of Benjamini and Hochberg (JRSS B 1995); none above ``fdr`` does.

    - ``null_share``: the share of rows that are normal, if it is known better than that all may be.
    - ``rows``: how many rows there are in all, where p-values above ``fdr`` were left out.

    >>> discoveries(np.array([0.01, 0.04, 0.03, 0.9]), 0.1)
    array([ True,  True,  True, False])
    >>> discoveries(np.array([0.01, 0.04, 0.03]), 0.1, rows=4)
    array([ True,  True,  True])
    """
    # Only p-values up to fdr can pass, so only they are sorted.
    small = np.sort(p_value[p_value <= fdr])
    among = len(p_value) if rows is None else rows
    passing = np.flatnonzero(small * (null_share * among) <= fdr * np.arange(1, len(small) + 1))
    if not len(passing):
        return np.zeros(len(p_value), dtype=bool)
    return np.asarray(p_value <= small[passing[-1]])
