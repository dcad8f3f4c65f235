"""What happens to registered models besides training: promotions, notes, and drift as a time series."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipelines.tracking.experiments import MONITORING as ABOUT_MONITORING
from pipelines.tracking.experiments import TRAININGS, experiment_id
from pipelines.tracking.runs import BUNDLE, ENTRY, closing, create_run, forget, log_metrics
from pipelines.tracking.spool import Entry

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

MONITORING = "detector.monitoring"


def send_promotion(client: MlflowClient, uri: str, entry: Entry) -> None:
    """Give an alias to the version of a bundle, and say why on it.

    The entry's values: ``experiment``, ``model_name``, ``bundle`` (its fingerprint), ``alias``, ``drop`` (an alias
    this version no longer has, or ""), ``tags`` (for the version), and ``run`` (the name of a run of its own, or ""),
    with its ``decision``, ``note`` and time ``at``.
    """
    values = entry.values
    name = values["model_name"]
    version = _version_of(client, name, values["bundle"])
    if version is not None:
        # One call: whoever loads by the alias has the version before or the one after.
        client.set_registered_model_alias(name, values["alias"], version.version)
        if values["drop"] and client.get_registered_model(name).aliases.get(values["drop"]) == version.version:
            client.delete_registered_model_alias(name, values["drop"])
        for key, value in values["tags"].items():
            client.set_model_version_tag(name, version.version, key, value)
    if values["run"]:
        place = experiment_id(client, uri, values["experiment"], about=TRAININGS)
        forget(client, place, entry.name)
        number = version.version if version is not None else "?"
        tags = {"decision": f"{values['decision']} v{number}", "reason": values["tags"]["reason"], "job": values["job"]}
        run = create_run(
            client,
            place,
            values["run"].format(version=number),
            tags=tags | {ENTRY: entry.name, BUNDLE: values["bundle"]},
            description=values["note"],
            started=values["at"],
        )
        with closing(client, run.info.run_id, ended=values["at"]):
            pass


def send_note(client: MlflowClient, uri: str, entry: Entry) -> None:
    """Make a run without a model: a retraining that was skipped or has failed.

    The entry's values: ``experiment``, ``run``, ``tags``, ``note``, ``metrics``, ``failed``, ``started``, ``ended``.
    """
    values = entry.values
    place = experiment_id(client, uri, values["experiment"], about=TRAININGS)
    forget(client, place, entry.name)
    tags = {**values["tags"], ENTRY: entry.name}
    run = create_run(client, place, values["run"], tags=tags, description=values["note"], started=values["started"])
    log_metrics(client, run.info.run_id, values["metrics"])
    status = "FAILED" if values["failed"] else "FINISHED"
    client.set_terminated(run.info.run_id, status, end_time=round(values["ended"] * 1000))


def send_monitoring(client: MlflowClient, uri: str, entry: Entry) -> None:
    """Add one point to each series of the one monitoring run of a model; the run is made if there is none.

    The entry's values: ``experiment``, ``model_name``, ``metrics``, ``step``, ``at``, ``tags``, ``note``.
    """
    values = entry.values
    place = experiment_id(client, uri, values["experiment"], about=ABOUT_MONITORING)
    found = client.search_runs([place], filter_string=f"tags.`{MONITORING}` = '{values['model_name']}'", max_results=1)
    if found:
        run_id = found[0].info.run_id
    else:
        tags = {MONITORING: values["model_name"], "job": "drift"}
        run = create_run(client, place, f"monitoring {values['model_name']}", tags=tags, started=values["at"])
        run_id = run.info.run_id
    # A point that was sent already is the same row of MLflow's table, so it is not doubled.
    log_metrics(client, run_id, values["metrics"], step=values["step"], at=values["at"])
    for key, value in values["tags"].items():
        client.set_tag(run_id, key, value)
    client.set_tag(run_id, "mlflow.note.content", values["note"])
    client.set_terminated(run_id, "FINISHED", end_time=round(values["at"] * 1000))


def _version_of(client: MlflowClient, model_name: str, bundle: str) -> ModelVersion | None:
    """The latest version of a bundle; None if it was never registered."""
    found = [
        version
        for version in client.search_model_versions(f"name = '{model_name}'", max_results=10_000)
        if version.tags.get(BUNDLE) == bundle
    ]
    return max(found, key=lambda version: int(version.version), default=None)
