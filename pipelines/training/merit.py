"""Figures of merit of a detector on rows it has not seen, with or without labels."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from detector.decide.policy import Policy
from detector.detectors.table.model import UNSUPERVISED
from detector.explain.reason import Reason
from detector.metrics import ranking
from detector.metrics.budget import budget_metrics, decision_metrics
from pipelines.config import Config
from pipelines.reports.content import Alternative

DEFAULT_BUDGET_SHARE = 0.01
MOST_SHOWN = 100
THRESHOLDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02)


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
    interval: ranking.Interval | None
    alerts: pd.DataFrame
    reasons: list[list[Reason]] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """For programs: the figures, and the interval of average precision."""
        return {**self.all_metrics, "ap_interval": self.interval}

    @property
    def all_metrics(self) -> dict[str, float]:
        """Both kinds in one mapping."""
        return self.metrics | (self.truth or {})


def alternatives(scored: pd.DataFrame) -> list[Alternative]:
    """What other thresholds on the p-value would flag of scored rows, the strictest first, and the one that was chosen.

    - ``scored``: with ``p_value`` and ``flagged``, and ``truth`` where labels are known.

    >>> scored = pd.DataFrame({"p_value": [0.0008, 0.3, 0.015], "flagged": [True, False, False], "truth": [1.0, 0, 1]})
    >>> [(each.threshold, each.flagged, each.found) for each in alternatives(scored)][-2:]
    [(0.01, 1, 0.5), (0.02, 2, 1.0)]
    """
    p_value, flagged = scored["p_value"].to_numpy(dtype=np.float64), scored["flagged"].to_numpy(dtype=bool)
    truth = scored["truth"].to_numpy(dtype=np.float64) if "truth" in scored else np.full(len(scored), np.nan)
    chosen = float(p_value[flagged].max()) if flagged.any() else None
    found = []
    for threshold in sorted({*THRESHOLDS, *(() if chosen is None else (chosen,))}):
        marks = flagged if threshold == chosen else p_value <= threshold
        known, anomalous = marks & ~np.isnan(truth), truth == 1
        right = float((truth[known] == 1).mean()) if known.any() else None
        caught = float(marks[anomalous].mean()) if anomalous.any() else None
        found.append(Alternative(threshold, int(marks.sum()), right, caught, chosen=threshold == chosen))
    return found


def explain_command(config: Config, input: str = "") -> str:  # noqa: A002 - the option's name
    """The command that explains a row by its key, which is to be added; none where rows have no key."""
    if config.kind != "table" or config.columns.key is None:
        return ""
    place = [] if config.file is None else [shlex.quote(str(config.file.parent))]
    return " ".join(["detector explain", *([f"--input {shlex.quote(input)}"] if input else []), *place])


def labels_of(rows: pd.DataFrame, label: str | None) -> NDArray[np.float64]:
    """The known truth of each row: 1, 0, or NaN where it is unknown."""
    if label is None or label not in rows:
        return np.full(len(rows), np.nan)
    return ranking.read_labels(rows[label])


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
    found = ranking.ranking_metrics(labels, measures["risk"])
    found |= budget_metrics(labels, measures["risk"], budget_of(policy, len(labels)))
    found |= decision_metrics(labels, flagged)
    same = [UNSUPERVISED] if UNSUPERVISED in measures and measures[UNSUPERVISED].equals(measures["risk"]) else []
    for name in measures.columns.drop(["risk", "p_value", *same]):
        member = ranking.ranking_metrics(labels, measures[name])
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
    matrix: Any = ranking.member_correlation(scores)
    names = list(matrix.columns)
    pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
    return {f"rank_correlation_{a}_{b}": float(matrix.loc[a, b]) for a, b in pairs if np.isfinite(matrix.loc[a, b])}
