"""What a job is given, and what it returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from pipelines.jobs.cache import ProcessCache

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from pipelines.config import Config
    from pipelines.store import Store

Outcome = Literal["done", "skipped"]


def _nothing(_: Session) -> None:
    """No other instance can be in the way."""


@dataclass(frozen=True)
class Context:
    """What a job is given.

    Parameters
    ----------
    config : Config
        As it was when the service started.
    store : Store
        The service's state.
    now : datetime
        When the run began, with a time zone.
    run : int
        The number of the run's record.
    arguments : mapping
        What ``detector backfill``, ``detector replay`` and the like ask for beyond the name of the job.
    stopping : callable
        True once the service is to end: no further step is begun.
    abandoning : callable
        True once there is no time left for the step in hand either; ``checkpoint`` ends it.
    fence : callable
        To be called with the session of a transaction, last thing before its commit. It raises ``StoreError`` if
        another instance has become the leader meanwhile, so that nothing of this one is kept.
    cache : ProcessCache
        What earlier runs in this process have loaded.
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

        Raises
        ------
        StoppedError
            If the step is to be undone, because the service ends.
        """
        if self.abandoning():
            raise StoppedError("The service ends; the step in hand was undone, and is done anew at the next start.")


class StoppedError(Exception):
    """A step was undone because the service ends."""


@dataclass(frozen=True)
class JobOutcome:
    """What a job did; kept with the record of its run.

    Parameters
    ----------
    rows : int
        Rows it dealt with.
    note : str
        One sentence for people.
    outcome : {"done", "skipped"}
        Skipped if there was nothing to do. A job that fails raises.
    facts : mapping
        Figures worth keeping, as JSON can hold them.
    gauges : mapping of str to float
        Figures for ``/metrics``: ``{"drift": 0.12}``, ``{"drift:amount": 0.3}``, ``{"alerts": 4}``.
    then : tuple of str
        Jobs to run next, such as ``("retrain",)`` after a drift.
    """

    rows: int = 0
    note: str = ""
    outcome: Outcome = "done"
    facts: Mapping[str, Any] = field(default_factory=dict)
    gauges: Mapping[str, float] = field(default_factory=dict)
    then: tuple[str, ...] = ()
