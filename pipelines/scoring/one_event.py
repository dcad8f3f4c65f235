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
from sqlalchemy.orm import Session

from detector.cleaning.plain import Cell, NotPlainError, plain_row
from detector.detectors.table.model import RowRisks
from detector.features.excerpt import KnownBy, known_rows
from pipelines.features.feature_state import FeatureState
from pipelines.features.held_by_entity import HeldRow, PendingEvents
from pipelines.features.one_row import measure_one, read_one
from pipelines.rules.serving import rule_book_at
from pipelines.scoring.event_scorer import EventScorer, flagged_by_day
from pipelines.scoring.marks import LatestMarks, marks_of
from pipelines.scoring.table import TableBatchScorer
from pipelines.sources.formats import needs_form


@dataclass(frozen=True)
class AskedEvent:
    """An event that is asked about.

    - ``event``: as it came.
    - ``keep``: whether later events are to count it.
    - ``admits``: whether whoever asks may, by a look at the state.
    """

    event: Mapping[str, Any]
    keep: bool
    now: datetime
    admits: Callable[[Session], bool] = lambda _: True


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
class _Read:
    """An event with all that the members need of it; see ``ScoredEvent``.

    - ``key``: what it is held by.
    - ``cells``: as cleaned.
    """

    key: str
    cells: Mapping[str, Cell]
    to_hold: HeldRow | None = None
    counts_pending: bool = False


def score_together(
    events: EventScorer, asked: Sequence[AskedEvent], pending: PendingEvents
) -> list[ScoredEvent | NotPlainError]:
    """Score events in their order, each as if it had come by itself after those before it.

    The state is looked at once, and the members are asked once. What is to be held is among ``pending`` from then on.

    Raises ``NotPlainError`` where it takes ``EventScorer.score`` for all of them, and gives back one for each for which
    it does, or whose sender may not ask; ``BusyError`` and ``DataError`` as that does. Then nothing is pending that was
    not before.
    """
    scorer, read = events.scorer(), list[_Read | NotPlainError]()
    if not scorer.scorer.measures_plain:
        raise NotPlainError
    try:
        read += _read(events, asked, scorer, pending)
        scored = iter(_decided(events, scorer, [each for each in read if isinstance(each, _Read)]))
        return [next(scored) if isinstance(each, _Read) else each for each in read]
    except BaseException:
        pending.take_away({each.key: each.to_hold for each in read if isinstance(each, _Read) and each.to_hold})
        raise


def _check_rules(events: EventScorer, session: Session, scorer: TableBatchScorer, marks: LatestMarks) -> None:
    """Raise ``NotPlainError`` if there are rules."""
    if rule_book_at(events.config, session, scorer.schema, events.cache, latest=marks.rule_change) is not None:
        raise NotPlainError


def _read(
    events: EventScorer, asked: Sequence[AskedEvent], scorer: TableBatchScorer, pending: PendingEvents
) -> Iterator[_Read | NotPlainError]:
    """The events, with what features know of their past; one that is to be held is pending for those after it."""
    state = events.state()
    needed = events.columns_of(scorer, state).needed
    if state is None:
        with events.store.read() as session:
            _check_rules(events, session, scorer, marks_of(session, events.config.name))
            admitted = [each.admits(session) for each in asked]
        for each, admits in zip(asked, admitted, strict=True):
            is_plain = admits and not _has_forms(events, each)
            yield _unless_odd(partial(_plain, each, scorer)) if is_plain else NotPlainError()
        return
    events.check_leads()
    with events.in_turn(state):
        with pending.settled(), events.store.read() as session:
            marks = marks_of(session, events.config.name)
            _check_rules(events, session, scorer, marks)
            admitted = [each.admits(session) for each in asked]
            events.held.follow(session, last=marks.last_held, gone=(marks.batch, marks.trail), now=asked[-1].now)
        for each, admits in zip(asked, admitted, strict=True):
            if not admits or any(name not in each.event for name in needed) or _has_forms(events, each):
                yield NotPlainError()
                continue
            found = _unless_odd(partial(_measured, events, each, scorer, state, pending, mark=marks.batch))
            if isinstance(found, _Read) and found.to_hold is not None:
                pending.add(found.key, found.to_hold)
            yield found


def _has_forms(events: EventScorer, asked: AskedEvent) -> bool:
    """Whether a value is in a form that is declared."""
    return any(name in asked.event and needs_form(asked.event[name], form) for name, form in events.formats.items())


def _unless_odd(read: Callable[[], _Read]) -> _Read | NotPlainError:
    try:
        return read()
    except NotPlainError as error:
        return error


def _plain(asked: AskedEvent, scorer: TableBatchScorer) -> _Read:
    return _Read("", plain_row(asked.event, scorer.schema))


def _measured(
    events: EventScorer,
    asked: AskedEvent,
    scorer: TableBatchScorer,
    state: FeatureState,
    pending: PendingEvents,
    *,
    mark: int,
) -> _Read:
    """An event with its features, and what is to be held of it."""
    engine, event = state.engine, asked.event
    latest = engine.latest(asked.now)
    typed = read_one(engine, event, latest=latest)
    key = None if engine.features.key is None else str(typed[engine.features.key])
    history, in_hand = state.history_for([event[engine.features.time]], lambda: events.followed(state), mark)
    known_by = KnownBy.of_one(history, typed)
    ahead = pending.read_near(engine, known_by, latest=latest)
    others = events.held.read_near(
        engine, known_by, latest=latest, but=lambda other: other == key or other in in_hand or other in ahead
    )
    others += [row for name, row in ahead.items() if name != key and name not in in_hand]
    features = measure_one(engine, history, typed, known_by, others)
    cells = plain_row({**event, **features}, scorer.schema)
    keeps = asked.keep and key is not None and not known_rows(history, known_by)[0]
    to_hold = HeldRow.of(event, events.to_hold(state), now=asked.now) if keeps else None
    return _Read(str(key), cells, to_hold, counts_pending=bool(ahead))


def _decided(events: EventScorer, batch: TableBatchScorer, read: Sequence[_Read]) -> list[ScoredEvent]:
    """What the policy says of each event by itself."""
    if not read:
        return []
    measured = batch.scorer.measure_plain([each.cells for each in read])
    return [_decided_one(events, batch, each, measured, place) for place, each in enumerate(read)]


def _decided_one(
    events: EventScorer, batch: TableBatchScorer, read: _Read, measured: RowRisks, place: int
) -> ScoredEvent:
    scorer, policy, cells = batch.scorer, batch.policy, read.cells
    own = slice(place, place + 1)
    risk, p_value = measured.risk[own], measured.p_value[own]
    day = None
    if policy.needs_day and scorer.schema.time is not None:
        day = np.array([cells[scorer.schema.time]], dtype="datetime64[us]").astype("datetime64[D]")
    decision = policy.decision(
        p_value,
        risk,
        day=day,
        used=lambda days: flagged_by_day(events.store, events.config.name, days),
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
    return ScoredEvent(values, key, batch.version, read.to_hold, read.counts_pending, decision.note)
