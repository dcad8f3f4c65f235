"""What every way into the service is given: its settings, its state, its memory, and who leads."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from fastapi import Request

from pipelines.api.keys import Caller
from pipelines.api.problems import ProblemError
from pipelines.config import Config
from pipelines.jobs.context import ProcessCache
from pipelines.scoring.event_batcher import EventBatcher
from pipelines.scoring.event_scorer import EventScorer
from pipelines.service.facts import Facts
from pipelines.store import Store


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class Doors:
    """One instance of the service, as those see it who ask."""

    config: Config
    store: Store
    facts: Facts
    cache: ProcessCache
    event_scorer: EventScorer
    batcher: EventBatcher
    clock: Callable[[], datetime] = _now
    memory: ProcessCache = field(default_factory=ProcessCache)
    """For what takes long to read, and nobody who scores is to wait for."""

    trying: threading.Lock = field(default_factory=threading.Lock)
    """Held while a rule is tried: one at a time."""

    @classmethod
    def of(cls, config: Config, store: Store, facts: Facts, *, clock: Callable[[], datetime] = _now) -> Doors:
        """The doors of an instance that knows itself by ``facts``."""
        asked = EventScorer(config, store, facts.cache, is_leader=facts.is_leader)
        return cls(config, store, facts, facts.cache, asked, EventBatcher(asked), clock)


def caller_of(request: Request) -> Caller:
    """Who asks; the guard has put it there."""
    caller: Caller = request.state.caller
    return caller


def needs(scope: str) -> Callable[[Request], Caller]:
    """A dependency: the caller, if they may do something of that scope."""

    async def check(request: Request) -> Caller:
        caller = caller_of(request)
        if not caller.may(scope):
            has = ", ".join(sorted(caller.scopes))
            raise ProblemError(403, f"This needs a key with the scope {scope}; the one that was used has {has}.")
        return caller

    return check  # type: ignore[return-value]  # FastAPI awaits it
