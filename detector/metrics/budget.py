"""How right the flagged rows are: those of a budget, and those that a policy chose."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from detector.errors import SettingError
from detector.metrics.ranking import check_classes, check_lengths, count_ranked, read_labels


def budget_metrics(labels: ArrayLike, risk: ArrayLike, budget: int) -> dict[str, float]:
    """What an analyst finds who looks at the ``budget`` labelled rows of highest risk.

    Rows of equal risk at the edge count with the share that fits, which is the mean over all orders. Returned are
    ``budget`` (at most the number of labelled rows), ``precision_at_budget``, ``recall_at_budget``, and
    ``lift_at_budget``: how many times more anomalies than in as many rows picked blindly. Raises ``SettingError`` if
    ``budget`` is not a positive number.

    >>> budget_metrics([1, 0, 1, 0], [0.9, 0.8, 0.7, 0.1], 1)["recall_at_budget"]
    0.5
    """
    if budget < 1:
        raise SettingError(f"budget must be a positive number of rows, received {budget}.")
    counts = count_ranked(labels, risk)
    total = counts.flagged[-1]
    rows = min(float(budget), float(total))
    found = counts.found(rows)
    precision = found / rows
    return {
        "budget": rows,
        "precision_at_budget": precision,
        "recall_at_budget": float(found / counts.anomalies[-1]),
        "lift_at_budget": float(precision / (counts.anomalies[-1] / total)),
    }


def decision_metrics(labels: ArrayLike, flagged: ArrayLike) -> dict[str, float]:
    """How right the flags were, over the rows whose label is known.

    Returned are ``flagged`` (count of labelled rows flagged), ``precision`` (0 if none was flagged), ``recall``, ``f1``
    and ``false_alarm_rate``, the share of normal rows flagged. Raises ``DataError`` if the known labels are all of one
    class.

    >>> decision_metrics([1, 1, 0, 0], [True, False, False, False])["precision"]
    1.0
    """
    truth = read_labels(labels)
    decided = np.asarray(flagged, dtype=bool)
    check_lengths(truth, decided, "flags")
    known = ~np.isnan(truth)
    truth, decided = truth[known], decided[known]
    check_classes(truth)
    hits = float(np.sum(decided & (truth == 1)))
    flags, anomalies = float(decided.sum()), float((truth == 1).sum())
    return {
        "flagged": flags,
        "precision": hits / flags if flags else 0.0,
        "recall": hits / anomalies,
        "f1": 2 * hits / (flags + anomalies),
        "false_alarm_rate": (flags - hits) / float((truth == 0).sum()),
    }
