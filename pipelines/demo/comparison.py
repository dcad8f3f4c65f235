"""The same rows decided twice: by the members alone, and by the head that learnt from chargebacks."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from rich import box
from rich.table import Table

from detector.decide.policy import Policy
from detector.detectors.table.model import UNSUPERVISED
from detector.detectors.table.scorer import TabularScorer
from detector.metrics import ranking
from detector.metrics.budget import budget_metrics, decision_metrics

ALONE, TAUGHT = "members alone", "with chargebacks"
RISKIEST = 100


def decided_both_ways(scores: pd.DataFrame, scorer: TabularScorer, policy: Policy) -> dict[str, pd.DataFrame]:
    """Rows with ``risk`` and ``flagged`` as the members alone decide, and as the head does if it decides.

    ``scores`` are those the detector has written, with the time of each row.
    """
    members = scorer.calibrator
    risk = scores[UNSUPERVISED].to_numpy(dtype=np.float64)
    flagged = policy.decide(
        members.p_value(risk), risk, day=scores[str(scorer.schema.time)].to_numpy(), support=members.support
    )
    found = {ALONE: scores.assign(risk=risk, flagged=flagged)}
    return found | ({TAUGHT: scores} if scorer.serving_head is not None else {})


def side_by_side(decided: Mapping[str, pd.DataFrame], *, label: str, scenario: str) -> Table:
    """What each way found: a column a way, 80 characters wide at most.

    ``label`` and ``scenario`` are columns of the rows: 1 for fraud, and what kind of it.
    """
    truth = next(iter(decided.values()))[label]
    frauds = int(truth.sum())
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column(f"{len(truth):,} rows, {frauds:,} of them fraud", no_wrap=True)
    lines: dict[str, list[str]] = {}
    for name, rows in decided.items():
        table.add_column(name, no_wrap=True, justify="right")
        for what, value in _numbers(rows, label).items():
            lines.setdefault(what, []).append(value)
        for kind, found in rows[rows[label] == 1].groupby(scenario)["flagged"]:
            said = f"  flagged of {str(kind).replace('_', ' ')}"
            lines.setdefault(said, []).append(f"{int(found.sum())} of {len(found)}")
    for what, values in lines.items():
        table.add_row(what, *values)
    return table


def _numbers(rows: pd.DataFrame, label: str) -> dict[str, str]:
    truth, flagged = rows[label], rows["flagged"]
    ranked = ranking.ranking_metrics(truth, rows["risk"])
    decided = decision_metrics(truth, flagged)
    first = budget_metrics(truth, rows["risk"], RISKIEST)
    return {
        "flagged": f"{int(flagged.sum()):,}",
        "  of these fraud": f"{int(truth[flagged].sum()):,}",
        "precision of the flags": f"{decided['precision']:.2f}",
        "share of the frauds flagged": f"{decided['recall']:.2f}",
        f"fraud among the {RISKIEST} riskiest": f"{first['precision_at_budget'] * first['budget']:.0f}",
        f"average precision (blind: {ranked['prevalence']:.3f})": f"{ranked['ap']:.3f}",
    }
