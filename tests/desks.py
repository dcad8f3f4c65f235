"""Instances that score events on request, together and one by one, over a project of payments."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import pandas as pd

from detector.cleaning.plain import NotPlainError
from pipelines.config import Config
from pipelines.features.held_by_entity import PendingEvents
from pipelines.features.plain_frame import framed
from pipelines.jobs.context import Context, ProcessCache
from pipelines.scoring.event_scorer import EventScorer, ScoredEvents
from pipelines.scoring.job import score_new
from pipelines.scoring.one_event import EventRequest, ScoredEvent, score_together
from pipelines.store import Store
from tests.payment_sites import LATER

Event = dict[str, Any]


def framed_events(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows as JSON brings them."""
    return framed(json.loads(rows.to_json(orient="records", date_format="iso", date_unit="us")))


class Desk:
    """One instance: it scores on request and in batches, with one memory."""

    def __init__(self, config: Config, store: Store) -> None:
        assert config.file is not None
        self.folder, self.config, self.store, self.cache = config.file.parent, config, store, ProcessCache()
        self.leads = True
        self.event_scorer = EventScorer(config, store, self.cache, is_leader=lambda: self.leads)

    def ask(self, rows: pd.DataFrame, *, keep: bool = False) -> ScoredEvents:
        """Score rows on request."""
        return self.event_scorer.score(framed_events(rows), now=LATER, explain=False, keep=keep)

    def one_by_one(self, rows: pd.DataFrame, *, keep: bool) -> pd.Series:
        """The same, a request for each."""
        found = [self.ask(rows.iloc[[at]], keep=keep).scores for at in range(len(rows))]
        return risks(pd.concat(found))

    def batch(self) -> int:
        """Score what the source has brought."""
        return score_new(Context(self.config, self.store, LATER, cache=self.cache)).rows


def risks(scored: pd.DataFrame) -> pd.Series:
    return scored.set_index("transaction_id")["risk"].sort_index()


def plain_events(rows: pd.DataFrame) -> list[Event]:
    """Rows as JSON brings them, without their label."""
    rows = rows.drop(columns="is_fraud").assign(time=rows["time"].astype(str))
    found: list[Event] = rows.to_dict("records")
    return found


def score_one(desk: EventScorer, event: Mapping[str, Any], *, now: datetime, keep: bool) -> ScoredEvent:
    """Score one event, given as it came, and hold it.

    Raises ``NotPlainError`` where it takes ``EventScorer.score``; ``BusyError`` and ``DataError`` as that does.
    """
    (found,) = score_together(desk, [EventRequest(event, keep, now)], PendingEvents())
    if isinstance(found, NotPlainError):
        raise found
    if found.to_hold is not None:
        desk.held.hold({found.held_as: found.to_hold})
    return found
