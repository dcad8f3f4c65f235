"""How good a detector is on rows it has not seen: figures of merit, with or without labels, and pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import pandas as pd

from detector.decide.policy import Policy
from detector.detectors.table.model import UNSUPERVISED
from detector.detectors.table.scorer import TabularScorer
from detector.explain.reason import in_words
from detector.features import Wording
from detector.metrics import ranking
from detector.metrics.calibration import calibration_metrics
from detector.persist.bundle import Scorer
from pipelines.config import Config
from pipelines.factory.detector import policy_of
from pipelines.features.wording import wording_of
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
        wording = wording_of(config)
        reviewed = review_table(scorer, rows, policy=policy, wording=wording)
        return reviewed, figures(scorer, rows, reviewed, policy=policy, history=history, wording=wording)
    reviewed, scored = review_series(scorer, rows, policy=policy, join=config.series.join)
    words = wording_of(config)
    drawn = series_figures(reviewed, scored, history=history, called=words.column)
    return replace(reviewed, reasons=[words.reasons(each) for each in reviewed.reasons]), drawn


def review_table(
    scorer: TabularScorer, rows: pd.DataFrame, *, policy: Policy, wording: Wording | None = None
) -> Review:
    """Score cleaned rows that took no part in fitting.

    - ``rows``: as ``clean`` returns them; at least one.
    - ``wording``: how reasons are said; by the names of columns by default.
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
    if ranking.has_both_classes(labels):
        alone = None
        if scorer.serving_head is not None:
            alone = scorer.with_head(None).score(rows, policy, explains=False)["flagged"].to_numpy(dtype=bool)
        truth = against_labels(labels, measures, flagged, policy, members_flagged=alone)
        interval = ranking.average_precision_interval(labels, measures["risk"])
        scored["truth"] = labels
    alerts = scored[flagged].nlargest(MOST_SHOWN, "risk")
    reasons = [(wording or Wording()).reasons(each) for each in scorer.explain(rows.loc[alerts.index])]
    alerts = alerts.assign(reasons=[in_words(each) for each in reasons])
    return Review(scored, metrics, truth, interval, alerts, reasons)


def figures(
    scorer: TabularScorer,
    rows: pd.DataFrame,
    reviewed: Review,
    *,
    policy: Policy,
    history: Mapping[str, Sequence[float]] | None = None,
    wording: Wording | None = None,
) -> dict[str, Figure]:
    """The pictures of a review, by the names the report knows.

    What a picture says in numbers is of all rows, as the rest of the report; only dots are a sample of at most 20,000.
    """
    from pipelines.reports import figures as draw
    from pipelines.reports import model_figures

    scored = reviewed.scored
    labels = scored["truth"].to_numpy() if "truth" in scored else None
    threshold = float(scored["risk"][scored["flagged"]].min()) if scored["flagged"].any() else None
    normal = scored["p_value"] if labels is None else scored["p_value"][labels != 1]
    drawings: dict[str, Figure] = {}
    if history and history.get("loss"):
        drawings["loss"] = draw.loss_curves(history)
    drawings["risk"] = draw.risk_histogram(scored["risk"], labels=labels, threshold=threshold)
    if labels is not None and ranking.has_both_classes(labels):
        drawings["precision_recall"] = draw.precision_recall(
            labels, scored["risk"], budget=budget_of(policy, len(scored))
        )
    sample = rows.iloc[:: max(1, len(rows) // MOST_DRAWN)]
    drawn = scored.loc[sample.index]
    if "autoencoder" in scorer.members and len(sample) > 1:
        known = None if labels is None else drawn["truth"].to_numpy()
        unusual = drawn["flagged"].to_numpy() if known is None else known == 1
        errors = scorer.feature_errors(sample).rename(columns=(wording or Wording()).column)
        drawings["feature_error"] = model_figures.feature_error(errors, unusual=unusual)
        drawings["code"] = model_figures.code_map(scorer.encode(sample), risk=drawn["risk"], labels=known)
    chosen = scored["p_value"][scored["flagged"]].max() if len(reviewed.alerts) else None
    drawings["alert_rate"] = draw.alert_rate(scored["p_value"], chosen=chosen)
    if len(normal):
        drawings["calibration"] = draw.calibration(normal)
    if len(scorer.members) > 1 and len(scored) > 1:
        drawings["members"] = model_figures.member_correlation(scored[list(scorer.members)])
    return drawings
