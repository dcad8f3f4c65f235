"""The jobs that the service runs: their names, what each is given and what each returns.

A job is a function of a ``Context`` that returns a ``JobOutcome``. It is registered by adding it to ``JOBS`` under the
name of its section in ``service.jobs``. A job that needs TensorFlow or MLflow runs as a command of its own, see
``as_command``: the memory it took comes back when it ends.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from detector.errors import NotFoundError, nearest
from pipelines.jobs.context import Context, JobOutcome

if TYPE_CHECKING:
    from pipelines.config import Config

Job = Callable[[Context], JobOutcome]


_MODULES: list[str] = []
"""Where the jobs are that run in this process; complete once this module is imported."""


def load_jobs() -> None:
    """Import every job that runs in this process, before threads begin to: two that import at once can block."""
    for module in (*_MODULES, "pipelines.jobs.subprocess"):
        import_module(module)


def _lazily(module: str, name: str) -> Callable[[Context], Any]:
    """A function whose module is imported when it is first called, so that a command loads no other job."""
    _MODULES.append(module)

    def run(context: Context) -> Any:
        return getattr(import_module(module), name)(context)

    return run


def as_command(command: str, *, seconds: Callable[[Config], float] | None = None, takes: Sequence[str] = ()) -> Job:
    """A job that runs as ``detector COMMAND CONFIG`` in a process of its own.

    After CONFIG come those of its arguments that ``takes`` names; whoever asks for the job has checked them.

    The last line the command prints may be a JSON object with the fields of ``JobOutcome`` (``rows``, ``note``,
    ``outcome``, ``facts``, ``gauges``, ``then``); otherwise that line is the note. An exit code other than 0 is a
    failure, whose message is the end of what the command wrote to standard error. The number of the run is in the
    environment as ``DETECTOR_RUN``. When the service is to end, or after ``seconds``, the command gets SIGTERM.
    """

    def run(context: Context) -> JobOutcome:
        from pipelines.jobs.subprocess import run_command

        words = [str(context.arguments.get(name, "")) for name in takes]
        return run_command(command, context, words, seconds=None if seconds is None else seconds(context.config))

    return run


JOBS: dict[str, Job] = {
    "score": _lazily("pipelines.scoring.job", "score_new"),
    "retrain": as_command("retrain", seconds=lambda config: 60 * config.retrain.timeout_minutes),
    "drift": as_command("drift"),
    "compare": as_command("models compare", takes=("first", "second")),
    "deliver": _lazily("pipelines.service.housekeeping", "deliver"),
    "housekeeping": _lazily("pipelines.service.housekeeping", "tidy"),
    "backfill": _lazily("pipelines.scoring.replay", "backfill"),
    "replay": _lazily("pipelines.scoring.replay", "replay"),
}
"""Every job by its name; ``service.jobs`` says when, and compare, backfill and replay run only when asked for."""


def job_of(name: str) -> Job:
    """A job by its name.

    Raises ``NotFoundError`` if there is none.
    """
    if name not in JOBS:
        raise NotFoundError(f"There is no job {name!r}. {nearest(name, JOBS)}")
    return JOBS[name]


DELIVERIES: dict[str, Callable[[Context], JobOutcome | int]] = {
    "alerts": _lazily("pipelines.alerts.delivery.deliver", "deliver"),
    "mlflow": _lazily("pipelines.tracking.messages", "deliver_tracking"),
}
"""What waits to be sent out: each function sends what it can and says how many, or all that it did."""
