"""Figures of merit of a detector on rows it has not seen, with or without labels."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from detector.decide.policy import Policy
from detector.detectors.table.scorer import UNSUPERVISED
from detector.explain.reason import Reason
from detector.metrics import ranking as evaluate
from detector.metrics.budget import budget_metrics, decision_metrics

DEFAULT_BUDGET_SHARE = 0.01
MOST_SHOWN = 100


@dataclass(frozen=True)
class Review:
    """A detector scored on rows it has not seen.

    - ``scored``: as ``TabularScorer.score`` gives them, with ``truth`` where labels are known.
    - ``metrics``: figures of merit without labels: calibration, members' rank correlation, share flagged.
    - ``truth``: figures of merit against labels; None if the rows hold none of both classes.
    - ``interval``: average precision with its bootstrap interval.
    - ``alerts``: the riskiest flagged rows, at most 100.
    """

    scored: pd.DataFrame
    metrics: dict[str, float]
    truth: dict[str, float] | None
    interval: evaluate.Interval | None
    alerts: pd.DataFrame
    reasons: list[list[Reason]] = field(default_factory=list)

    @property
    def all_metrics(self) -> dict[str, float]:
        """Both kinds in one mapping."""
        return self.metrics | (self.truth or {})


def labels_of(rows: pd.DataFrame, label: str | None) -> NDArray[np.float64]:
    """The known truth of each row: 1, 0, or NaN where it is unknown."""
    if label is None or label not in rows:
        return np.full(len(rows), np.nan)
    return evaluate.read_labels(rows[label])


def against_labels(
    labels: NDArray[np.float64],
    measures: pd.DataFrame,
    flagged: NDArray[np.bool_],
    policy: Policy,
    *,
    members_flagged: NDArray[np.bool_] | None = None,
) -> dict[str, float]:
    """Figures of merit of the risk, the decisions and each member.

    ``members_flagged`` are the decisions of the members alone, where a head decides; theirs end in ``_members``.
    """
    found = evaluate.ranking_metrics(labels, measures["risk"])
    found |= budget_metrics(labels, measures["risk"], budget_of(policy, len(labels)))
    found |= decision_metrics(labels, flagged)
    same = [UNSUPERVISED] if UNSUPERVISED in measures and measures[UNSUPERVISED].equals(measures["risk"]) else []
    for name in measures.columns.drop(["risk", "p_value", *same]):
        member = evaluate.ranking_metrics(labels, measures[name])
        found |= {f"auroc_{name}": member["auroc"], f"ap_{name}": member["ap"]}
    if members_flagged is not None:
        alone = budget_metrics(labels, measures[UNSUPERVISED], budget_of(policy, len(labels)))
        alone |= decision_metrics(labels, members_flagged)
        names = ("flagged", "precision", "recall", "precision_at_budget", "recall_at_budget")
        found |= {f"{name}_members": alone[name] for name in names}
    return found


def budget_of(policy: Policy, rows: int) -> int:
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
