"""One training as one MLflow run, with a run below it for each member, and its model registered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

import detector
import pipelines
from detector.decide.policy import Policy
from detector.persist.bundle import fingerprint
from pipelines.tracking.address import mask_passwords, open_command, scheme_of
from pipelines.tracking.experiments import TRAININGS, experiment_id
from pipelines.tracking.facts import DatasetFacts, dataset_input, signature_of, typed_columns
from pipelines.tracking.pyfunc import policy_to_config
from pipelines.tracking.runs import (
    BUNDLE,
    ENTRY,
    Point,
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
    from matplotlib.figure import Figure
    from mlflow import MlflowClient

EXAMPLE_ROWS = 5
# What the list of versions has room for; the run has the rest.
VERSION_TAGS = ("decision", "data window", BUNDLE)
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
    metrics: Mapping[str, float | None],
    compared: DatasetFacts | None = None,
    members: Mapping[str, Mapping[str, float | None]] | None = None,
    curves: Mapping[str, Sequence[float]] | None = None,
    figures: Mapping[str, Figure | bytes] | None = None,
    texts: Mapping[str, str] | None = None,
    usage: Sequence[Point] = (),
    config_text: str = "",
    tags: Mapping[str, str] | None = None,
    description: str = "",
    policy: Policy | None = None,
    alias: str = "champion",
    serving: str = "champion",
    promote: bool = True,
    run_name: str = "{model} v{version}",
    started: float | None = None,
    ended: float | None = None,
    entry: str = "",
) -> LoggedModel:
    """Record one training as a run, register its model, and give it an alias.

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
    dataset, compared : DatasetFacts
        Which rows it learnt from, and which it was compared on.
    params : mapping
        The settings; nested mappings become names with dots.
    metrics : mapping
        Final values; missing ones (None) are left out.
    members : mapping, optional
        Figures of each member, which has a run of its own below this one.
    curves : mapping, optional
        One value an epoch, logged as ``epoch/<name>``.
    figures : mapping, optional
        By file name without suffix; PNG if they are bytes.
    texts : mapping, optional
        Small text files, by name.
    usage : sequence, optional
        What the machine did meanwhile: time, name, value.
    config_text : str
        The configuration file, kept as ``detector.yaml``; passwords in URLs are hidden.
    tags : mapping, optional
    description : str
        Markdown, shown on the run and on the model version.
    policy : Policy, optional
        The flagging rule the loaded model uses.
    alias : str
        What marks this version.
    serving : str
        What marks the version that serves.
    promote : bool
        Give the alias to this version even if another has it. The first version always gets it.
    run_name : str
        ``{model}`` and ``{version}`` are filled in.
    started, ended : float, optional
        When the training ran, in seconds since 1970; what is logged later keeps its true time.
    entry : str
        The spool's name for this. What an earlier attempt to send the same entry left is removed first.

    Raises
    ------
    MissingExtraError
        If MLflow is not installed.
    TrackingError
        If the store cannot be reached or refuses.
    """
    name = fingerprint(bundle) if (bundle / "bundle.json").exists() else ""
    noted = {**(tags or {}), **({ENTRY: entry} if entry else {}), **({BUNDLE: name} if name else {})}
    with session(uri) as client:
        place = experiment_id(client, uri, experiment, about=TRAININGS)
        if entry:
            forget(client, place, entry)
        run = create_run(client, place, model_name, tags=noted, description=description, started=started)
        run_id = run.info.run_id
        with closing(client, run_id, ended=ended):
            log_settings(client, run_id, params)
            log_curves(client, run_id, curves or {})
            log_usage(client, run_id, usage)
            texts = {**(texts or {}), **({"detector.yaml": config_text} if config_text else {})}
            log_files(client, run_id, figures or {}, texts)
            data = dataset_input(dataset)
            client.log_inputs(run_id, [data, *([dataset_input(compared, "comparison")] if compared else [])])
            model_id = _log_model(run_id, bundle, example, predictions, policy)
            log_metrics(client, run_id, metrics, model_id=model_id, dataset=data.dataset)
            for member, figures_of_merit in (members or {}).items():
                _log_member(client, place, run_id, member, figures_of_merit, entry, started, ended)
            number = _register(
                client,
                model_name,
                run_id,
                model_id,
                serving=serving,
                tags={key: noted[key] for key in VERSION_TAGS if key in noted},
                description=_described(description, example),
            )
            given = alias if _give_alias(client, model_name, number, alias, promote=promote) else None
            client.update_run(run_id, name=run_name.format(model=model_name, version=number))
    page = f"{uri.rstrip('/')}/#/experiments/{place}/runs/{run_id}"
    return LoggedModel(
        run_id=run_id,
        experiment_id=place,
        model_uri=f"models:/{model_name}@{given}" if given else f"models:/{model_name}/{number}",
        version=number,
        alias=given,
        url=mask_passwords(page) if scheme_of(uri) in ("http", "https") else None,
        open_with=open_command(uri),
    )


def _log_member(
    client: MlflowClient,
    experiment: str,
    parent: str,
    member: str,
    metrics: Mapping[str, float | None],
    entry: str,
    started: float | None,
    ended: float | None,
) -> None:
    tags = {"job": "member", **({ENTRY: entry} if entry else {})}
    run = create_run(client, experiment, member, tags=tags, parent=parent, started=started)
    with closing(client, run.info.run_id, ended=ended):
        log_metrics(client, run.info.run_id, metrics)


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
    client: MlflowClient,
    model_name: str,
    run_id: str,
    model_id: str,
    *,
    serving: str,
    tags: Mapping[str, str],
    description: str,
) -> int:
    # MLflow's own `register_model` prints to the terminal.
    if not client.search_registered_models(f"name = '{model_name}'"):
        client.create_registered_model(
            model_name,
            description=f"Finds anomalies and explains them. The version with the alias `{serving}` serves; load it "
            f"with `mlflow.pyfunc.load_model('models:/{model_name}@{serving}')`.",
        )
    made = client.create_model_version(
        model_name, f"models:/{model_id}", run_id=run_id, model_id=model_id, description=description, tags=dict(tags)
    )
    return int(made.version)


def _described(description: str, example: pd.DataFrame) -> str:
    if description.startswith("## "):  # the list of versions shows the first line alone: say more than the title there
        title, _, rest = description.removeprefix("## ").partition("\n\n")
        description = f"{title}. {rest}"
    inputs = "\n".join(f"- `{name}`: {kind}" for name, kind in typed_columns(example).items())
    return f"{description}\n\n**Input columns**\n\n{inputs}".strip()


def _give_alias(client: MlflowClient, model_name: str, number: int, alias: str, *, promote: bool) -> bool:
    if not promote and alias in client.get_registered_model(model_name).aliases:
        return False
    client.set_registered_model_alias(model_name, alias, str(number))
    return True
