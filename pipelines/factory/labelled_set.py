"""The head in the life of a detector: which rows it learns from, and whether it decides."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from detector.detectors.table.scorer import TabularScorer
from detector.errors import DataError
from detector.schema import Schema
from pipelines.config import Config
from pipelines.labels.feedback import Statements
from pipelines.labels.known import KnownLabels, known_labels

MOST_ROWS = 100_000
NUMBERS = ("rows_learnt", "anomalies_learnt", "rows_later", "anomalies_later", "rows_calibrated")


@dataclass(frozen=True)
class Lesson:
    """What a head is to learn from, apart from what the members learn from.

    Parameters
    ----------
    rows : DataFrame
        All known anomalies, and a sample of the others; only the anomalies where there is too little to learn from.
    known : KnownLabels
        What is known of them.
    weight : array of shape (n_rows,)
        How many rows each stands for.
    reason : str
        Why nothing is to be learnt; "" if something is.
    """

    rows: pd.DataFrame
    known: KnownLabels
    weight: NDArray[np.float64]
    reason: str = ""


def lesson_of(
    rows: pd.DataFrame, config: Config, schema: Schema, *, now: datetime, statements: Statements | None
) -> Lesson | None:
    """Choose the rows that a head learns from.

    Parameters
    ----------
    rows : DataFrame
        Cleaned, known anomalies included, without those kept apart for a review.
    config : Config
        ``train.head`` says how many; the label delay and the reports say what is known.
    schema : Schema
        Their meaning.
    now : datetime
        Only what is known by then counts.
    statements : Statements or None
        As ``known_labels`` takes them.

    Returns
    -------
    Lesson or None
        None where no head is wanted.
    """
    section = config.train.head
    if config.kind != "table" or not section.enabled:
        return None
    if schema.time is None:
        return _nothing(rows.iloc[:0], "`columns.time` names no column, so no rows are later than others.")
    return lesson_from(rows, known_labels(rows, config, schema, now=now, statements=statements), config)


def lesson_from(rows: pd.DataFrame, known: KnownLabels, config: Config) -> Lesson:
    """The same where it is clear what is known of the rows."""
    section = config.train.head
    anomalous = (known.label == 1).to_numpy()
    if anomalous.sum() < section.least_anomalies:
        return _nothing(
            rows[anomalous],
            f"{anomalous.sum():,} anomalies are known; `train.head.least_anomalies` asks for "
            f"{section.least_anomalies:,}.",
        )
    others = np.flatnonzero(~anomalous)
    size = max(1, min(MOST_ROWS, round(section.share * len(others))))
    drawn = np.random.default_rng([config.random_state, len(rows)]).choice(
        others, min(size, len(others)), replace=False
    )
    places = np.sort(np.concatenate([np.flatnonzero(anomalous), drawn]))
    weight = np.where(anomalous[places], 1.0, len(others) / max(1, len(drawn)))
    chosen = rows.iloc[places]
    return Lesson(chosen, known.of(chosen.index), weight)


def without(rows: pd.DataFrame, lesson: Lesson | None) -> pd.DataFrame:
    """The rows that the members learn from: not those that the head learns from."""
    return rows if lesson is None else rows.loc[~rows.index.isin(lesson.rows.index)]


def taught(scorer: TabularScorer, lesson: Lesson | None, config: Config) -> TabularScorer:
    """The detector with what labels taught it; its ``metrics`` say whether the head decides, and why.

    Parameters
    ----------
    scorer : TabularScorer
        Fitted without the rows of the lesson.
    lesson : Lesson or None
        As ``lesson_of`` returns it.
    config : Config
        ``train.head`` says how.
    """
    from detector.ranker.fit import HeadRecipe, fit_head  # scikit-learn, which a service that scores does not need

    if lesson is None:
        return scorer
    reason, head = lesson.reason, None
    if not reason:
        section, schema = config.train.head, scorer.schema
        try:
            head = fit_head(
                lesson.rows,
                scorer.unsupervised(lesson.rows),
                lesson.known.label,
                lesson.rows[str(schema.time)],
                columns=schema.numeric + schema.boolean,
                known_at=lesson.known.known_at,
                weight=lesson.weight,
                tail=config.train.tail,
                recipe=HeadRecipe(trees=section.trees, models=section.models, least_anomalies=section.least_anomalies),
                random_state=config.random_state,
            )
        except DataError as error:
            reason = str(error)
    metrics: dict[str, object] = {"head_serves": 0.0, "head_reason": reason}
    if head is not None:
        facts = head.facts
        metrics = {"head_serves": float(head.serves), "head_reason": _told(facts)}
        metrics |= {f"head_{name}": float(facts[name]) for name in facts if name.startswith(("ap_", "gain"))}
        metrics |= {f"head_{name}": float(facts[name]) for name in NUMBERS}
        metrics |= {f"head_labels_by_{what}": float(count) for what, count in lesson.known.counts.items()}
    return replace(scorer.with_head(head), metrics=scorer.metrics | metrics)


def tags_of(scorer: object) -> dict[str, str]:
    """What a run says of the head in tags.

    >>> tags_of(None)
    {}
    """
    if not isinstance(scorer, TabularScorer) or "head_reason" not in scorer.metrics:
        return {}
    state = "none" if scorer.head is None else "decides" if scorer.head.serves else "fitted, does not decide"
    return {"head": state, "head reason": str(scorer.metrics["head_reason"])}


def head_note(scorer: object) -> str | None:
    """Whether a head decides, and why, in a sentence; None where none was wanted."""
    tags = tags_of(scorer)
    return f"Learning from labels: {tags['head']}. {tags['head reason']}" if tags else None


def _told(facts: dict[str, object]) -> str:
    head, risk, gain = (
        f"{facts[name]:.3f} ({facts[f'{name}_low']:.3f} to {facts[f'{name}_high']:.3f})"
        for name in ("ap_head", "ap_risk", "gain")
    )
    return (
        f"On {facts['rows_later']:,} later labelled rows with {facts['anomalies_later']:,} anomalies its average "
        f"precision is {head}, that of the unsupervised risk {risk}; the gain {gain}, 90 % intervals."
    )


def _nothing(rows: pd.DataFrame, reason: str) -> Lesson:
    none = pd.Series(dtype="float64")
    return Lesson(rows, KnownLabels(none, none, none), np.zeros(0), reason)
