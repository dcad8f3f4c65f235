"""The jobs that the service runs: their names, what each is given and what each returns.

A job is a function of a ``Context`` that returns a ``JobOutcome``. It is registered by adding it to ``JOBS`` under the
name of its section in ``service.jobs``. A job that needs TensorFlow or MLflow runs as a command of its own, see
``as_command``: the memory it took comes back when it ends.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

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
    """

    config: Config
    store: Store
    now: datetime
    run: int = 0
    arguments: Mapping[str, Any] = field(default_factory=dict)
    stopping: Callable[[], bool] = lambda: False
    abandoning: Callable[[], bool] = lambda: False
    fence: Callable[[Session], None] = _nothing

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


Job = Callable[[Context], JobOutcome]


def _lazily(module: str, name: str) -> Callable[[Context], Any]:
    """A function whose module is imported when it is first called."""

    def run(context: Context) -> Any:
        return getattr(import_module(module), name)(context)

    return run


def as_command(command: str, *, seconds: Callable[[Config], float] | None = None) -> Job:
    """A job that runs as ``detector COMMAND CONFIG`` in a process of its own.

    The last line the command prints may be a JSON object with the fields of ``JobOutcome`` (``rows``, ``note``,
    ``outcome``, ``facts``, ``gauges``, ``then``); otherwise that line is the note. An exit code other than 0 is a
    failure, whose message is the end of what the command wrote to standard error. The number of the run is in the
    environment as ``DETECTOR_RUN``. When the service is to end, or after ``seconds``, the command gets SIGTERM.
    """

    def run(context: Context) -> JobOutcome:
        from pipelines.commands import run_command

        return run_command(command, context, seconds=None if seconds is None else seconds(context.config))

    return run


JOBS: dict[str, Job] = {
    "score": _lazily("pipelines.incremental", "score_new"),
    "retrain": as_command("retrain", seconds=lambda config: 60 * config.retrain.timeout_minutes),
    "drift": as_command("drift"),
    "deliver": _lazily("pipelines.housekeeping", "deliver"),
    "housekeeping": _lazily("pipelines.housekeeping", "tidy"),
    "backfill": _lazily("pipelines.again", "backfill"),
    "replay": _lazily("pipelines.again", "replay"),
}
"""Every job by its name; ``service.jobs`` says when, and the last two run only when asked for."""

DELIVERIES: dict[str, Callable[[Context], JobOutcome | int]] = {
    "alerts": _lazily("pipelines.alerts.delivery", "deliver"),
    "mlflow": _lazily("pipelines.telling", "deliver_tracking"),
}
"""What waits to be sent out: each function sends what it can and says how many, or all that it did."""
