"""One training as one MLflow run, with its model registered."""

from __future__ import annotations

import getpass
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

import detector
import pipelines
from detector.errors import TrackingError
from detector.policy import Policy
from pipelines.pyfunc import policy_to_config
from pipelines.tracking.address import DATABASES, artifact_root, mask_passwords, open_command, scheme_of
from pipelines.tracking.facts import DatasetFacts, dataset_input, flat_params, signature_of, typed_columns
from pipelines.tracking.session import session

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from mlflow import MlflowClient
    from mlflow.entities import Run

EXAMPLE_ROWS = 5
# What a loaded model imports. Named, because MLflow would find out by starting a process.
REQUIREMENTS = ("numpy", "onnxruntime", "pandas")


@dataclass(frozen=True)
class LoggedModel:
    """Where a run and its model are.

    Parameters
    ----------
    run_id, experiment_id : str
        MLflow's ids.
    model_uri : str
        What ``mlflow.pyfunc.load_model`` takes: by alias if this version has it, else by version.
    version : int
        Of the registered model.
    alias : str or None
        The alias set on this version.
    url : str or None
        The run's page on the server; None for a local store.
    open_with : str or None
        For a local store, the command that opens it.
    """

    run_id: str
    experiment_id: str
    model_uri: str
    version: int
    alias: str | None
    url: str | None
    open_with: str | None


def log_training(
    *,
    uri: str,
    experiment: str,
    model_name: str,
    bundle: Path,
    example: pd.DataFrame,
    predictions: pd.DataFrame,
    dataset: DatasetFacts,
    params: Mapping[str, Any],
    metrics: Mapping[str, float],
    curves: Mapping[str, Sequence[float]] | None = None,
    figures: Mapping[str, Figure] | None = None,
    config_text: str = "",
    tags: Mapping[str, str] | None = None,
    description: str = "",
    policy: Policy | None = None,
    alias: str = "champion",
    promote: bool = True,
) -> LoggedModel:
    """Record one training as a run, register its model, and let it serve.

    Parameters
    ----------
    uri : str
        The tracking store, see `reachable`.
    experiment, model_name : str
        Made if they do not exist.
    bundle : Path
        The folder that ``detector.bundle.save`` wrote.
    example : DataFrame
        Rows as the model takes them, without the label; the first 5 are kept as the example.
    predictions : DataFrame
        What the model says of ``example``.
    dataset : DatasetFacts
        Which rows it learnt from.
    params : mapping
        The settings; nested mappings become names with dots.
    metrics : mapping
        Final values; missing ones (None) are left out.
    curves : mapping, optional
        One value an epoch, logged as ``epoch/<name>``.
    figures : mapping, optional
        By file name without suffix.
    config_text : str
        The configuration file, kept as ``detector.yaml``; passwords in URLs are hidden.
    tags : mapping, optional
    description : str
        Markdown, shown on the run and on the model version.
    policy : Policy, optional
        The flagging rule the loaded model uses.
    alias : str
        Marks the version that serves.
    promote : bool
        Give the alias to this version even if another has it. The first version always gets it.

    Raises
    ------
    MissingExtraError
        If MLflow is not installed.
    TrackingError
        If the store cannot be reached or refuses.
    """
    with session(uri) as client:
        experiment_id = _experiment(client, uri, experiment)
        run = _create_run(client, experiment_id, model_name, tags or {}, description)
        run_id = run.info.run_id
        with _closing(client, run_id):
            _log_settings(client, run_id, params)
            _log_curves(client, run_id, curves or {})
            _log_files(client, run_id, figures or {}, config_text)
            data = dataset_input(dataset)
            client.log_inputs(run_id, [data])
            model_id = _log_model(run_id, bundle, example, predictions, policy)
            _log_metrics(client, run_id, metrics, model_id=model_id, dataset=data.dataset)
            number = _register(
                client, model_name, run_id, model_id, alias=alias, description=_described(description, example)
            )
            given = alias if _give_alias(client, model_name, number, alias, promote=promote) else None
            client.update_run(run_id, name=f"{model_name} v{number}")
    place = f"{uri.rstrip('/')}/#/experiments/{experiment_id}/runs/{run_id}"
    return LoggedModel(
        run_id=run_id,
        experiment_id=experiment_id,
        model_uri=f"models:/{model_name}@{given}" if given else f"models:/{model_name}/{number}",
        version=number,
        alias=given,
        url=mask_passwords(place) if scheme_of(uri) in ("http", "https") else None,
        open_with=open_command(uri),
    )


@contextmanager
def _closing(client: MlflowClient, run_id: str) -> Iterator[None]:
    """End the run: finished, or failed if something goes wrong on the way."""
    status = "FAILED"
    try:
        yield
        status = "FINISHED"
    finally:
        _attempt(lambda: client.set_terminated(run_id, status), needed=status == "FINISHED")


def _attempt(action: Callable[[], None], *, needed: bool) -> None:
    try:
        action()
    except Exception:
        if needed:  # else an earlier error is on its way and says more
            raise


def _experiment(client: MlflowClient, uri: str, name: str) -> str:
    found = client.get_experiment_by_name(name)
    if found is None:
        if scheme_of(uri) in DATABASES:
            raise TrackingError(
                f"A database keeps runs but no files, so the experiment {name!r} cannot be made in "
                f"{mask_passwords(uri)}. Put an MLflow server in front of it and name the server's address."
            )
        # Without the tag, MLflow's pages open in their layout for language models.
        tags = {"mlflow.experimentKind": "custom_model_development"}
        return str(client.create_experiment(name, artifact_location=artifact_root(uri), tags=tags))
    if found.lifecycle_stage != "active":
        raise TrackingError(
            f"The experiment {name!r} was deleted. Restore it with "
            f"'mlflow experiments restore --experiment-id {found.experiment_id}', or name another."
        )
    return str(found.experiment_id)


def _create_run(
    client: MlflowClient, experiment_id: str, model_name: str, tags: Mapping[str, str], description: str
) -> Run:
    noted = {"mlflow.source.name": "detector train", "mlflow.user": getpass.getuser()}
    noted["detector.version"] = str(detector.__version__)
    if description:
        noted["mlflow.note.content"] = description
    parent = os.environ.get("MLFLOW_RUN_ID")  # set by `mlflow run`
    if parent and os.environ.get("MLFLOW_EXPERIMENT_ID") == experiment_id:
        noted["mlflow.parentRunId"] = parent
    return client.create_run(experiment_id, run_name=model_name, tags=noted | dict(tags))


def _log_settings(client: MlflowClient, run_id: str, params: Mapping[str, Any]) -> None:
    from mlflow.entities import Param

    settings = [Param(name, value) for name, value in flat_params(params).items()]
    for start in range(0, len(settings), 100):
        client.log_batch(run_id, params=settings[start : start + 100])


def _log_curves(client: MlflowClient, run_id: str, curves: Mapping[str, Sequence[float]]) -> None:
    from mlflow.entities import Metric

    now = time.time_ns() // 1_000_000
    points = [
        Metric(f"epoch/{name}", float(value), now, epoch)
        for name, values in curves.items()
        for epoch, value in enumerate(values, start=1)
    ]
    for start in range(0, len(points), 1000):
        client.log_batch(run_id, metrics=points[start : start + 1000])


def _log_metrics(
    client: MlflowClient, run_id: str, metrics: Mapping[str, float], *, model_id: str, dataset: Any
) -> None:
    from mlflow.entities import Metric

    now = time.time_ns() // 1_000_000
    values = [
        Metric(
            name,
            float(value),
            now,
            0,
            model_id=model_id,
            dataset_name=dataset.name,
            dataset_digest=dataset.digest,
            run_id=run_id,
        )
        for name, value in metrics.items()
        if value is not None
    ]
    for start in range(0, len(values), 1000):
        client.log_batch(run_id, metrics=values[start : start + 1000])


def _log_files(client: MlflowClient, run_id: str, figures: Mapping[str, Figure], config_text: str) -> None:
    from pipelines.figure_style import to_png

    with tempfile.TemporaryDirectory() as folder:
        if config_text:
            Path(folder, "detector.yaml").write_text(mask_passwords(config_text), encoding="utf-8")
        if figures:
            Path(folder, "figures").mkdir()
        for name, figure in figures.items():
            Path(folder, "figures", f"{name}.png").write_bytes(to_png(figure))
        if any(Path(folder).iterdir()):
            client.log_artifacts(run_id, folder)


def _log_model(
    run_id: str,
    bundle: Path,
    example: pd.DataFrame,
    predictions: pd.DataFrame,
    policy: Policy | None,
) -> str:
    import mlflow

    with mlflow.start_run(run_id=run_id):
        logged = mlflow.pyfunc.log_model(
            name="detector",
            loader_module="pipelines.pyfunc",
            data_path=str(bundle),
            code_paths=[str(Path(package.__path__[0])) for package in (detector, pipelines)],
            pip_requirements=[f"{name}=={version(name)}" for name in ("mlflow", *REQUIREMENTS)],
            signature=signature_of(example, predictions),
            input_example=example.head(EXAMPLE_ROWS),
            model_config=policy_to_config(policy),
        )
    return str(logged.model_id)


def _register(
    client: MlflowClient, model_name: str, run_id: str, model_id: str, *, alias: str, description: str
) -> int:
    # MLflow's own `register_model` prints to the terminal.
    if not client.search_registered_models(f"name = '{model_name}'"):
        client.create_registered_model(
            model_name,
            description=f"Finds anomalies and explains them. The version with the alias `{alias}` serves; load it "
            f"with `mlflow.pyfunc.load_model('models:/{model_name}@{alias}')`.",
        )
    made = client.create_model_version(
        model_name, f"models:/{model_id}", run_id=run_id, model_id=model_id, description=description
    )
    return int(made.version)


def _described(description: str, example: pd.DataFrame) -> str:
    inputs = "\n".join(f"- `{name}`: {kind}" for name, kind in typed_columns(example).items())
    return f"{description}\n\n**Input columns**\n\n{inputs}".strip()


def _give_alias(client: MlflowClient, model_name: str, number: int, alias: str, *, promote: bool) -> bool:
    if not promote and alias in client.get_registered_model(model_name).aliases:
        return False
    client.set_registered_model_alias(model_name, alias, str(number))
    return True
