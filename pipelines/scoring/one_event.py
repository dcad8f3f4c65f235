"""Events that somebody asks about one by one, without a frame around them: what ``EventScorer.score`` says, sooner.

What is measured, decided and remembered is the same. What is odd about an event, and what only frames can tell (rules,
reasons, a head, members that read events before), is left to ``EventScorer.score``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

import numpy as np
from sqlalchemy.engine import Connection

from detector.cleaning.plain import Cell, NotPlainError, plain_row
from detector.detectors.table.model import RowRisks
from detector.features.excerpt import KnownBy, known_rows
from detector.schema import Schema
from pipelines.features.feature_state import FeatureState
from pipelines.features.held_by_entity import HeldRow, PendingEvents
from pipelines.features.one_row import measure_one, read_one
from pipelines.rules.serving import rule_book_at
from pipelines.scoring.day_flags import flagged_by_day
from pipelines.scoring.event_scorer import EventScorer
from pipelines.scoring.marks import LatestMarks, marks_of
from pipelines.scoring.table import TableBatchScorer
from pipelines.sources.formats import needs_form

Admits = Callable[[Connection, LatestMarks], bool]
"""Whether whoever asks may, by a look at the state and how far it has come."""


@dataclass(frozen=True)
class EventRequest:
    """An event that is asked about.

    - ``event``: as it came.
    - ``keep``: whether later events are to count it.
    - ``admits``: whether whoever asks may.
    """

    event: Mapping[str, Any]
    keep: bool
    now: datetime
    admits: Admits = lambda _, __: True


@dataclass(frozen=True)
class ScoredEvent:
    """What is said of an event.

    - ``values``: its risk, p-value, flag and severity, and what decided.
    - ``key``: as cleaned.
    - ``version``: of the detector.
    - ``to_hold``: what is to be held of it before this is said, so that later ones count it; None if nothing is.
    - ``counts_pending``: whether it counts events that are not held yet, and must be said after they are.
    - ``note``: why a false discovery rate is no promise.
    """

    values: Mapping[str, Any]
    key: Cell
    version: str
    to_hold: HeldRow | None = None
    counts_pending: bool = False
    note: str | None = None

    @property
    def held_as(self) -> str:
        """What it is held by."""
        return str(self.key)

    @property
    def held(self) -> int:
        """How many events it adds to the past of later ones."""
        return int(self.to_hold is not None)


@dataclass(frozen=True)
class _Prepared:
    """An event with all that the members need of it; see ``ScoredEvent``.

    - ``key``: what it is held by.
    - ``cells``: as cleaned.
    """

    key: str
    cells: Mapping[str, Cell]
    to_hold: HeldRow | None = None
    counts_pending: bool = False


def score_together(
    event_scorer: EventScorer, requests: Sequence[EventRequest], pending: PendingEvents
) -> list[ScoredEvent | NotPlainError]:
    """Score events in their order, each as if it had come by itself after those before it.

    The state is looked at once, and the members are asked once. What is to be held is among ``pending`` from then on.

    Raises ``NotPlainError`` where it takes ``EventScorer.score`` for all of them, and gives back one for each for which
    it does, or whose sender may not ask; ``BusyError`` and ``DataError`` as that does. Then nothing is pending that was
    not before.
    """
    batch_scorer, prepared = event_scorer.scorer(), list[_Prepared | NotPlainError]()
    if not batch_scorer.scorer.measures_plain:
        raise NotPlainError
    try:
        prepared += _prepare(event_scorer, requests, batch_scorer, pending)
        scored = iter(_decided(event_scorer, batch_scorer, [each for each in prepared if isinstance(each, _Prepared)]))
        return [next(scored) if isinstance(each, _Prepared) else each for each in prepared]
    except BaseException:
        pending.take_away({each.key: each.to_hold for each in prepared if isinstance(each, _Prepared) and each.to_hold})
        raise


def _check_rules(event_scorer: EventScorer, connection: Connection, schema: Schema, marks: LatestMarks) -> None:
    """Raise ``NotPlainError`` if there are rules."""
    config, cache = event_scorer.config, event_scorer.cache
    if rule_book_at(config, connection, schema, cache, latest=marks.rule_change) is not None:
        raise NotPlainError


def _prepare(
    event_scorer: EventScorer, requests: Sequence[EventRequest], batch_scorer: TableBatchScorer, pending: PendingEvents
) -> Iterator[_Prepared | NotPlainError]:
    """The events, with what features know of their past; one that is to be held is pending for those after it."""
    state = event_scorer.state()
    needed = event_scorer.columns_of(batch_scorer, state).needed
    if state is None:
        with event_scorer.store.look() as connection:
            marks = marks_of(connection, event_scorer.config.name)
            _check_rules(event_scorer, connection, batch_scorer.schema, marks)
            admitted = [each.admits(connection, marks) for each in requests]
        for each, admits in zip(requests, admitted, strict=True):
            is_plain = admits and not _has_forms(event_scorer, each)
            yield _unless_odd(partial(_without_features, each, batch_scorer.schema)) if is_plain else NotPlainError()
        return
    event_scorer.check_leads()
    with event_scorer.in_turn(state):
        with pending.settled(), event_scorer.store.look() as connection:
            marks = marks_of(connection, event_scorer.config.name)
            _check_rules(event_scorer, connection, batch_scorer.schema, marks)
            admitted = [each.admits(connection, marks) for each in requests]
            event_scorer.held.follow(
                connection, last=marks.last_held, gone=(marks.batch, marks.trail), now=requests[-1].now
            )
        for each, admits in zip(requests, admitted, strict=True):
            if not admits or any(name not in each.event for name in needed) or _has_forms(event_scorer, each):
                yield NotPlainError()
                continue
            read = partial(_with_features, event_scorer, each, batch_scorer.schema, state, pending, mark=marks.batch)
            found = _unless_odd(read)
            if isinstance(found, _Prepared) and found.to_hold is not None:
                pending.add(found.key, found.to_hold)
            yield found


def _has_forms(event_scorer: EventScorer, request: EventRequest) -> bool:
    """Whether a value is in a form that is declared."""
    return any(
        name in request.event and needs_form(request.event[name], form) for name, form in event_scorer.formats.items()
    )


def _unless_odd(prepare: Callable[[], _Prepared]) -> _Prepared | NotPlainError:
    try:
        return prepare()
    except NotPlainError as error:
        return error


def _without_features(request: EventRequest, schema: Schema) -> _Prepared:
    return _Prepared("", plain_row(request.event, schema))


def _with_features(
    event_scorer: EventScorer,
    request: EventRequest,
    schema: Schema,
    state: FeatureState,
    pending: PendingEvents,
    *,
    mark: int,
) -> _Prepared:
    """An event with its features, and what is to be held of it."""
    engine, event = state.engine, request.event
    latest = engine.latest(request.now)
    typed = read_one(engine, event, latest=latest)
    key = None if engine.features.key is None else str(typed[engine.features.key])
    history, in_hand = state.history_for([event[engine.features.time]], lambda: event_scorer.followed(state), mark)
    known_by = KnownBy.of_one(history, typed)
    ahead = pending.read_near(engine, known_by, latest=latest)
    others = event_scorer.held.read_near(
        engine, known_by, latest=latest, but=lambda other: other == key or other in in_hand or other in ahead
    )
    others += [row for name, row in ahead.items() if name != key and name not in in_hand]
    features = measure_one(engine, history, typed, known_by, others)
    cells = plain_row({**event, **features}, schema)
    keeps = request.keep and key is not None and not known_rows(history, known_by)[0]
    to_hold = HeldRow.of(event, event_scorer.to_hold(state), now=request.now) if keeps else None
    return _Prepared(str(key), cells, to_hold, counts_pending=bool(ahead))


def _decided(
    event_scorer: EventScorer, batch_scorer: TableBatchScorer, prepared: Sequence[_Prepared]
) -> list[ScoredEvent]:
    """What the policy says of each event by itself."""
    if not prepared:
        return []
    measured = batch_scorer.scorer.measure_plain([each.cells for each in prepared])
    return [_decided_one(event_scorer, batch_scorer, each, measured, place) for place, each in enumerate(prepared)]


def _decided_one(
    event_scorer: EventScorer, batch_scorer: TableBatchScorer, prepared: _Prepared, measured: RowRisks, place: int
) -> ScoredEvent:
    scorer, policy, cells = batch_scorer.scorer, batch_scorer.policy, prepared.cells
    own = slice(place, place + 1)
    risk, p_value = measured.risk[own], measured.p_value[own]
    day = None
    if policy.needs_day and scorer.schema.time is not None:
        day = np.array([cells[scorer.schema.time]], dtype="datetime64[us]").astype("datetime64[D]")
    decision = policy.decision(
        p_value,
        risk,
        day=day,
        used=partial(flagged_by_day, event_scorer.store, event_scorer.config.name),
        support=scorer.support,
        learnt=float(measured.learnt[place]),
    )
    values = {
        "risk": float(risk[0]),
        "p_value": float(p_value[0]),
        "flagged": bool(decision.flagged[0]),
        "severity": str(scorer.severity(risk, p_value, decision.flagged)[0]),
        "decided_by": scorer.decided_by,
    }
    key = None if scorer.schema.key is None else cells[scorer.schema.key]
    return ScoredEvent(values, key, batch_scorer.version, prepared.to_hold, prepared.counts_pending, decision.note)
