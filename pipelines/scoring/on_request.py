"""Score events that somebody asks about, before they come through the source: the numbers of the next batch."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime

import pandas as pd
import sqlalchemy as sa

from detector.cleaning.clean import clean
from detector.detectors.table.scoring import TableScoring
from detector.errors import DataError, DetectorError
from detector.features.excerpt import known_rows
from pipelines.config import Config
from pipelines.features.feature_state import FeatureState, feature_state_of
from pipelines.features.held_events import HeldEvents, measure_ahead, related
from pipelines.ingest.contract import FollowedSource
from pipelines.ingest.followed import open_followed
from pipelines.jobs.context import ProcessCache
from pipelines.rules.book import RuleRun
from pipelines.rules.names import typed
from pipelines.rules.serving import rule_book_of, switch_off
from pipelines.scoring.load import load_scorer
from pipelines.scoring.table import TableBatchScorer
from pipelines.store import DayFlags, Store

PATIENCE = 5.0
"""Seconds that a request waits for the features of a large batch; then it is told to come again."""


class BusyError(DetectorError, RuntimeError):
    """The request cannot be answered now or here, and may be asked again."""


@dataclass(frozen=True)
class ScoredEvents:
    """What became of events.

    - ``scores``: as ``TabularScorer.as_scores`` has them, under the labels of the events.
    - ``refused``: for the labels of the others, why each cannot be scored.
    - ``version``: of the detector.
    - ``held``: how many count in the past of later ones from now on.
    - ``note``: why a false discovery rate is no promise.
    """

    scores: pd.DataFrame
    refused: dict[int, str]
    version: str
    held: int = 0
    note: str | None = None


class OnRequest:
    """Scores events by the detector that serves, against the past of the service.

    - ``is_leader``: only the instance that leads knows the past up to now.
    """

    def __init__(self, config: Config, store: Store, cache: ProcessCache, *, is_leader: Callable[[], bool]) -> None:
        self.config = config
        self.store = store
        self.cache = cache
        self.is_leader = is_leader
        self.held = HeldEvents(store, config.name, hours=config.service.api.hold_hours)

    @property
    def columns(self) -> list[str]:
        """The columns that an event must have.

        Raises ``DataError`` if rows are readings of sensors.
        """
        scorer, state = self._scorer(), self._state()
        schema = scorer.schema if state is None else state.engine.raw_schema(scorer.schema)
        optional = set() if state is None else set(state.engine.reader.optional)
        wanted = [*schema.features, *(name for role, name in schema.roles.items() if role != "label")]
        return [name for name in dict.fromkeys(wanted) if name not in optional]

    def score(self, events: pd.DataFrame, *, now: datetime, explain: bool, keep: bool) -> ScoredEvents:
        """Score events as the next batch would, if it held just these.

        - ``events``: as they came, labelled 0, 1, …
        - ``explain``: whether each gets reasons, flagged or not.
        - ``keep``: whether later events are to count these, until the source brings them.

        Raises ``DataError`` if rows are readings of sensors; ``SchemaError`` if a column is missing; ``BusyError`` if
        another instance leads, or a large batch is in hand.
        """
        scorer, state = self._scorer(), self._state()
        refused: dict[int, str] = {}
        frame, known = events, set[int]()
        if state is not None:
            frame, known = self._measured(events, state, refused, now=now)
        cleaned = clean(frame, scorer.schema, positions=frame.index)
        refused |= _reasons_of(cleaned.quarantine)
        rows = cleaned.rows
        book = rule_book_of(self.config, self.store, scorer.schema, self.cache)
        rules = None if book is None else book.begin(now=now)
        if rules is not None:
            rows = rows.assign(**typed(frame.loc[rows.index], rules.book.names.extra))
        scoring = TableScoring(scorer.scorer, scorer.policy, explains=False, beside=rules)
        scoring.add(rows)
        scores, note = self._decided(scoring, rules, scorer if explain else None, rows, now=now)
        held = 0
        if keep and state is not None and len(cleaned.rows):
            held = self._hold(events.loc[[label for label in cleaned.rows.index if label not in known]], state, now=now)
        return ScoredEvents(scores, refused, scorer.version, held, note)

    def _decided(
        self,
        scoring: TableScoring,
        rules: RuleRun | None,
        explainer: TableBatchScorer | None,
        rows: pd.DataFrame,
        *,
        now: datetime,
    ) -> tuple[pd.DataFrame, str | None]:
        """Scores with their flags, reasons where they are asked for, and what rules say; and the note of the policy."""

        def used(days: Sequence[date]) -> dict[date, int]:
            return flagged_by_day(self.store, self.config.name, days)

        if rules is None:
            decision = scoring.decision(used)
            flagged = decision.flagged
        else:
            decision, flagged = rules.decide(scoring, used)
        scores = pd.concat(list(scoring.scores(flagged)))
        if explainer is not None and len(rows):
            spoken = [explainer.wording.reasons(each) for each in explainer.scorer.explain(rows)]
            scores["reasons"] = pd.Series(spoken, index=scores.index, dtype=object)
        if rules is not None:
            (scores,) = rules.tell(iter([scores]))
            if failed := {**rules.book.broken, **rules.failed}:
                with self.store.write() as session:
                    switch_off(session, failed, config=self.config, now=now)
        return scores, decision.note

    def _measured(
        self, events: pd.DataFrame, state: FeatureState, refused: dict[int, str], *, now: datetime
    ) -> tuple[pd.DataFrame, set[int]]:
        """The events with their features, and those that the source has brought already."""
        if not self.is_leader():
            raise BusyError("Another instance leads, and only that one knows the past up to now: ask it.")
        engine, key = state.engine, state.engine.features.key
        held, typed = self.held.frame(now=now), engine.reader.read(events)
        followed = self._followed(state)
        own = set() if key is None else set(typed[key].astype(str))
        with self._in_turn(state):
            history, in_hand = state.history_for(events, followed)
            held = related(engine, held[~held.index.isin(own | in_hand)], events)
            found = measure_ahead(engine, history, events, held, now=now, typed=typed)
            known = events.index[known_rows(history, typed)]
        refused |= _reasons_of(found.quarantine)
        return found.rows, set(known.tolist())

    def _hold(self, events: pd.DataFrame, state: FeatureState, *, now: datetime) -> int:
        key = state.engine.features.key
        if key is None:
            return 0  # whatever the source brings could not be told from it
        wanted = [name for name in dict.fromkeys((*state.engine.reader.needs, key)) if name in events]
        return self.held.hold(events[wanted], state.engine.reader.read(events)[key].astype(str).tolist(), now=now)

    def _scorer(self) -> TableBatchScorer:
        scorer = load_scorer(self.config, self.cache)
        if not isinstance(scorer, TableBatchScorer):
            raise DataError("Readings of sensors are scored with those around them: send them through the source.")
        return scorer

    def _state(self) -> FeatureState | None:
        return feature_state_of(self.config, self.store, self.cache)

    def _followed(self, state: FeatureState) -> FollowedSource:
        schema = state.engine.raw_schema(self._scorer().schema)
        return open_followed(self.config, self.store, schema, also=state.engine.reader.optional)

    @contextlib.contextmanager
    def _in_turn(self, state: FeatureState) -> Iterator[None]:
        if not state.moving.acquire(timeout=PATIENCE):
            raise BusyError("The features of a large batch are being measured. Ask again in a few seconds.")
        try:
            yield
        finally:
            state.moving.release()


def flagged_by_day(store: Store, source: str, days: Sequence[date], *, but: int | None = None) -> dict[date, int]:
    """How many rows of some days were flagged, but for those of one batch."""
    statement = (
        sa.select(DayFlags.day, sa.func.sum(DayFlags.flagged))
        .where(DayFlags.source == source, DayFlags.day.in_(list(days)))
        .group_by(DayFlags.day)
    )
    if but is not None:
        statement = statement.where(DayFlags.batch != but)
    with store.read() as session:
        return {day: int(flagged) for day, flagged in session.execute(statement)}


def _reasons_of(quarantine: pd.DataFrame) -> dict[int, str]:
    found = zip(quarantine["row"].tolist(), quarantine["reason"].tolist(), strict=True)
    return {int(row): str(reason) for row, reason in found}
