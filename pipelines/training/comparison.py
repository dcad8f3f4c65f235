"""Champion and challenger on the same recent rows that neither learnt from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from detector.cleaning.clean import clean
from detector.decide.policy import Policy
from detector.detectors.table.model import UNSUPERVISED
from detector.errors import DataError
from detector.metrics import compare, ranking
from detector.metrics.budget import budget_metrics
from detector.metrics.calibration import calibration_metrics
from detector.metrics.inject import inject
from detector.persist.bundle import Scorer
from pipelines.config import Config
from pipelines.factory.detector import policy_of
from pipelines.factory.kinds import kind_of
from pipelines.factory.training_period import TrainingPeriod
from pipelines.registry.comparison import Comparison, Side
from pipelines.reports.style import BLUE, GREY, INK, ORANGE, count_axis, in_house_style, percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BUDGET_SHARE = 0.01
INJECTED_SHARE, FEWEST_INJECTED, MOST_INJECTED_SHARE = 0.02, 200, 0.1
MOST_LABELLED = 50_000
# A Kolmogorov-Smirnov distance that chance passes once in a hundred, times the square root of the rows.
KS_CHANCE = 1.63
COLOURS = (("champion", BLUE), ("challenger", ORANGE))


def compare_on(
    period: TrainingPeriod,
    champion: Scorer,
    challenger: Scorer,
    config: Config,
) -> Comparison:
    """Score the recent rows of a period, which neither has learnt from, with both.

    By labels if there are enough known anomalies, else by injected ones. The policy's budget says how many rows people
    can look at.

    Raises ``DataError`` if the champion can read none of the rows, or a detector gives a risk that is no number.
    """
    policy, random_state = policy_of(config.policy, period.schema), config.random_state
    confidence = config.retrain.confidence
    rows = period.compare
    theirs = clean(period.raw.loc[rows.index], champion.schema, positions=rows.index).rows
    theirs = theirs[champion.can_score(theirs)]
    both = rows.index[challenger.can_score(rows)].intersection(theirs.index, sort=False)
    if len(both) < 2:
        raise DataError("The champion can read none of the recent rows: their columns changed. Promote by hand.")
    labels = pd.Series(period.labels, index=rows.index).loc[both].to_numpy()
    rows, theirs = rows.loc[both], theirs.loc[both]
    days = period.compare_days
    if policy.budget is not None:
        budget = max(1, round(policy.budget.rows * (max(days, 1.0) if policy.budget.per == "day" else 1.0)))
    else:
        budget = max(1, round(BUDGET_SHARE * len(rows)))
    budget = min(budget, max(1, len(rows) // 10))
    scores = [_scored(scorer, part, policy) for scorer, part in ((champion, theirs), (challenger, rows))]
    labelled = int((labels == 1).sum()) >= config.retrain.least_anomalies and ranking.has_both_classes(labels)
    if labelled:
        truth, risks = labels, (scores[0]["risk"].to_numpy(), scores[1]["risk"].to_numpy())
        gain = compare.precision_difference(
            *_bounded(truth, risks, random_state), confidence=confidence, random_state=random_state
        )
        recalls = [budget_metrics(truth, risk, budget)["recall_at_budget"] for risk in risks]
    else:
        share = max(INJECTED_SHARE, min(MOST_INJECTED_SHARE, FEWEST_INJECTED / len(rows)))
        spoilt, mark = inject(rows, period.schema, share=share, random_state=random_state)
        truth = mark.astype(np.float64)
        changed = spoilt[[name for name in spoilt.columns if name in theirs.columns]]
        other = theirs.assign(**{name: changed[name] for name in changed.columns})
        risks = (_risk(champion, other), _risk(challenger, spoilt))
        # Real anomalies are among the riskiest too, so the injected ones get as much room again.
        budget += int(mark.sum())
        caught = [_riskiest(risk, budget)[mark] for risk in risks]
        gain = compare.recall_difference(*caught, confidence=confidence, random_state=random_state)
        recalls = [float(each.mean()) for each in caught]
    normal = labels != 1
    sides = [
        Side(
            risk=found["risk"].to_numpy(),
            p_value=found["p_value"].to_numpy(),
            precision=ranking.ranking_metrics(truth, risk)["ap"],
            recall=recall,
            calibration=calibration_metrics(found["p_value"][normal])["calibration_distance"],
            alerts=alerts,
            right=right,
        )
        for found, risk, recall in zip(scores, risks, recalls, strict=True)
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
        risks=risks,
    )


def _stability(champion: Scorer, challenger: Scorer, scores: Sequence[pd.DataFrame]) -> float:
    """How alike they rank: a head that begins to decide, or ends, is meant to rank otherwise."""
    heads = [kind_of(each).has_head(each) for each in (champion, challenger)]
    name = UNSUPERVISED if heads[0] != heads[1] and all(UNSUPERVISED in each for each in scores) else "risk"
    return compare.rank_stability(scores[0][name], scores[1][name])


def _scored(scorer: Scorer, rows: pd.DataFrame, policy: Policy) -> pd.DataFrame:
    """Scores whose risks are numbers; what has none, as the second row of one time in a series, is unremarkable."""
    found = scorer.score(rows, policy, explains=False)
    return found.assign(risk=_finite(scorer, found["risk"]), p_value=found["p_value"].fillna(1.0))


def _risk(scorer: Scorer, rows: pd.DataFrame) -> NDArray[np.float64]:
    return np.asarray(_finite(scorer, scorer.measure(rows)["risk"]))


def _finite(scorer: Scorer, risk: pd.Series) -> pd.Series:
    unknown = ~np.isfinite(risk.to_numpy())
    if unknown.mean() > kind_of(scorer).without_risk:
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
    truth: NDArray[np.float64], risks: tuple[NDArray[np.float64], NDArray[np.float64]], random_state: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """At most so many labelled rows that the bootstrap takes seconds."""
    known = np.flatnonzero(~np.isnan(truth))
    if len(known) > MOST_LABELLED:
        known = np.sort(np.random.default_rng(random_state).choice(known, MOST_LABELLED, replace=False))
    return truth[known], risks[0][known], risks[1][known]


@in_house_style
def comparison_figure(found: Comparison) -> Figure:
    """Recall against rows looked at, and the p-values against the diagonal they should follow."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 3.6), layout="constrained", facecolor="white")
    left, right = figure.subplots(1, 2, width_ratios=[3, 2])
    _draw_recall(left, found)
    _draw_calibration(right, found)
    return figure


def _draw_recall(axes: Axes, found: Comparison) -> None:
    known = ~np.isnan(found.truth)
    at_budget: list[float] = []
    for (name, colour), risk in zip(COLOURS, found.risks, strict=True):
        order = np.argsort(-risk[known], kind="stable")
        recall = np.cumsum(found.truth[known][order]) / max(found.truth[known].sum(), 1.0)
        at = min(found.budget, len(recall)) - 1
        at_budget.append(float(recall[at]))
        axes.plot(np.arange(1, len(recall) + 1), recall, color=colour, label=name)
        axes.plot(at + 1, recall[at], "o", color=colour, markersize=6)
    axes.axvline(found.budget, color=INK, linestyle="--", linewidth=1, label=f"{found.budget:,} rows looked at")
    axes.set(xscale="log", ylim=(0, 1.02), xlabel="riskiest rows looked at", ylabel="share of anomalies found")
    count_axis(axes.xaxis)
    kind = "known" if found.basis == "labels" else "injected"
    axes.set_title(
        f"Challenger finds {percent(at_budget[1])} of {kind} anomalies, champion {percent(at_budget[0])}", fontsize=10
    )
    axes.legend(loc="lower right")


def _draw_calibration(axes: Axes, found: Comparison) -> None:
    for (name, colour), side in zip(COLOURS, (found.champion, found.challenger), strict=True):
        values = np.sort(side.p_value)
        shares = np.arange(1, len(values) + 1) / len(values)
        axes.plot(values, shares, color=colour, label=f"{name}, off by {side.calibration:.2f}")
    axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1)
    axes.set(xlabel="p-value", ylabel="share of rows at or below", xlim=(0, 1), ylim=(0, 1))
    axes.set_title("Right p-values follow the diagonal", fontsize=10)
    axes.legend(loc="upper left")
