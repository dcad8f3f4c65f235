"""How good a detector is on rows it has not seen: figures of merit, with or without labels, and pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from detector.decide.policy import Policy
from detector.detectors.table.scorer import UNSUPERVISED, TabularScorer
from detector.explain.reason import Reason, in_words
from detector.metrics import ranking as evaluate
from detector.metrics.budget import budget_metrics, decision_metrics
from detector.metrics.calibration import calibration_metrics

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DEFAULT_BUDGET_SHARE = 0.01
MOST_SHOWN = 100
MOST_DRAWN = 20_000


@dataclass(frozen=True)
class Review:
    """A detector judged on rows it has not seen.

    Parameters
    ----------
    verdicts : DataFrame
        As ``TabularScorer.verdicts``, with ``truth`` where labels are known.
    metrics : dict
        Figures of merit without labels: calibration, members' rank correlation, share flagged.
    truth : dict or None
        Figures of merit against labels; None if the rows hold none of both classes.
    interval : Interval or None
        Average precision with its bootstrap interval.
    alerts : DataFrame
        The riskiest flagged rows, at most 100.
    reasons : list of list of Reason
        Theirs.
    """

    verdicts: pd.DataFrame
    metrics: dict[str, float]
    truth: dict[str, float] | None
    interval: evaluate.Interval | None
    alerts: pd.DataFrame
    reasons: list[list[Reason]] = field(default_factory=list)

    @property
    def all_metrics(self) -> dict[str, float]:
        """Both kinds in one mapping."""
        return self.metrics | (self.truth or {})


def review(scorer: TabularScorer, rows: pd.DataFrame, *, policy: Policy) -> Review:
    """Judge cleaned rows that took no part in fitting.

    Parameters
    ----------
    scorer : TabularScorer
        The detector.
    rows : DataFrame
        As ``clean`` returns them; at least one.
    policy : Policy
        Which rows to flag.
    """
    verdicts = scorer.score(rows, policy, explains=False)
    measures = verdicts[["risk", "p_value", *scorer.members, UNSUPERVISED]]
    flagged = verdicts["flagged"].to_numpy(dtype=bool)
    labels = labels_of(rows, scorer.schema.label)
    normal = measures["p_value"][(labels != 1)]
    metrics = {"flagged_share": float(flagged.mean()), "review_rows": float(len(rows))}
    if len(normal):
        metrics |= calibration_metrics(normal)
    if len(rows) > 1 and len(scorer.members) > 1:
        metrics |= correlations(measures[list(scorer.members)])
    truth = interval = None
    if evaluate.has_both_classes(labels):
        truth = against_labels(labels, measures, flagged, policy)
        interval = evaluate.average_precision_interval(labels, measures["risk"])
        verdicts["truth"] = labels
    alerts = verdicts[flagged].nlargest(MOST_SHOWN, "risk")
    reasons = scorer.explain(rows.loc[alerts.index])
    alerts = alerts.assign(reasons=[in_words(each) for each in reasons])
    return Review(verdicts, metrics, truth, interval, alerts, reasons)


def figures(
    scorer: TabularScorer,
    rows: pd.DataFrame,
    reviewed: Review,
    *,
    policy: Policy,
    history: Mapping[str, Sequence[float]] | None = None,
) -> dict[str, Figure]:
    """The pictures of a review, by the names the report knows; at most 20,000 rows are drawn."""
    from pipelines.reports import figures as draw

    sample = rows.iloc[:: max(1, len(rows) // MOST_DRAWN)]
    verdicts = reviewed.verdicts.loc[sample.index]
    labels = verdicts["truth"].to_numpy() if "truth" in verdicts else None
    threshold = float(reviewed.alerts["risk"].min()) if len(reviewed.alerts) else None
    normal = verdicts["p_value"] if labels is None else verdicts["p_value"][labels != 1]
    drawn: dict[str, Figure] = {}
    if history and history.get("loss"):
        drawn["loss"] = draw.loss_curves(history)
    drawn["risk"] = draw.risk_histogram(verdicts["risk"], labels=labels, threshold=threshold)
    if labels is not None and evaluate.has_both_classes(labels):
        drawn["precision_recall"] = draw.precision_recall(
            labels, verdicts["risk"], budget=_budget(policy, len(verdicts))
        )
    if "autoencoder" in scorer.members and len(sample) > 1:
        unusual = labels == 1 if labels is not None else verdicts["flagged"].to_numpy()
        drawn["feature_error"] = draw.feature_error(scorer.feature_errors(sample), unusual=unusual)
        drawn["code"] = draw.code_map(scorer.encode(sample), risk=verdicts["risk"], labels=labels)
    chosen = reviewed.verdicts["p_value"][reviewed.verdicts["flagged"]].max() if len(reviewed.alerts) else None
    drawn["alert_rate"] = draw.alert_rate(reviewed.verdicts["p_value"], chosen=chosen)
    if len(normal):
        drawn["calibration"] = draw.calibration(normal)
    if len(scorer.members) > 1 and len(sample) > 1:
        drawn["members"] = draw.member_correlation(verdicts[list(scorer.members)])
    return drawn


def labels_of(rows: pd.DataFrame, label: str | None) -> NDArray[np.float64]:
    """The known truth of each row: 1, 0, or NaN where it is unknown."""
    if label is None or label not in rows:
        return np.full(len(rows), np.nan)
    return evaluate.read_labels(rows[label])


def against_labels(
    labels: NDArray[np.float64], measures: pd.DataFrame, flagged: NDArray[np.bool_], policy: Policy
) -> dict[str, float]:
    """Figures of merit of the risk, the decisions and each member."""
    found = evaluate.ranking_metrics(labels, measures["risk"])
    found |= budget_metrics(labels, measures["risk"], _budget(policy, len(labels)))
    found |= decision_metrics(labels, flagged)
    same = [UNSUPERVISED] if UNSUPERVISED in measures and measures[UNSUPERVISED].equals(measures["risk"]) else []
    for name in measures.columns.drop(["risk", "p_value", *same]):
        member = evaluate.ranking_metrics(labels, measures[name])
        found |= {f"auroc_{name}": member["auroc"], f"ap_{name}": member["ap"]}
    return found


def _budget(policy: Policy, rows: int) -> int:
    """The rows people can look at: as the policy says, else one in a hundred."""
    if policy.budget is not None:
        return policy.budget.rows
    return max(1, round(DEFAULT_BUDGET_SHARE * rows))


def correlations(scores: pd.DataFrame) -> dict[str, float]:
    """Rank correlation of each pair of members."""
    matrix: Any = evaluate.member_correlation(scores)
    names = list(matrix.columns)
    pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
    return {f"rank_correlation_{a}_{b}": float(matrix.loc[a, b]) for a, b in pairs if np.isfinite(matrix.loc[a, b])}
