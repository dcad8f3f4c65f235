"""How good a detector is on rows it has not seen: figures of merit, with or without labels, and pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import pandas as pd

from detector.decide.policy import Policy
from detector.detectors.table.scorer import UNSUPERVISED, TabularScorer
from detector.explain.reason import in_words
from detector.metrics import ranking as evaluate
from detector.metrics.calibration import calibration_metrics
from detector.persist.bundle import Scorer
from pipelines.config import Config
from pipelines.factory.detector import policy_of
from pipelines.training.merit import MOST_SHOWN, Review, against_labels, budget_of, correlations, labels_of
from pipelines.training.series_review import review_series, series_figures

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_DRAWN = 20_000


def review(
    scorer: Scorer, rows: pd.DataFrame, config: Config, history: dict[str, list[float]]
) -> tuple[Review, dict[str, Figure]]:
    """Figures of merit and pictures: of a table by row, of sensors by row and by event.

    - ``scorer``: a detector of the configured kind.
    - ``rows``: as ``clean`` returns them, none of which took part in fitting; at least one.
    - ``history``: the loss by epoch, drawn if there is one.
    """
    policy = policy_of(config.policy, scorer.schema)
    if isinstance(scorer, TabularScorer):
        reviewed = review_table(scorer, rows, policy=policy)
        return reviewed, figures(scorer, rows, reviewed, policy=policy, history=history)
    reviewed, scored = review_series(scorer, rows, policy=policy, join=config.series.join)
    return reviewed, series_figures(reviewed, scored, history=history)


def review_table(scorer: TabularScorer, rows: pd.DataFrame, *, policy: Policy) -> Review:
    """Score cleaned rows that took no part in fitting.

    - ``rows``: as ``clean`` returns them; at least one.
    """
    scored = scorer.score(rows, policy, explains=False)
    measures = scored[["risk", "p_value", *scorer.members, UNSUPERVISED]]
    flagged = scored["flagged"].to_numpy(dtype=bool)
    labels = labels_of(rows, scorer.schema.label)
    normal = measures["p_value"][(labels != 1)]
    metrics = {"flagged_share": float(flagged.mean()), "review_rows": float(len(rows))}
    if len(normal):
        metrics |= calibration_metrics(normal)
    if len(rows) > 1 and len(scorer.members) > 1:
        metrics |= correlations(measures[list(scorer.members)])
    truth = interval = None
    if evaluate.has_both_classes(labels):
        alone = None
        if scorer.serving_head is not None:
            alone = scorer.with_head(None).score(rows, policy, explains=False)["flagged"].to_numpy(dtype=bool)
        truth = against_labels(labels, measures, flagged, policy, members_flagged=alone)
        interval = evaluate.average_precision_interval(labels, measures["risk"])
        scored["truth"] = labels
    alerts = scored[flagged].nlargest(MOST_SHOWN, "risk")
    reasons = scorer.explain(rows.loc[alerts.index])
    alerts = alerts.assign(reasons=[in_words(each) for each in reasons])
    return Review(scored, metrics, truth, interval, alerts, reasons)


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
    from pipelines.reports import model_figures

    sample = rows.iloc[:: max(1, len(rows) // MOST_DRAWN)]
    scored = reviewed.scored.loc[sample.index]
    labels = scored["truth"].to_numpy() if "truth" in scored else None
    threshold = float(reviewed.alerts["risk"].min()) if len(reviewed.alerts) else None
    normal = scored["p_value"] if labels is None else scored["p_value"][labels != 1]
    drawings: dict[str, Figure] = {}
    if history and history.get("loss"):
        drawings["loss"] = draw.loss_curves(history)
    drawings["risk"] = draw.risk_histogram(scored["risk"], labels=labels, threshold=threshold)
    if labels is not None and evaluate.has_both_classes(labels):
        drawings["precision_recall"] = draw.precision_recall(
            labels, scored["risk"], budget=budget_of(policy, len(scored))
        )
    if "autoencoder" in scorer.members and len(sample) > 1:
        unusual = labels == 1 if labels is not None else scored["flagged"].to_numpy()
        drawings["feature_error"] = model_figures.feature_error(scorer.feature_errors(sample), unusual=unusual)
        drawings["code"] = model_figures.code_map(scorer.encode(sample), risk=scored["risk"], labels=labels)
    chosen = reviewed.scored["p_value"][reviewed.scored["flagged"]].max() if len(reviewed.alerts) else None
    drawings["alert_rate"] = draw.alert_rate(reviewed.scored["p_value"], chosen=chosen)
    if len(normal):
        drawings["calibration"] = draw.calibration(normal)
    if len(scorer.members) > 1 and len(sample) > 1:
        drawings["members"] = model_figures.member_correlation(scored[list(scorer.members)])
    return drawings
