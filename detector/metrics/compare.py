"""Two detectors on the same rows: whether one is better, and whether the difference could be chance.

All is paired: both are evaluated on the same draw of rows, so that what makes a row hard for both cancels out.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from detector.arrays import Floats
from detector.errors import DataError, ShapeError
from detector.metrics.ranking import Interval, has_both_classes, ranking_metrics, read_labels

REPEATS = 500


def precision_difference(
    labels: ArrayLike,
    champion: ArrayLike,
    challenger: ArrayLike,
    *,
    confidence: float = 0.95,
    repeats: int = REPEATS,
    random_state: int = 0,
) -> Interval:
    """How much more average precision the challenger has, with a paired bootstrap interval.

    Anomalies and normal rows are sampled apart, each as many as there are (Efron and Tibshirani, An Introduction to
    the Bootstrap, 1993, section 8). Rows of equal risk are one step, as in ``detector.metrics.ranking``. Labels are 1
    anomalous, 0 normal, missing unknown; the risks are those of the same rows; ``confidence`` is the share of draws
    inside the interval. Raises ``DataError`` if the known labels are all of one class; ``ShapeError`` if the three are
    not of one length.

    >>> precision_difference([1, 1, 0, 0], [4, 1, 3, 2], [4, 3, 2, 1])
    Interval(estimate=0.25, low=0.0, high=0.5)
    """
    truth = read_labels(labels)
    first, second = np.asarray(champion, dtype=np.float64), np.asarray(challenger, dtype=np.float64)
    if not truth.shape == first.shape == second.shape:
        raise ShapeError(f"Expected one risk of each a label, received {truth.shape}, {first.shape}, {second.shape}.")
    if not has_both_classes(truth):
        raise DataError("A comparison needs known anomalies and known normal rows. Compare without labels instead.")
    estimate = ranking_metrics(truth, second)["ap"] - ranking_metrics(truth, first)["ap"]
    known = ~np.isnan(truth)
    truth, first, second = truth[known], first[known], second[known]
    anomalies, normal = np.flatnonzero(truth == 1), np.flatnonzero(truth == 0)
    before, after = _weighted_precision(truth, first), _weighted_precision(truth, second)
    random = np.random.default_rng(random_state)
    differences = np.empty(repeats)
    weights = np.zeros(len(truth))
    for repeat in range(repeats):
        for group in (anomalies, normal):
            weights[group] = np.bincount(random.integers(0, len(group), len(group)), minlength=len(group))
        differences[repeat] = after(weights) - before(weights)
    low, high = np.quantile(differences, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(estimate), float(low), float(high))


def recall_difference(
    champion: ArrayLike,
    challenger: ArrayLike,
    *,
    confidence: float = 0.95,
    repeats: int = REPEATS,
    random_state: int = 0,
) -> Interval:
    """How much larger a share of known anomalies the challenger catches, with a paired bootstrap interval.

    Given is whether each caught each anomaly; the rest is as for ``precision_difference``. Raises ``DataError`` if
    there is no anomaly; ``ShapeError`` if the two are not of one length.

    >>> recall_difference([True, False], [True, True], repeats=10).estimate
    0.5
    """
    first, second = np.asarray(champion, dtype=bool), np.asarray(challenger, dtype=bool)
    if first.shape != second.shape:
        raise ShapeError(f"Expected the same anomalies for both, received {first.shape} and {second.shape}.")
    if not len(first):
        raise DataError("A recall needs at least one anomaly, received none. Inject some.")
    gained, lost = float((second & ~first).mean()), float((first & ~second).mean())
    random = np.random.default_rng(random_state)
    sampled = random.multinomial(len(first), [gained, lost, max(0.0, 1.0 - gained - lost)], size=repeats) / len(first)
    low, high = np.quantile(sampled[:, 0] - sampled[:, 1], [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(gained - lost, float(low), float(high))


def rank_stability(champion: ArrayLike, challenger: ArrayLike) -> float:
    """Spearman's rank correlation of two risks of the same rows; 0 where one of them does not vary.

    Near 1 the people who get the alerts will notice no change; near 0 it is another detector.

    >>> round(rank_stability([1, 2, 3], [10, 20, 15]), 2)
    0.5
    """
    first, second = (_ranks(np.asarray(risk, dtype=np.float64)) for risk in (champion, challenger))
    if first.shape != second.shape:
        raise ShapeError(f"Expected the same rows for both, received {first.shape} and {second.shape}.")
    if not len(first) or first.std() == 0.0 or second.std() == 0.0:
        return 0.0
    return float(np.corrcoef(first, second)[0, 1])


def _ranks(values: Floats) -> Floats:
    """Ranks from 0; equal values share their mean rank."""
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    below = np.cumsum(count) - count
    return np.asarray((below + (count - 1) / 2.0)[place], dtype=np.float64)


def _weighted_precision(truth: Floats, risk: Floats) -> Callable[[Floats], float]:
    """Average precision as a function of how often each row was sampled; sorted once for all draws."""
    order = np.argsort(-risk, kind="stable")
    ordered, anomalous = risk[order], truth[order] == 1
    ends = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))

    def precision(weights: Floats) -> float:
        sampled = weights[order]
        found, flagged = np.cumsum(sampled * anomalous)[ends], np.cumsum(sampled)[ends]
        gained = np.diff(found, prepend=0.0)
        at = gained > 0
        return float((gained[at] * found[at] / flagged[at]).sum() / found[-1])

    return precision
