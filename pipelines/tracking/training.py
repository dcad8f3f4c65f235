"""One training as one MLflow run, with a run below it for each member, and its model registered."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

import detector
import pipelines
from detector.persist.bundle import fingerprint
from pipelines.tracking.address import mask_passwords, open_command, scheme_of
from pipelines.tracking.experiments import TRAININGS, experiment_id
from pipelines.tracking.facts import dataset_input, grouped, signature_of, typed_columns
from pipelines.tracking.pyfunc import policy_to_config
from pipelines.tracking.record import TrainingRecord
from pipelines.tracking.runs import (
    BUNDLE,
    ENTRY,
    closing,
    create_run,
    forget,
    log_curves,
    log_files,
    log_metrics,
    log_settings,
    log_usage,
)
from pipelines.tracking.session import session

if TYPE_CHECKING:
    from mlflow import MlflowClient

EXAMPLE_ROWS = 5
# The members that are a network, whose loss the curves are.
WITH_CURVES = ("autoencoder", "reconstruction")
# What the list of versions has room for; the run has the rest.
VERSION_TAGS = ("decision", "data window", BUNDLE)
# What a loaded model imports. Named, because MLflow would find out by starting a process.
REQUIREMENTS = ("numpy", "onnxruntime", "pandas")
# And what it takes to read raw rows and to measure their features.
RAW_REQUIREMENTS = ("cronsim", "pyarrow", "pydantic", "pyyaml", "sqlalchemy")


@dataclass(frozen=True)
class LoggedModel:
    """Where a run and its model are.

    ``model_uri`` is what ``mlflow.pyfunc.load_model`` takes; ``url`` the run's page on a server, ``open_with`` the
    command that opens a local store.
    """

    run_id: str
    experiment_id: str
    model_uri: str
    version: int
    alias: str
    url: str | None
    open_with: str | None


def log_training(uri: str, record: TrainingRecord, *, predictions: pd.DataFrame, entry: str = "") -> LoggedModel:
    """Log one training as a run, register its model, and give it an alias.

    - ``uri``: the tracking store, see `reachable`.
    - ``predictions``: what the model says of the record's example.
    - ``entry``: the spool's name for this. What an earlier attempt to send the same entry left is removed first.

    Raises ``MissingExtraError`` if MLflow is not installed; ``TrackingError`` if the store cannot be reached or
    refuses.
    """
    name = fingerprint(record.bundle) if (record.bundle / "bundle.json").exists() else ""
    tags = {**record.tags, **({ENTRY: entry} if entry else {}), **({BUNDLE: name} if name else {})}
    with session(uri) as client:
        place = experiment_id(client, uri, record.experiment, about=TRAININGS)
        if entry:
            forget(client, place, entry)
        run = create_run(
            client, place, record.model_name, tags=tags, description=record.description, started=record.started
        )
        run_id = run.info.run_id
        with closing(client, run_id, ended=record.ended):
            log_settings(client, run_id, record.params)
            texts = {**record.texts, **({"detector.yaml": record.config_text} if record.config_text else {})}
            log_files(client, run_id, record.figures, texts)
            data = dataset_input(record.dataset)
            apart = data if record.compared is None else dataset_input(record.compared, "evaluation")
            client.log_inputs(run_id, [data] if apart is data else [data, apart])
            model_id = _log_model(run_id, record, predictions)
            for metrics, rows in (
                (record.metrics, apart),
                (record.fit_metrics, data),
            ):  # pages show what came first first
                found = grouped(metrics, record.members)
                log_metrics(client, run_id, found, model_id=model_id, dataset=rows.dataset)
            log_curves(client, run_id, record.curves)
            log_usage(client, run_id, record.usage)
            for member in record.members:
                _log_member(client, place, run_id, member, record, entry)
            number = _register(
                client, record, run_id, model_id, {key: tags[key] for key in VERSION_TAGS if key in tags}
            )
            client.set_registered_model_alias(record.model_name, record.alias, str(number))
            client.update_run(run_id, name=record.run_name.format(model=record.model_name, version=number))
    page = f"{uri.rstrip('/')}/#/experiments/{place}/runs/{run_id}"
    return LoggedModel(
        run_id=run_id,
        experiment_id=place,
        model_uri=f"models:/{record.model_name}@{record.alias}",
        version=number,
        alias=record.alias,
        url=mask_passwords(page) if scheme_of(uri) in ("http", "https") else None,
        open_with=open_command(uri),
    )


def _log_member(
    client: MlflowClient, experiment: str, parent: str, member: str, record: TrainingRecord, entry: str
) -> None:
    tags = {"job": "member", **({ENTRY: entry} if entry else {})}
    run = create_run(client, experiment, member, tags=tags, parent=parent, started=record.started)
    with closing(client, run.info.run_id, ended=record.ended):
        log_metrics(client, run.info.run_id, record.members[member])
        if member in WITH_CURVES:
            log_curves(client, run.info.run_id, record.curves)


def _log_model(run_id: str, record: TrainingRecord, predictions: pd.DataFrame) -> str:
    import mlflow

    requirements = (*REQUIREMENTS, *(RAW_REQUIREMENTS if (record.bundle / "input").is_dir() else ()))
    with mlflow.start_run(run_id=run_id):
        logged = mlflow.pyfunc.log_model(
            name="detector",
            loader_module="pipelines.pyfunc",
            data_path=str(record.bundle),
            code_paths=[str(Path(package.__path__[0])) for package in (detector, pipelines)],
            pip_requirements=[f"{name}=={version(name)}" for name in ("mlflow", *requirements)],
            signature=signature_of(record.example, predictions, optional=record.optional),
            metadata={"input columns": typed_columns(record.example)},
            input_example=record.example.head(EXAMPLE_ROWS),
            model_config=policy_to_config(record.policy),
        )
    return str(logged.model_id)


def _register(client: MlflowClient, record: TrainingRecord, run_id: str, model_id: str, tags: Mapping[str, str]) -> int:
    # MLflow's own `register_model` prints to the terminal.
    if not client.search_registered_models(f"name = '{record.model_name}'"):
        client.create_registered_model(
            record.model_name,
            description=f"Finds anomalies and explains them. The version with the alias `{record.serving}` serves; "
            f"load it with `mlflow.pyfunc.load_model('models:/{record.model_name}@{record.serving}')`.",
        )
    made = client.create_model_version(
        record.model_name,
        f"models:/{model_id}",
        run_id=run_id,
        model_id=model_id,
        description=_described(record),
        tags=dict(tags),
    )
    # MLflow's pages look for the versions of a model here, and else say that it is not registered.
    versions = json.dumps([{"name": record.model_name, "version": int(made.version)}])
    client.set_logged_model_tags(model_id, {"mlflow.modelVersions": versions})
    return int(made.version)


def _described(record: TrainingRecord) -> str:
    description = record.description
    if description.startswith("## "):  # the list of versions shows the first line alone: say more than the title there
        title, _, rest = description.removeprefix("## ").partition("\n\n")
        description = f"{title}. {rest}"
    inputs = "\n".join(f"- `{name}`: {kind}" for name, kind in typed_columns(record.example).items())
    return f"{description}\n\nInput columns:\n\n{inputs}".strip()
