"""How well a risk orders anomalies before normal rows.

Labels are 1 (anomalous), 0 (normal) or missing (unknown). Unknown rows are left out. Every ranking metric
is read off one table of steps: how many anomalies and how many normal rows lie at or above each risk. Rows
of equal risk are one step, so no metric depends on the order of the rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from detector.arrays import Floats
from detector.cleaning.values import read_booleans
from detector.errors import DataError, SchemaError, SettingError, ShapeError


@dataclass(frozen=True)
class Interval:
    """An estimate with its lower and upper bound."""

    estimate: float
    low: float
    high: float


@dataclass(frozen=True)
class RankedCounts:
    """Anomalies and normal rows at or above each distinct risk, highest risk first."""

    risk: Floats
    anomalies: Floats
    normal: Floats

    @property
    def flagged(self) -> Floats:
        """Rows at or above each risk."""
        return self.anomalies + self.normal

    def found(self, rows: float) -> float:
        """Anomalies among the ``rows`` highest risks, rows of equal risk shared out evenly."""
        return float(np.interp(rows, np.append(0.0, self.flagged), np.append(0.0, self.anomalies)))


def has_both_classes(labels: ArrayLike) -> bool:
    """Whether ranking metrics can be computed: at least one known anomaly and one known normal row.

    >>> has_both_classes([1, 0, np.nan]), has_both_classes([0, 0, np.nan])
    (True, False)
    """
    values = read_labels(labels)
    return bool((values == 1).any() and (values == 0).any())


def read_labels(labels: ArrayLike) -> Floats:
    """Labels as floats: 1, 0 or missing.

    Raises ``DataError`` if a label is something else.

    >>> read_labels(["1", "0", None])
    array([ 1.,  0., nan])
    """
    values: Any = pd.Series(labels) if not isinstance(labels, pd.Series) else labels
    try:
        numbers, unread = read_booleans(values)
    except SchemaError as error:
        raise DataError(f"Labels must be 1, 0 or missing. {error}.") from error
    if unread.any():
        found = values[unread].iloc[0]
        if isinstance(found, str):
            raise DataError(f"Labels must be 1, 0 or missing, received {found!r} as well.")
        raise DataError(f"Labels must be 1 (anomalous), 0 (normal) or missing, received {found} as well.")
    return np.asarray(numbers)


def ranking_metrics(labels: ArrayLike, risk: ArrayLike) -> dict[str, float]:
    """How well the risk, higher for more anomalous rows, orders anomalies before normal rows.

    Labels are 1 anomalous, 0 normal, missing unknown. Returned are ``labelled`` and ``anomalies`` (counts),
    ``prevalence``, ``auroc``, and ``ap``, the average precision. Raises ``DataError`` if the known labels are all of
    one class, or a risk is missing; ``ShapeError`` if there are not as many labels as risks.

    >>> ranking_metrics([1, 0, 1, 0], [0.9, 0.8, 0.7, 0.1])["auroc"]
    0.75
    """
    counts = count_ranked(labels, risk)
    anomalies, normal = counts.anomalies[-1], counts.normal[-1]
    recall = np.append(0.0, counts.anomalies) / anomalies
    false_alarms = np.append(0.0, counts.normal) / normal
    return {
        "labelled": float(anomalies + normal),
        "anomalies": float(anomalies),
        "prevalence": float(anomalies / (anomalies + normal)),
        "auroc": float(np.trapezoid(recall, false_alarms)),
        "ap": float(np.sum(np.diff(recall) * counts.anomalies / counts.flagged)),
    }


def average_precision_interval(
    labels: ArrayLike, risk: ArrayLike, *, confidence: float = 0.95, repeats: int = 500, random_state: int = 0
) -> Interval:
    """Average precision with a bootstrap interval that holds a share ``confidence`` of the draws.

    Anomalies and normal rows are sampled separately, each as many as there are. Only the normal rows between two
    anomalies matter to average precision, so a draw costs as much as there are anomalies. Raises ``SettingError`` if
    ``confidence`` is not between 0 and 1.

    >>> average_precision_interval([1, 1, 0, 0], [4, 3, 2, 1])
    Interval(estimate=1.0, low=1.0, high=1.0)
    """
    if not 0 < confidence < 1:
        raise SettingError(f"confidence must lie between 0 and 1, received {confidence}. A usual value is 0.95.")
    counts = count_ranked(labels, risk)
    anomalies_here = np.diff(counts.anomalies, prepend=0.0)
    at = np.flatnonzero(anomalies_here)
    anomalies = anomalies_here[at].astype(np.int64)
    normal_above = np.append(counts.normal[at], counts.normal[-1])
    normal = np.diff(normal_above, prepend=0.0).astype(np.int64)
    random = np.random.default_rng(random_state)
    sampled = random.multinomial(anomalies.sum(), anomalies / anomalies.sum(), size=repeats)
    sampled_normal = random.multinomial(normal.sum(), normal / normal.sum(), size=repeats)[:, :-1]
    found = sampled.cumsum(axis=1)
    flagged = found + sampled_normal.cumsum(axis=1)
    precision = np.divide(found, flagged, out=np.zeros(found.shape), where=flagged > 0)
    values = (precision * sampled).sum(axis=1) / anomalies.sum()
    low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(ranking_metrics(labels, risk)["ap"], float(low), float(high))


def pr_curve(labels: ArrayLike, risk: ArrayLike) -> pd.DataFrame:
    """Precision and recall at every threshold on the risk, highest threshold first.

    >>> pr_curve([1, 0, 1], [3, 2, 1]).round(2).values.tolist()
    [[3.0, 1.0, 0.5], [2.0, 0.5, 0.5], [1.0, 0.67, 1.0]]
    """
    counts = count_ranked(labels, risk)
    return pd.DataFrame(
        {
            "threshold": counts.risk,
            "precision": counts.anomalies / counts.flagged,
            "recall": counts.anomalies / counts.anomalies[-1],
        }
    )


def member_correlation(scores: pd.DataFrame) -> pd.DataFrame:
    """Spearman's rank correlation between the members' scores, one column per member.

    Near 1 the members see the same thing; near 0 each adds its own. A member whose scores do not vary correlates with
    nothing: missing, also on the diagonal. Raises ``DataError`` if there are fewer than two rows.

    >>> member_correlation(pd.DataFrame({"a": [1, 2, 3], "b": [1, 20, 300]})).loc["a", "b"].item()
    1.0
    """
    if len(scores) < 2:
        raise DataError(f"member_correlation needs at least two rows, received {len(scores)}. Score more rows.")
    ranks = scores.rank()
    return ranks.corr().clip(-1.0, 1.0)


def count_ranked(labels: ArrayLike, risk: ArrayLike) -> RankedCounts:
    """The steps of all rows whose label is known."""
    truth, values = read_labels(labels), np.asarray(risk, dtype=np.float64)
    check_lengths(truth, values, "risks")
    known = ~np.isnan(truth)
    truth, values = truth[known], values[known]
    check_classes(truth)
    if np.isnan(values).any():
        raise DataError(f"{int(np.isnan(values).sum())} labelled rows have no risk. Leave quarantined rows out first.")
    order = np.argsort(-values, kind="stable")
    truth, values = truth[order], values[order]
    last = np.flatnonzero(np.append(values[1:] != values[:-1], True))
    anomalies = truth.cumsum()[last]
    return RankedCounts(values[last], anomalies, last + 1.0 - anomalies)


def check_lengths(labels: Floats, other: NDArray[Any], name: str) -> None:
    """Refuse labels and other values of different numbers of rows."""
    if labels.shape != other.shape:
        raise ShapeError(f"Expected one label per row, received {labels.shape} labels and {other.shape} {name}.")


def check_classes(truth: Floats) -> None:
    """Refuse known labels that are all of one class."""
    anomalies = int((truth == 1).sum())
    if anomalies in (0, len(truth)):
        raise DataError(
            f"Ranking needs known anomalies and known normal rows, received {anomalies} anomalies and "
            f"{len(truth) - anomalies} normal rows. Check the label column, or measure without labels."
        )
