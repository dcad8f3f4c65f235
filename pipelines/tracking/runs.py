"""Runs in MLflow: made, filled and ended."""

from __future__ import annotations

import getpass
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import detector
from pipelines.tracking.address import mask_passwords
from pipelines.tracking.facts import allowed_names, flat_params

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from mlflow import MlflowClient
    from mlflow.entities import Run

ENTRY = "mlflow.detector.entry"  # MLflow's pages hide tags that begin so
BUNDLE = "detector.bundle"
Point = tuple[int, str, float]
"""Milliseconds since 1970, the metric, its value."""


def create_run(
    client: MlflowClient,
    experiment: str,
    name: str,
    *,
    tags: Mapping[str, str],
    description: str = "",
    parent: str | None = None,
    started: float | None = None,
) -> Run:
    """Begin a run.

    - ``name``: what a reviewer reads in the list.
    - ``tags``: columns of that list.
    - ``description``: Markdown.
    - ``parent``: the run it hangs below; under ``mlflow run`` that command's.
    - ``started``: when the work began, in seconds since 1970; now by default.
    """
    noted = {"mlflow.source.name": f"detector {tags.get('job', 'train')}", "mlflow.user": getpass.getuser()}
    noted["detector.version"] = str(detector.__version__)
    if description:
        noted["mlflow.note.content"] = description
    outer = os.environ.get("MLFLOW_RUN_ID")  # set by `mlflow run`
    if parent is None and outer and os.environ.get("MLFLOW_EXPERIMENT_ID") == experiment:
        parent = outer
    if parent is not None:
        noted["mlflow.parentRunId"] = parent
    begun = None if started is None else round(started * 1000)
    return client.create_run(experiment, run_name=name, tags=noted | dict(tags), start_time=begun)


@contextmanager
def closing(client: MlflowClient, run_id: str, *, ended: float | None = None) -> Iterator[None]:
    """End the run: finished, or failed if something goes wrong on the way."""
    status, at = "FAILED", None if ended is None else round(ended * 1000)
    try:
        yield
        status = "FINISHED"
    finally:
        _attempt(lambda: client.set_terminated(run_id, status, end_time=at), needed=status == "FINISHED")


def forget(client: MlflowClient, experiment: str, entry: str) -> None:
    """Remove the runs that an earlier attempt to send the same entry left, and the versions it registered."""
    for run in client.search_runs([experiment], filter_string=f"tags.`{ENTRY}` = '{entry}'", max_results=50):
        for version in client.search_model_versions(f"run_id = '{run.info.run_id}'"):
            client.delete_model_version(version.name, version.version)
        client.delete_run(run.info.run_id)


def log_settings(client: MlflowClient, run_id: str, params: Mapping[str, Any]) -> None:
    """Log settings with dots in their names."""
    from mlflow.entities import Param

    flat = flat_params(params)
    names = allowed_names(flat)
    settings = [Param(names[name], value) for name, value in flat.items()]
    for start in range(0, len(settings), 100):
        client.log_batch(run_id, params=settings[start : start + 100])


def log_curves(client: MlflowClient, run_id: str, curves: Mapping[str, Sequence[float]]) -> None:
    """Log one value an epoch."""
    from mlflow.entities import Metric

    now = time.time_ns() // 1_000_000
    _log_points(
        client,
        run_id,
        [
            Metric(f"epoch/{name}", float(value), now, epoch)
            for name, values in curves.items()
            for epoch, value in enumerate(values, start=1)
        ],
    )


def log_usage(client: MlflowClient, run_id: str, usage: Sequence[Point]) -> None:
    """Log what the machine did meanwhile, where MLflow's page for system metrics looks for it."""
    from mlflow.entities import Metric

    begun = min((at for at, _, _ in usage), default=0)
    points = [Metric(f"system/{name}", value, at, (at - begun) // 1000) for at, name, value in usage]
    _log_points(client, run_id, points)


def log_metrics(
    client: MlflowClient,
    run_id: str,
    metrics: Mapping[str, float | None],
    *,
    step: int = 0,
    at: float | None = None,
    model_id: str | None = None,
    dataset: Any = None,
) -> None:
    """Log final values, or one point of a time series; those that are None are left out."""
    from mlflow.entities import Metric

    now = time.time_ns() // 1_000_000 if at is None else round(at * 1000)
    names = allowed_names(metrics)
    linked: dict[str, Any] = {}
    if dataset is not None:
        linked = {"dataset_name": dataset.name, "dataset_digest": dataset.digest}
    _log_points(
        client,
        run_id,
        [
            Metric(names[name], float(value), now, step, model_id=model_id, run_id=run_id, **linked)
            for name, value in metrics.items()
            if value is not None
        ],
    )


def log_files(
    client: MlflowClient, run_id: str, figures: Mapping[str, Figure | bytes], texts: Mapping[str, str]
) -> None:
    """Log figures as PNG, and texts by their file names."""
    with tempfile.TemporaryDirectory() as folder:
        for name, text in texts.items():
            Path(folder, name).write_text(mask_passwords(text), encoding="utf-8")
        if figures:
            Path(folder, "figures").mkdir()
        for name, figure in figures.items():
            Path(folder, "figures", f"{name}.png").write_bytes(as_png(figure))
        if any(Path(folder).iterdir()):
            client.log_artifacts(run_id, folder)


def _log_points(client: MlflowClient, run_id: str, points: Sequence[Any]) -> None:
    for start in range(0, len(points), 1000):
        client.log_batch(run_id, metrics=points[start : start + 1000])


def _attempt(action: Callable[[], None], *, needed: bool) -> None:
    try:
        action()
    except Exception:
        if needed:  # else an earlier error is on its way and says more
            raise


def as_png(figure: Figure | bytes) -> bytes:
    """A figure as the bytes of a PNG, if it is not yet."""
    from pipelines.reports.style import to_png

    return figure if isinstance(figure, bytes) else to_png(figure)
