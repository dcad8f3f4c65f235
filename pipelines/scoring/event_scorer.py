"""Score events that somebody asks about, before they come through the source: the numbers of the next batch."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import partial

import pandas as pd
from sqlalchemy.engine import Connection

from detector.cleaning.clean import clean
from detector.cleaning.reader import ColumnReader
from detector.detectors.table.scoring import TableScoring
from detector.errors import DataError, DetectorError
from detector.features.excerpt import KnownBy
from detector.schema import Schema
from pipelines.config import Config
from pipelines.features.feature_state import FeatureState, feature_state_of
from pipelines.features.held_by_entity import HeldRow
from pipelines.features.held_events import HeldEvents, measure_ahead
from pipelines.features.plain_frame import plain_list
from pipelines.ingest.contract import FollowedSource
from pipelines.ingest.followed import open_followed
from pipelines.jobs.context import ProcessCache
from pipelines.rules.run import RuleRun
from pipelines.rules.serving import rule_book_at, switch_off
from pipelines.scoring.day_flags import flagged_by_day
from pipelines.scoring.load import load_scorer
from pipelines.scoring.marks import LatestMarks, marks_of
from pipelines.scoring.table import TableBatchScorer
from pipelines.sources.formats import events_with_formats
from pipelines.store import Store

PATIENCE = 5.0
"""Seconds that a request waits for the features of a large batch; then it is told to come again."""


class BusyError(DetectorError, RuntimeError):
    """The request cannot be answered now or here, and may be asked again."""


@dataclass(frozen=True)
class EventColumns:
    """What is read of an event.

    - ``needed``: the columns that it must have.
    - ``read``: all that change what is said of it.
    - ``valued``: those of the needed that must have a value: null is not accepted.
    """

    needed: tuple[str, ...]
    read: frozenset[str]
    valued: frozenset[str]

    @classmethod
    def of(cls, config: Config, schema: Schema, state: FeatureState | None) -> EventColumns:
        """The columns that a detector, and the features it learnt with, read of events."""
        optional, measured = set[str](), tuple[str, ...]()
        if state is not None:
            schema = state.engine.raw_schema(schema)
            optional, measured = set(state.engine.reader.optional), state.engine.features.names
        wanted = [*schema.features, *(name for role, name in schema.roles.items() if role != "label")]
        needed = tuple(name for name in dict.fromkeys(wanted) if name not in optional)
        valued = frozenset(name for name in (schema.key, schema.time) if name is not None)
        return cls(needed, frozenset({*needed, *optional, *measured, *config.columns.for_rules}), valued)


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


class EventScorer:
    """Scores events by the detector that serves, against the past of the service.

    - ``is_leader``: only the instance that leads knows the past up to now.
    """

    def __init__(self, config: Config, store: Store, cache: ProcessCache, *, is_leader: Callable[[], bool]) -> None:
        self.config = config
        self.store = store
        self.cache = cache
        self.is_leader = is_leader
        self.held = HeldEvents(store, config.name, hours=config.service.api.hold_hours)
        self.formats = config.source.complete_formats
        self._columns: tuple[TableBatchScorer, FeatureState | None, EventColumns] | None = None

    @property
    def columns(self) -> EventColumns:
        """The columns of events.

        Raises ``DataError`` if rows are readings of sensors.
        """
        return self.columns_of(self.scorer(), self.state())

    def columns_of(self, scorer: TableBatchScorer, state: FeatureState | None) -> EventColumns:
        """The columns that a detector, and the features it learnt with, read of events."""
        if self._columns is None or self._columns[0] is not scorer or self._columns[1] is not state:
            self._columns = scorer, state, EventColumns.of(self.config, scorer.schema, state)
        return self._columns[2]

    def score(self, events: pd.DataFrame, *, now: datetime, explain: bool, keep: bool) -> ScoredEvents:
        """Score events as the next batch would, if it held just these.

        - ``events``: as they came, labelled 0, 1, …; text is in the form that ``source.formats`` declares.
        - ``explain``: whether each gets reasons, flagged or not.
        - ``keep``: whether later events are to count these, until the source brings them.

        Raises ``DataError`` if rows are readings of sensors; ``SchemaError`` if a column is missing; ``BusyError`` if
        another instance leads, or a large batch is in hand.
        """
        scorer, state = self.scorer(), self.state()
        events = events_with_formats(events, self.formats)
        reader, typed = ColumnReader(events), None
        if state is not None:
            self.check_leads()
            typed = state.engine.reader.read(events, reader)
        frame, refused, known = events, dict[int, str](), set[int]()
        with self._look(state) as (connection, marks):
            book = rule_book_at(self.config, connection, scorer.schema, self.cache, latest=marks.rule_change)
            if state is not None and typed is not None:
                frame, refused, known = self._measured(events, typed, state, connection, marks, now=now)
        cleaned = clean(frame, scorer.schema, positions=frame.index, reader=reader.over(frame))
        refused |= dict(zip(cleaned.unusable.index.tolist(), cleaned.why, strict=True))
        rules, rows = None if book is None else RuleRun(book, now=now), cleaned.rows
        if rules is not None:
            rows = rules.with_columns(rows, frame)
        scoring = TableScoring(scorer.scorer, scorer.policy, explains=False, overrides=rules)
        scoring.add(rows)
        scores, note = self._decided(scoring, rules, scorer if explain else None, rows, now=now)
        held = 0
        if keep and state is not None and len(cleaned.rows):
            new = [label for label in cleaned.rows.index if label not in known]
            held = self._hold(events.loc[new], state, reader, now=now)
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
        used = partial(flagged_by_day, self.store, self.config.name)
        if rules is None:
            decision = scoring.decision(used)
            flagged = decision.flagged
        else:
            decision, flagged = rules.decide(scoring, used)
        (scores,) = scoring.scores(flagged)
        if explainer is not None and len(rows):
            spoken = [explainer.wording.reasons(each) for each in explainer.scorer.explain(rows)]
            scores["reasons"] = pd.Series(spoken, index=scores.index, dtype=object)
        if rules is not None:
            (scores,) = rules.annotate(iter([scores]))
            if rules.left_out:
                with self.store.write() as session:
                    switch_off(session, rules.left_out, config=self.config, now=now)
        return scores, decision.note

    @contextlib.contextmanager
    def _look(self, state: FeatureState | None) -> Iterator[tuple[Connection, LatestMarks]]:
        """A look at how far the service has come; with features, not while a batch is measured."""
        with contextlib.nullcontext() if state is None else self.in_turn(state), self.store.look() as connection:
            yield connection, marks_of(connection, self.config.name)

    def _measured(
        self,
        events: pd.DataFrame,
        typed: pd.DataFrame,
        state: FeatureState,
        connection: Connection,
        marks: LatestMarks,
        *,
        now: datetime,
    ) -> tuple[pd.DataFrame, dict[int, str], set[int]]:
        """The events with their features, why some cannot have any, and those that the source has brought already."""
        engine, key = state.engine, state.engine.features.key
        times = events[engine.features.time].tolist()
        history, in_hand = state.history_for(times, lambda: self.followed(state), marks.batch)
        known_by = KnownBy.of(history, typed)
        self.held.follow(connection, last=marks.last_held, gone=(marks.batch, marks.trail), now=now)
        near = self.held.near(engine, known_by)
        if near and key is not None:
            own = in_hand.union(map(str, known_by.keys))
            near = {name: row for name, row in near.items() if name not in own}
        return measure_ahead(engine, history, events, near, now=now, typed=typed, known_by=known_by)

    def _hold(self, events: pd.DataFrame, state: FeatureState, reader: ColumnReader, *, now: datetime) -> int:
        key = state.engine.features.key
        if key is None or events.empty:
            return 0  # whatever the source brings could not be told from it
        keys = reader.names(key).loc[events.index].astype(str)
        wanted = [name for name in self.to_hold(state) if name in events]
        rows = zip(*(plain_list(events[name]) for name in wanted), strict=True)
        held = (HeldRow(dict(zip(wanted, row, strict=True)), now) for row in rows)
        return self.held.hold(dict(zip(keys, held, strict=True)))

    @staticmethod
    def to_hold(state: FeatureState) -> tuple[str, ...]:
        """The columns that are kept of an event that is held."""
        return tuple(dict.fromkeys((*state.engine.reader.needs, str(state.engine.features.key))))

    def check_leads(self) -> None:
        """Raise ``BusyError`` if another instance leads."""
        if not self.is_leader():
            raise BusyError("Another instance leads, and only that one knows the past up to now: ask it.")

    def scorer(self) -> TableBatchScorer:
        """The detector that serves.

        Raises ``DataError`` if it scores readings of sensors.
        """
        scorer = load_scorer(self.config, self.cache)
        if not isinstance(scorer, TableBatchScorer):
            raise DataError("Readings of sensors are scored with those around them: send them through the source.")
        return scorer

    def state(self) -> FeatureState | None:
        """What features know of the past; None without features."""
        return feature_state_of(self.config, self.store, self.cache)

    def followed(self, state: FeatureState) -> FollowedSource:
        """The source, with all that features need of it."""
        schema = state.engine.raw_schema(self.scorer().schema)
        return open_followed(self.config, self.store, schema, also=state.engine.reader.optional)

    @contextlib.contextmanager
    def in_turn(self, state: FeatureState) -> Iterator[None]:
        """Wait for the batch in hand to be measured. Raises ``BusyError`` if that takes long."""
        if not state.lock.acquire(timeout=PATIENCE):
            raise BusyError("The features of a large batch are being measured. Ask again in a few seconds.")
        try:
            yield
        finally:
            state.lock.release()
