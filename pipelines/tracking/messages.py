"""What jobs record in MLflow about detectors. All of it goes through the spool: a server that is down delays it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING

from pipelines.config import Config
from pipelines.registry.models_file import Promotion
from pipelines.registry.registry import ModelRegistry
from pipelines.tracking.address import reachable
from pipelines.tracking.sending import Sent, flush_spool
from pipelines.tracking.spool import Spool

if TYPE_CHECKING:
    from pipelines.jobs.context import Context

CHALLENGER = "challenger"
MOST_TAG = 4_900


def spool_of(config: Config) -> Spool:
    """What waits to be sent, beside the detectors of a configuration."""
    return Spool(ModelRegistry(config.bundle).folder / "spool")


def flush_tracking(config: Config) -> Sent:
    """Send MLflow what waits, if it answers; the first attempt after a failure sends it all."""
    return flush_spool(spool_of(config), config.tracking.uri) if config.tracking.enabled else Sent()


def deliver_tracking(context: Context) -> int:
    """Send MLflow what waits, in a process of its own: the service itself never loads MLflow.

    Returns how many entries were sent; 0, at once, if none waits or the server is down.
    """
    config = context.config
    if not config.tracking.enabled or not spool_of(config).waiting() or reachable(config.tracking.uri):
        return 0
    from pipelines.jobs.subprocess import run_command

    return run_command("models flush", context).rows


def experiment_of(config: Config) -> str:
    """The experiment of trainings and decisions."""
    return config.tracking.experiment or config.name


def model_of(config: Config) -> str:
    """The name of the registered model."""
    return config.tracking.model or config.name


def waiting_note(sent: Sent) -> list[str]:
    """What to say of entries that could not be sent yet."""
    if not sent.waiting:
        return []
    what = "1 record waits" if sent.waiting == 1 else f"{sent.waiting:,} records wait"
    return [f"{what} for MLflow and will be sent later: {sent.fault}"]


def record_promotion(config: Config, promotion: Promotion, *, job: str = "promotion", own_run: bool = False) -> None:
    """Let the registry's alias follow a promotion on disk.

    - ``promotion``: as the registry made it.
    - ``job``: what made it: "promotion", "rollback", "retrain".
    - ``own_run``: whether the promotion gets a run of its own, as one that a person made; a retraining has one already.
    """
    if not config.tracking.enabled:
        return
    at = datetime.fromisoformat(promotion.at)
    change = {"rollback": "rolled back to"}.get(job, "promoted")
    spool_of(config).put(
        "move",
        {
            "experiment": experiment_of(config),
            "model_name": model_of(config),
            "bundle": promotion.to,
            "alias": config.tracking.alias,
            "drop": CHALLENGER,
            "tags": cut({"last move": f"{change}, {at:%Y-%m-%d %H:%M}", "reason": promotion.why}),
            "decision": change,
            "run": f"{job}: v{{version}} serves" if own_run else "",
            "job": job,
            "note": f"## {job.capitalize()}\n\n{promotion.why}\n\n- serves now: {promotion.to}\n"
            f"- before: {promotion.before}",
            "at": at.timestamp(),
        },
    )


def record_note(
    config: Config,
    *,
    run: str,
    note: str,
    tags: Mapping[str, str],
    started: float,
    ended: float,
    metrics: Mapping[str, float] | None = None,
    failed: bool = False,
) -> None:
    """Leave a run without a model: why nothing was trained, or what went wrong."""
    if not config.tracking.enabled:
        return
    spool_of(config).put(
        "note",
        {
            "experiment": experiment_of(config),
            "run": run,
            "tags": cut(tags),
            "note": note,
            "metrics": dict(metrics or {}),
            "failed": failed,
            "started": started,
            "ended": ended,
        },
    )


def record_monitoring(
    config: Config, *, metrics: Mapping[str, float], step: int, at: datetime, tags: Mapping[str, str], note: str
) -> None:
    """Add a point to the time series of the monitoring run."""
    if not config.tracking.enabled:
        return
    spool_of(config).put(
        "monitoring",
        {
            "experiment": f"{experiment_of(config)} monitoring",
            "model_name": model_of(config),
            "metrics": dict(metrics),
            "step": step,
            "at": at.timestamp(),
            "tags": cut(tags),
            "note": note,
        },
    )


def cut(tags: Mapping[str, str]) -> dict[str, str]:
    """Tags as MLflow takes them: text of at most 5,000 characters.

    >>> cut({"decision": "keep"})
    {'decision': 'keep'}
    """
    return {name: str(value)[:MOST_TAG] for name, value in tags.items()}
