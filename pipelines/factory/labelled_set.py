"""The labelled set: the rows that the supervised head learns from, the head trained on them, and what it says of it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from detector.detectors.table.scorer import TabularScorer
from detector.errors import DataError
from detector.schema import Schema
from pipelines.config import Config
from pipelines.factory.detector import event_steps
from pipelines.factory.leakage import Suspect, suspects_note, suspects_of
from pipelines.labels.feedback import Statements
from pipelines.labels.known import KnownLabels, known_labels
from pipelines.progress import counted

MOST_ROWS = 100_000
NUMBERS = ("rows_learnt", "anomalies_learnt", "rows_later", "anomalies_later", "rows_calibrated")


@dataclass(frozen=True)
class LabelledSet:
    """What the head learns from, apart from what the members learn from.

    - ``rows``: All known anomalies, and a sample of the others; only the anomalies where there are too few.
    - ``known``: What is known of them.
    - ``weight``: shape (n_rows,): how many rows each stands for.
    - ``reason``: Why no head can be trained; "" if one can.
    - ``suspects``: Columns that likely give the label away; with any of them no head is trained unasked.
    """

    rows: pd.DataFrame
    known: KnownLabels
    weight: NDArray[np.float64]
    reason: str = ""
    suspects: list[Suspect] = field(default_factory=list)


def labelled_set_of(
    rows: pd.DataFrame, config: Config, schema: Schema, *, now: datetime, statements: Statements | None
) -> LabelledSet | None:
    """Choose the rows that a head learns from.

    ``rows`` are cleaned, known anomalies included, without those kept apart for a review; only labels known by ``now``
    count. None where no head is wanted.
    """
    section = config.train.head
    if config.kind != "table" or not section.enabled:
        return None
    statements = Statements.read(config) if statements is None else statements
    if schema.label is None and section.reports is None and statements.verdicts.empty:
        nothing = f"Answers to alerts are, once {section.least_anomalies:,} anomalies are known"
        return None if schema.time is None else _no_head(rows.iloc[:0], f"{nothing} (`train.head.least_anomalies`).")
    if schema.time is None:
        return _no_head(rows.iloc[:0], "`columns.time` names no column, so no rows are later than others.")
    return labelled_set_from(rows, known_labels(rows, config, schema, now=now, statements=statements), config, schema)


def labelled_set_from(rows: pd.DataFrame, known: KnownLabels, config: Config, schema: Schema) -> LabelledSet:
    """The same where it is clear what is known of the rows."""
    section = config.train.head
    anomalous = (known.label == 1).to_numpy()
    suspects = suspects_of(rows, known.label, schema, trusted=section.trusted, random_state=config.random_state)
    if suspects:
        return replace(
            _no_head(rows[anomalous], f"A head would decide by hindsight. {suspects_note(suspects)}"), suspects=suspects
        )
    if anomalous.sum() < section.least_anomalies:
        return _no_head(
            rows[anomalous],
            f"{anomalous.sum():,} anomalies are known; `train.head.least_anomalies` asks for "
            f"{section.least_anomalies:,}. {_more_labels(known, config)}",
        )
    others = np.flatnonzero(~anomalous)
    size = max(1, min(MOST_ROWS, round(section.share * len(others))))
    sampled = np.random.default_rng([config.random_state, len(rows)]).choice(
        others, min(size, len(others)), replace=False
    )
    places = np.sort(np.concatenate([np.flatnonzero(anomalous), sampled]))
    weight = np.where(anomalous[places], 1.0, len(others) / max(1, len(sampled)))
    chosen = rows.iloc[places]
    return LabelledSet(chosen, known.of(chosen.index), weight)


def _more_labels(known: KnownLabels, config: Config) -> str:
    """Where the missing labels could come from."""
    section, waiting = config.train.head, int(known.label.isna().sum())
    missing = section.least_anomalies - int((known.label == 1).sum())
    sources = ["answer alerts"]
    if section.reports is None:
        sources.append("name a table of reports in `train.head.reports`")
    if waiting:
        days = f"{config.retrain.label_delay_days:g} days"
        sources.append(f"wait for the labels of {counted(waiting)} (`retrain.label_delay_days`: {days})")
    wait = f"{missing:,} more are needed: {', or '.join(sources)}; or lower the setting"
    return f"{wait}. Until then the unsupervised risk decides."


def _later_labels(labelled: LabelledSet, config: Config, time: str) -> str:
    """What gives labels that are known before later rows happen."""
    days = (labelled.rows[time].max() - labelled.rows[time].min()) / pd.Timedelta(days=1)
    return (
        f"The labelled rows span {days:.0f} days, and a label counts as known {config.retrain.label_delay_days:g} days "
        f"after its row (`retrain.label_delay_days`): train on a longer time, lower that, or name dates of reports in "
        f"`features.reported` or `train.head.reports`."
    )


def without(rows: pd.DataFrame, labelled: LabelledSet | None) -> pd.DataFrame:
    """The rows that the members learn from: not those that the head learns from."""
    return rows if labelled is None else rows.loc[~rows.index.isin(labelled.rows.index)]


def train_head(scorer: TabularScorer, labelled: LabelledSet | None, config: Config) -> TabularScorer:
    """The detector with a head trained on labels; its ``metrics`` say whether the head decides, and why.

    The members must have been fitted without the rows of the labelled set.
    """
    from detector.encoders.event_classifier import EventClassifier
    from detector.head.fit import HeadRecipe, fit_head  # scikit-learn, which a service that scores does not need
    from detector.head.fit_events import EventRecipe

    if labelled is None:
        return scorer
    reason, head = labelled.reason, None
    if not reason:
        section, schema, steps = config.train.head, scorer.schema, event_steps(config)
        columns = schema.without(() if steps is None else steps.beside)
        events, network = None, section.events
        if network.enabled and steps is not None:
            reader = EventClassifier(kind=network.encoder, units=network.units)
            training = replace(reader.training, epochs=network.epochs)
            events = EventRecipe(steps, replace(reader, training=training))
        try:
            head = fit_head(
                labelled.rows,
                scorer.for_head(labelled.rows, scorer.unsupervised(labelled.rows)),
                labelled.known.label,
                labelled.rows[str(schema.time)],
                columns=columns.numeric + columns.boolean,
                known_at=labelled.known.known_at,
                weight=labelled.weight,
                news=scorer.news(scorer.encoded(labelled.rows)),
                tail=config.train.tail,
                recipe=HeadRecipe(trees=section.trees, models=section.models, least_anomalies=section.least_anomalies),
                events=events,
                random_state=config.random_state,
            )
        except DataError as error:
            reason = f"{error} {_later_labels(labelled, config, str(schema.time))}"
    metrics: dict[str, object] = {"head_serves": 0.0, "head_reason": reason}
    if head is not None:
        facts = head.facts
        metrics = {"head_serves": float(head.serves), "head_reason": _compared(facts)}
        metrics |= {f"head_{name}": float(facts[name]) for name in facts if name.startswith(("ap_", "gain", "events_"))}
        metrics |= {f"head_{name}": float(facts[name]) for name in NUMBERS}
        metrics |= {f"head_labels_by_{what}": float(count) for what, count in labelled.known.counts.items()}
    return replace(scorer.with_head(head), metrics=scorer.metrics | metrics)


SAID = {
    "none": "Labels are not learnt from.",
    "decides": "The head that learnt from labels decides.",
    "fitted, does not decide": "A head has learnt from labels and does not decide.",
}


def head_tags(scorer: object) -> dict[str, str]:
    """What a run says of the head in tags.

    >>> head_tags(None)
    {}
    """
    if not isinstance(scorer, TabularScorer) or "head_reason" not in scorer.metrics:
        return {}
    state = "none" if scorer.head is None else "decides" if scorer.head.serves else "fitted, does not decide"
    return {"head": state, "head reason": str(scorer.metrics["head_reason"])}


def head_note(scorer: object) -> str | None:
    """Whether a head decides, and why, in a sentence; None where none was wanted."""
    tags = head_tags(scorer)
    return f"{SAID[tags['head']]} {tags['head reason']}" if tags else None


def _compared(facts: dict[str, object]) -> str:
    head, risk, gain = (
        f"{facts[name]:.3f} ({facts[f'{name}_low']:.3f} to {facts[f'{name}_high']:.3f})"
        for name in ("ap_head", "ap_risk", "gain")
    )
    said = (
        f"On {facts['rows_later']:,} later labelled rows with {facts['anomalies_later']:,} anomalies its average "
        f"precision is {head}, that of the unsupervised risk {risk}; the gain {gain}, 90 % intervals."
    )
    return f"{said} {_events(facts)}".strip()


def _events(facts: dict[str, object]) -> str:
    """Whether the head reads the events before a row, and why."""
    if "events_serve" not in facts:
        return ""
    if "events_gain" not in facts:
        return "It does not read the events before a row: too few anomalies are known to find out what they add."
    gain = f"{facts['events_gain']:+.3f} ({facts['events_gain_low']:+.3f} to {facts['events_gain_high']:+.3f})"
    does = "reads" if facts["events_serve"] else "does not read"
    return f"It {does} the events before a row: they change its average precision on the latest rows by {gain}."


def _no_head(rows: pd.DataFrame, reason: str) -> LabelledSet:
    none = pd.Series(dtype="float64")
    return LabelledSet(rows, KnownLabels(none, none, none), np.zeros(0), reason)
