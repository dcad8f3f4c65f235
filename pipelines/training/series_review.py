"""How good a detector of series is on a span it has not seen: by row and by event, and its pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import pandas as pd

from detector.decide.policy import Policy
from detector.detectors.series.events import curves_around, events_of
from detector.detectors.series.scored import ScoredSeries
from detector.detectors.series.scorer import SequenceScorer
from detector.metrics import ranking
from detector.metrics.calibration import calibration_metrics
from detector.metrics.events import event_metrics
from pipelines.training.merit import MOST_SHOWN, Review, against_labels, correlations, labels_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_EVENTS_DRAWN = 6
CURVE_MARGIN = 60


def review_series(
    scorer: SequenceScorer, rows: pd.DataFrame, *, policy: Policy, join: int
) -> tuple[Review, ScoredSeries]:
    """Score cleaned rows of whole series that took no part in fitting.

    - ``join``: see ``SequenceScorer.judge``.

    The alerts of the review are events, riskiest first; the pictures are drawn from the scored series.
    """
    scored = scorer.score_steps(rows)
    flags = scored.flagged(policy)
    found = scorer.of_rows(scored, rows, flags, explains=False)
    measures, index = found[["risk", "p_value", *scorer.members]], found.index
    flagged = found["flagged"].to_numpy(dtype=bool)
    named = {role: rows[name].loc[index] for role, name in scorer.schema.roles.items() if role in ("time", "entity")}
    verdicts = pd.DataFrame(named, index=index).join(measures).assign(flagged=flagged)
    labels = labels_of(rows.loc[index], scorer.schema.label)
    metrics = {"flagged_share": float(flagged.mean()), "review_rows": float(len(index))}
    if len(normal := measures["p_value"][labels != 1]):
        metrics |= calibration_metrics(normal)
    if len(scorer.members) > 1:
        metrics |= correlations(measures[list(scorer.members)])
    events = events_of(scored, flags, join=join).sort_values("risk", ascending=False, kind="stable")
    truth = interval = None
    if ranking.has_both_classes(labels):
        verdicts["truth"] = labels
        truth = against_labels(labels, measures, flagged, policy)
        truth |= event_metrics(labels, flagged, named.get("entity"))
        interval = ranking.average_precision_interval(labels, measures["risk"])
        events["truth"] = [_holds_anomaly(verdicts, event) for _, event in events.iterrows()]
    metrics["events"] = float(len(events))
    return Review(verdicts, metrics, truth, interval, _as_alerts(events), list(events["reasons"][:MOST_SHOWN])), scored


def series_figures(
    reviewed: Review,
    scored: ScoredSeries,
    *,
    history: Mapping[str, Sequence[float]] | None = None,
    called: Callable[[str], str] = str,
) -> dict[str, Figure]:
    """The pictures of a review: risk over time, the sensors at fault around each of the riskiest events, and more.

    - ``called``: what people call a sensor.
    """
    from pipelines.reports import figures as draw
    from pipelines.reports.series_figures import event_curves, risk_over_time

    drawings: dict[str, Figure] = {}
    if history and history.get("loss"):
        drawings["loss"] = draw.loss_curves(history)
    verdicts, events = reviewed.scored, reviewed.alerts
    worst = events["entity"].iloc[0] if len(events) and "entity" in events else None
    shown = verdicts[verdicts["entity"] == worst] if worst is not None else verdicts
    drawings["risk_over_time"] = risk_over_time(
        shown.get("time", shown.index),
        shown["risk"],
        flagged=shown["flagged"],
        labels=shown.get("truth"),
        whose=worst,
    )
    top = events.head(MOST_EVENTS_DRAWN)
    curves = curves_around(scored, top.assign(entity=top.get("entity", "")), margin=CURVE_MARGIN)
    for number, (name, event) in enumerate(top.iterrows(), start=1):
        sensors = [reason.feature for reason in reviewed.reasons[number - 1]]
        drawings[f"event_{number}"] = event_curves(
            curves[curves["event"] == name], event=event, sensors=sensors, called=called
        )
    labels = verdicts.get("truth")
    if labels is not None:
        drawings["precision_recall"] = draw.precision_recall(labels, verdicts["risk"])
    normal = verdicts["p_value"] if labels is None else verdicts["p_value"][labels != 1]
    if len(normal):
        drawings["calibration"] = draw.calibration(normal)
    return drawings


def _holds_anomaly(verdicts: pd.DataFrame, event: pd.Series) -> float:
    """1 if the event holds a known anomaly, 0 if all its rows are known to be normal, else NaN."""
    when = verdicts["time"] if "time" in verdicts else pd.Series(verdicts.index, index=verdicts.index)
    inside = (when >= event["start"]) & (when <= event["end"])
    if "entity" in verdicts:
        inside &= verdicts["entity"] == event["entity"]
    known = verdicts["truth"][inside]
    if (known == 1).any():
        return 1.0
    return 0.0 if len(known) and known.notna().all() else float("nan")


def _as_alerts(events: pd.DataFrame) -> pd.DataFrame:
    """Events as a report shows alerts: when, and why, which says since when and how the sensor moved."""
    said = ["reasons", "sensors", "peak", "onset", "change", "direction"]
    shown = events.head(MOST_SHOWN).drop(columns=said, errors="ignore").rename(columns={"text": "reasons"})
    return shown.drop(columns="entity") if (shown["entity"] == "").all() else shown
