"""The rows of an alert as the source has them, beside their scores, masked as people may read them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import sqlalchemy as sa

from detector.errors import DetectorError
from pipelines.config import Config
from pipelines.config.masking import Masks, masks_of
from pipelines.features.feature_state import feature_state_of
from pipelines.ingest.contract import FollowedSource
from pipelines.ingest.followed import open_followed
from pipelines.jobs.context import ProcessCache
from pipelines.scoring.load import load_scorer
from pipelines.sinks.stored_scores import ScoresQuery, stored_scores
from pipelines.store import Batch, Store
from pipelines.store.alert_tables import Alert

SCORES = ("risk", "p_value", "flagged", "severity")
MOST_EARLIER = 20
"""Batches before those of the run in which readings are looked for. Fewer, and a sensor that reports in small files has
gaps; more, and an alert takes longer to open."""


@dataclass(frozen=True)
class AlertRows:
    """The rows of an alert.

    - ``rows``: as the source has them, for machines.
    - ``shown``: the same as people may read them, with their scores.
    - ``missing``: how many could not be found.
    - ``note``: why.
    """

    rows: pd.DataFrame
    shown: pd.DataFrame
    missing: int = 0
    note: str = ""


def rows_of_alert(alert: Alert, *, config: Config, store: Store, cache: ProcessCache, most: int = 100) -> AlertRows:
    """The first rows of an alert; they are looked for in the batches of the run that made it.

    Readings wait for those after them, so theirs are looked for in the batches before as well.
    """
    keys: list[str] = list(alert.facts.get("keys", []))[:most]
    name, masks = config.columns.key, masks_of(config)
    if not keys or name is None:
        return _none(len(keys), "Rows have no key (`columns.key`), so they cannot be found again." if keys else "")
    if not masks.tells_apart(name):
        return _none(len(keys), f"The key {name} is cut or hidden (`alerts.mask`), so its rows cannot be found again.")
    batches = batches_of_alert(alert, store)
    earlier = earlier_batches(batches, store) if config.kind == "sensors" else []
    try:
        rows = _found(frames_of(batches + earlier, config, store, cache), name, set(keys), masks)
    except DetectorError as error:
        return _none(len(keys), f"The source cannot be read: {error}")
    shown = rows.apply(lambda column: column.map(lambda value: _shown(masks, str(column.name), value)))
    scores = stored_scores(config, store, ScoresQuery(SCORES, batches=[batch.id for batch in batches]))
    if not rows.empty and name in scores:
        found = scores.set_index(scores[name].astype(str))
        found = found.loc[~found.index.duplicated(), [each for each in SCORES if each in found and each not in shown]]
        shown = pd.concat([shown, found.reindex(rows[name].astype(str)).set_axis(shown.index)], axis="columns")
    missing = len(keys) - len(rows)
    note = "Some rows are no longer where they were scored from." if missing else ""
    return AlertRows(rows, shown, missing, note)


def batches_of_alert(alert: Alert, store: Store) -> list[Batch]:
    """Those of the run that made the alert: they have its time."""
    done = sa.select(Batch).where(
        Batch.source == alert.source, Batch.state == "done", Batch.purpose == "score", Batch.done_at == alert.created_at
    )
    return _all(done.order_by(Batch.id), store)


def earlier_batches(batches: Sequence[Batch], store: Store) -> list[Batch]:
    """Some batches before these, the latest first."""
    if not batches:
        return []
    first = batches[0]
    done = sa.select(Batch).where(
        Batch.source == first.source, Batch.state == "done", Batch.purpose == "score", Batch.id < first.id
    )
    return _all(done.order_by(Batch.id.desc()).limit(MOST_EARLIER), store)


def frames_of(batches: Sequence[Batch], config: Config, store: Store, cache: ProcessCache) -> Iterator[pd.DataFrame]:
    """The rows of batches as the source has them. Raises ``DetectorError`` where it cannot be read."""
    followed = _followed(config, store, cache)
    for batch in batches:
        yield from followed.open(batch.window).frames()


def _all(statement: sa.Select[Any], store: Store) -> list[Batch]:
    with store.read() as session:
        found = list(session.scalars(statement))
        session.expunge_all()
    return found


def _followed(config: Config, store: Store, cache: ProcessCache) -> FollowedSource:
    schema, state = load_scorer(config, cache).schema, feature_state_of(config, store, cache)
    if state is None:
        return open_followed(config, store, schema)
    return open_followed(config, store, state.engine.raw_schema(schema), also=state.engine.reader.optional)


def _found(frames: Iterator[pd.DataFrame], name: str, keys: set[str], masks: Masks) -> pd.DataFrame:
    left, parts = set(keys), []
    for frame in frames:
        names = frame[name].map(lambda value: masks.show(name, value))
        ours = names.isin(left)
        if ours.any():
            parts.append(frame[ours])
            left -= set(names[ours])
        if not left:
            break
    rows = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=[name])
    return rows.drop_duplicates(name, ignore_index=True)


def _shown(masks: Masks, column: str, value: object) -> object:
    if masks.is_masked(column):
        return masks.show(column, value)
    return None if value is None or value is pd.NaT or value != value else value


def _none(missing: int, note: str) -> AlertRows:
    return AlertRows(pd.DataFrame(), pd.DataFrame(), missing, note)
