"""Events that programs ask about one by one, scored and held in groups: what a group needs once is not done for each.

Two threads work. One scores all that has come while it scored those before. The other holds, in one transaction, all
that was scored while the one before was under way. An event is answered after the transaction that holds it, and after
those that hold what it counts.

Where a transaction fails, its events fail. Those that were scored meanwhile may have counted them, so they are scored
again; nobody has heard of them yet.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from detector.cleaning.plain import NotPlainError
from detector.errors import DetectorError
from pipelines.features.held_by_entity import HeldRow, PendingEvents
from pipelines.scoring.event_scorer import EventScorer
from pipelines.scoring.one_event import EventRequest, ScoredEvent, score_together
from pipelines.scoring.worker import Worker

log = logging.getLogger("detector.api")

MOST = 16
"""Events that are scored together: as many as the members take for the price of one."""


@dataclass(frozen=True, eq=False)
class _Waiting:
    """An event that somebody waits for."""

    request: EventRequest
    answer: Future[ScoredEvent] = field(default_factory=Future)


@dataclass(frozen=True, eq=False)
class _Scored:
    """One whose answer must wait for a transaction."""

    waiting: _Waiting
    found: ScoredEvent


class EventBatcher:
    """Scores events together with whatever else is asked at that time."""

    def __init__(self, scorer: EventScorer) -> None:
        self.scorer = scorer
        self._pending = PendingEvents()
        self._counting = threading.Lock()
        """Held while events are scored that may count others which are pending."""
        self._scoring = Worker("scoring", self._score, most=MOST)
        self._holding = Worker("holding", self._hold)

    def ask(self, request: EventRequest) -> Future[ScoredEvent]:
        """What ``score_together`` says of an event, later; it has been held by then."""
        waiting = _Waiting(request)
        waiting.answer.set_running_or_notify_cancel()  # from now on nobody can cancel it
        self._scoring.put([waiting])
        return waiting.answer

    def _score(self, waiting: Sequence[_Waiting]) -> None:
        with self._counting:
            try:
                found = score_together(self.scorer, [each.request for each in waiting], self._pending)
            except Exception as error:  # noqa: BLE001 - those who wait are told
                wrong = error
            else:
                self._holding.put(_answered(waiting, found))
                return
        if len(waiting) == 1 or isinstance(wrong, DetectorError | NotPlainError):
            _fail(waiting, wrong)
            return
        log.warning("%d events could not be scored together, and are scored one by one: %r", len(waiting), wrong)
        for each in waiting:
            self._score([each])

    def _hold(self, scored: Sequence[_Scored]) -> None:
        try:
            self.scorer.held.hold(_rows(scored))
        except Exception as error:  # noqa: BLE001 - those who wait are told
            self._undo(scored)
            _fail([each.waiting for each in scored if each.found.to_hold is not None], error)
            return
        self._pending.note_held(_rows(scored))
        for each in scored:
            each.waiting.answer.set_result(each.found)

    def _undo(self, scored: Sequence[_Scored]) -> None:
        """Have nothing count what was not held: whatever may have done so is scored again, in its order."""
        with self._counting:
            later = [*(each for each in scored if each.found.to_hold is None), *self._holding.take_back()]
            self._pending.take_away(_rows([*scored, *later]))
            self._scoring.put([each.waiting for each in later], first=True)


def _answered(waiting: Sequence[_Waiting], found: Sequence[ScoredEvent | NotPlainError]) -> list[_Scored]:
    """Answer those who need not wait any longer; the others."""
    later = []
    for each, said in zip(waiting, found, strict=True):
        if isinstance(said, NotPlainError):
            each.answer.set_exception(said)
        elif said.to_hold is None and not said.counts_pending:
            each.answer.set_result(said)
        else:
            later.append(_Scored(each, said))
    return later


def _rows(scored: Sequence[_Scored]) -> dict[str, HeldRow]:
    """What is to be held, by key, in the order in which it came: of one key, the last."""
    rows: dict[str, HeldRow] = {}
    for each in scored:
        if each.found.to_hold is not None:
            rows.pop(each.found.held_as, None)
            rows[each.found.held_as] = each.found.to_hold
    return rows


def _fail(waiting: Sequence[_Waiting], error: Exception) -> None:
    for each in waiting:
        each.answer.set_exception(error)
