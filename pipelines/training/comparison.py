"""Champion and challenger on the same recent rows that neither learnt from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from detector.cleaning.clean import clean
from detector.decide.policy import Policy
from detector.detectors.table.scorer import UNSUPERVISED, TabularScorer
from detector.errors import DataError
from detector.metrics import compare
from detector.metrics import ranking as evaluate
from detector.metrics.budget import budget_metrics
from detector.metrics.calibration import calibration_metrics
from detector.metrics.inject import inject
from detector.persist.bundle import Scorer
from pipelines.factory.data import Window
from pipelines.registry.comparison import Comparison, Side

BUDGET_SHARE = 0.01
INJECTED_SHARE, FEWEST_INJECTED, MOST_INJECTED_SHARE = 0.02, 200, 0.1
MOST_LABELLED = 50_000
MOST_WITHOUT_STEP = 0.2
# A Kolmogorov-Smirnov distance that chance passes once in a hundred, times the square root of the rows.
KS_CHANCE = 1.63


def compare_on(
    window: Window,
    champion: Scorer,
    challenger: Scorer,
    *,
    policy: Policy,
    least_anomalies: int,
    confidence: float,
    random_state: int,
) -> Comparison:
    """Judge both on the window's recent rows.

    Parameters
    ----------
    window : Window
        Whose ``compare`` neither has learnt from.
    champion, challenger : Scorer
    policy : Policy
        Which rows are flagged; its budget says how many people can look at.
    least_anomalies : int
        Known anomalies needed to compare by labels.
    confidence, random_state
        Of the paired bootstrap.

    Raises
    ------
    DataError
        If the champion can read none of the rows, or a detector gives a risk that is no number.
    """
    rows = window.compare
    theirs = clean(window.raw.loc[rows.index], champion.schema, positions=rows.index).rows
    theirs = _judgeable(champion, theirs)
    both = _judgeable(challenger, rows).index.intersection(theirs.index, sort=False)
    if len(both) < 2:
        raise DataError("The champion can read none of the recent rows: their columns changed. Promote by hand.")
    labels = pd.Series(window.labels, index=rows.index).loc[both].to_numpy()
    rows, theirs = rows.loc[both], theirs.loc[both]
    days = window.compare_days
    if policy.budget is not None:
        budget = max(1, round(policy.budget.rows * (max(days, 1.0) if policy.budget.per == "day" else 1.0)))
    else:
        budget = max(1, round(BUDGET_SHARE * len(rows)))
    budget = min(budget, max(1, len(rows) // 10))
    scores = [_scored(scorer, part, policy) for scorer, part in ((champion, theirs), (challenger, rows))]
    labelled = int((labels == 1).sum()) >= least_anomalies and evaluate.has_both_classes(labels)
    if labelled:
        truth, judged = labels, (scores[0]["risk"].to_numpy(), scores[1]["risk"].to_numpy())
        gain = compare.precision_difference(
            *_bounded(truth, judged, random_state), confidence=confidence, random_state=random_state
        )
        recalls = [budget_metrics(truth, risk, budget)["recall_at_budget"] for risk in judged]
    else:
        share = max(INJECTED_SHARE, min(MOST_INJECTED_SHARE, FEWEST_INJECTED / len(rows)))
        spoilt, mark = inject(rows, window.schema, share=share, random_state=random_state)
        truth = mark.astype(np.float64)
        changed = spoilt[[name for name in spoilt.columns if name in theirs.columns]]
        other = theirs.assign(**{name: changed[name] for name in changed.columns})
        judged = (_risk(champion, other), _risk(challenger, spoilt))
        # Real anomalies are among the riskiest too, so the injected ones get as much room again.
        budget += int(mark.sum())
        caught = [_riskiest(risk, budget)[mark] for risk in judged]
        gain = compare.recall_difference(*caught, confidence=confidence, random_state=random_state)
        recalls = [float(each.mean()) for each in caught]
    normal = labels != 1
    sides = [
        Side(
            risk=found["risk"].to_numpy(),
            p_value=found["p_value"].to_numpy(),
            precision=evaluate.ranking_metrics(truth, risk)["ap"],
            recall=recall,
            calibration=calibration_metrics(found["p_value"][normal])["calibration_distance"],
            alerts=alerts,
            right=right,
        )
        for found, risk, recall in zip(scores, judged, recalls, strict=True)
        for alerts, right in [_alerts(found, days, anomalous=labels == 1)]
    ]
    return Comparison(
        champion=sides[0],
        challenger=sides[1],
        basis="labels" if labelled else "injected anomalies",
        gain=gain,
        stability=_stability(champion, challenger, scores),
        rows=len(rows),
        anomalies=int((truth == 1).sum()),
        days=days,
        budget=budget,
        noise=KS_CHANCE / float(np.sqrt(max(1, int(normal.sum())))),
        truth=truth,
        judged=judged,
    )


def _stability(champion: Scorer, challenger: Scorer, scores: Sequence[pd.DataFrame]) -> float:
    """How alike they rank: a head that begins to decide, or ends, is meant to rank otherwise."""
    heads = [isinstance(each, TabularScorer) and each.serving_head is not None for each in (champion, challenger)]
    name = UNSUPERVISED if heads[0] != heads[1] and all(UNSUPERVISED in each for each in scores) else "risk"
    return compare.rank_stability(scores[0][name], scores[1][name])


def _judgeable(scorer: Scorer, rows: pd.DataFrame) -> pd.DataFrame:
    """Without machines that a detector of series does not know, or of which there is too little."""
    return rows[scorer.can_judge(rows)]


def _scored(scorer: Scorer, rows: pd.DataFrame, policy: Policy) -> pd.DataFrame:
    """Scores whose risks are numbers; what has none, as the second row of one time in a series, is unremarkable."""
    found = scorer.score(rows, policy, explains=False)
    return found.assign(risk=_finite(scorer, found["risk"]), p_value=found["p_value"].fillna(1.0))


def _risk(scorer: Scorer, rows: pd.DataFrame) -> NDArray[np.float64]:
    return np.asarray(_finite(scorer, scorer.measure(rows)["risk"]))


def _finite(scorer: Scorer, risk: pd.Series) -> pd.Series:
    unknown = ~np.isfinite(risk.to_numpy())
    if unknown.mean() > (0.0 if isinstance(scorer, TabularScorer) else MOST_WITHOUT_STEP):
        raise DataError(f"The detector {scorer.name!r} gives risks that are no numbers: its training diverged.")
    return risk.where(~unknown, risk.min())


def _alerts(scores: pd.DataFrame, days: float, *, anomalous: NDArray[np.bool_]) -> tuple[float, float]:
    """Flagged rows a day, or among a thousand, and those of them that are known to be anomalous."""
    flagged = scores["flagged"].to_numpy(dtype=bool)
    share = 1 / max(days, 1.0) if days else 1000.0 / len(scores)
    return float(flagged.sum()) * share, float((flagged & anomalous).sum()) * share


def _riskiest(risk: NDArray[np.float64], rows: int) -> NDArray[np.bool_]:
    chosen = np.zeros(len(risk), dtype=bool)
    chosen[np.argsort(-risk, kind="stable")[:rows]] = True
    return chosen


def _bounded(
    truth: NDArray[np.float64], judged: tuple[NDArray[np.float64], NDArray[np.float64]], random_state: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """At most so many labelled rows that the bootstrap takes seconds."""
    known = np.flatnonzero(~np.isnan(truth))
    if len(known) > MOST_LABELLED:
        known = np.sort(np.random.default_rng(random_state).choice(known, MOST_LABELLED, replace=False))
    return truth[known], judged[0][known], judged[1][known]
