"""False discovery rates: the step-up rule, and the share of rows that are normal."""

from __future__ import annotations

import numpy as np

from detector.arrays import Flags, Floats

NORMAL_FROM = 0.5
"""Rows whose p-value is above this are taken for normal. Smaller, and anomalies count as normal and cost findings;
larger, and the share rests on few rows."""


def discoveries(p_value: Floats, fdr: float, *, null_share: float = 1.0) -> Flags:
    """Which p-values pass the step-up rule of Benjamini and Hochberg (JRSS B 1995); none above ``fdr`` does.

    - ``null_share``: the share of rows that are normal, if it is known better than that all may be.

    >>> discoveries(np.array([0.01, 0.04, 0.03, 0.9]), 0.1)
    array([ True,  True,  True, False])
    """
    # Only p-values up to fdr can pass, so only they are sorted.
    small = np.sort(p_value[p_value <= fdr])
    passing = np.flatnonzero(small * (null_share * len(p_value)) <= fdr * np.arange(1, len(small) + 1))
    if not len(passing):
        return np.zeros(len(p_value), dtype=bool)
    return np.asarray(p_value <= small[passing[-1]])


def share_of_normal_rows(p_value: Floats) -> float:
    """At most this share of rows is normal: twice that of p-values above one half (Storey, JRSS B 2002).

    With one row added, as Storey, Taylor and Siegmund do (JRSS B 2004), the step-up rule keeps its promise with it.

    >>> share_of_normal_rows(np.array([0.001, 0.002, 0.003, 0.004, 0.6, 0.7]))
    1.0
    >>> share_of_normal_rows(np.r_[np.full(60, 1e-3), np.linspace(0.025, 1, 40)])
    0.42
    """
    above = int((p_value > NORMAL_FROM).sum())
    return min(1.0, (1.0 + above) / ((1.0 - NORMAL_FROM) * len(p_value))) if len(p_value) else 1.0
