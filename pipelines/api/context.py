"""What every handler of the API and the console is given: the settings, state, caches and scorer of the service."""

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
class AppContext:
    """What requests to one instance of the service share.

    - ``cache``: What the jobs keep in memory too, such as the detector that serves.
    - ``memory``: What takes long to read, in a cache of its own, so that nobody who scores waits for it.
    - ``trying``: Held while a rule is tried, one at a time.
    """

    config: Config
    store: Store
    facts: Facts
    cache: ProcessCache
    event_scorer: EventScorer
    batcher: EventBatcher
    clock: Callable[[], datetime] = _now
    memory: ProcessCache = field(default_factory=ProcessCache)
    trying: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def of(cls, config: Config, store: Store, facts: Facts, *, clock: Callable[[], datetime] = _now) -> AppContext:
        """That of an instance; ``facts`` says whether it leads, and holds its cache."""
        scorer = EventScorer(config, store, facts.cache, is_leader=facts.is_leader)
        return cls(config, store, facts, facts.cache, scorer, EventBatcher(scorer), clock)


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
