"""What a job is given, what it returns, and what one process keeps from run to run."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from pipelines.config import Config
    from pipelines.store import Store

Kept = TypeVar("Kept")


class ProcessCache:
    """Keeps one value a name, as long as it is asked for under the same token. Threads may share it.

    >>> cache = ProcessCache()
    >>> cache.of("detector", "version 1", list) is cache.of("detector", "version 1", list)
    True
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._kept: dict[Hashable, tuple[object, Any]] = {}

    def of(self, name: Hashable, token: object, make: Callable[[], Kept]) -> Kept:
        """The value of that name, made anew if it was kept under another token."""
        with self._lock:
            found = self._kept.get(name)
            if found is None or found[0] != token:
                found = (token, make())
                self._kept[name] = found
            return cast("Kept", found[1])


Outcome = Literal["done", "skipped"]


def _nothing(_: Session) -> None:
    """No other instance can be in the way."""


@dataclass(frozen=True)
class Context:
    """What a job is given.

    - ``config``: as it is when the run begins.
    - ``now``: when the run began, with a time zone.
    - ``run``: the number of the run's record.
    - ``arguments``: what ``detector backfill``, ``detector replay`` and the like ask for beyond the name of the job.
    - ``stopping``: true once the service is to end: no further step is begun.
    - ``abandoning``: true once there is no time left for the step in hand either; ``checkpoint`` ends it.
    - ``fence``: to be called with the session of a transaction, last thing before its commit. It raises ``StoreError``
      if another instance has become the leader meanwhile, so that nothing of this one is kept.
    - ``cache``: what earlier runs in this process have loaded.
    """

    config: Config
    store: Store
    now: datetime
    run: int = 0
    arguments: Mapping[str, Any] = field(default_factory=dict)
    stopping: Callable[[], bool] = lambda: False
    abandoning: Callable[[], bool] = lambda: False
    fence: Callable[[Session], None] = _nothing
    cache: ProcessCache = field(default_factory=ProcessCache)

    def checkpoint(self) -> None:
        """To be called every now and then in a long step.

        Raises ``StoppedError`` if the step is to be undone, because the service ends.
        """
        if self.abandoning():
            raise StoppedError("The service ends; the step in hand was undone, and is done anew at the next start.")


class StoppedError(Exception):
    """A step was undone because the service ends."""


@dataclass(frozen=True)
class JobOutcome:
    """What a job did; kept with the record of its run.

    - ``note``: one sentence for people.
    - ``outcome``: "done", "skipped". Skipped if there was nothing to do. A job that fails raises.
    - ``facts``: figures worth keeping, as JSON can hold them.
    - ``gauges``: figures for ``/metrics``: ``{"drift": 0.12}``, ``{"drift:amount": 0.3}``, ``{"alerts": 4}``.
    - ``then``: jobs to run next, such as ``("retrain",)`` after a drift.
    """

    rows: int = 0
    note: str = ""
    outcome: Outcome = "done"
    facts: Mapping[str, Any] = field(default_factory=dict)
    gauges: Mapping[str, float] = field(default_factory=dict)
    then: tuple[str, ...] = ()
