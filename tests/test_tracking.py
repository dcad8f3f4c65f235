"""Runs and models in a real MLflow store: a temporary SQLite file, shared by the module."""

from __future__ import annotations

import http.server
import json
import logging
import os
import re
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
import yaml
from mlflow import MlflowClient

from detector import Budget, Policy, Schema, TabularDetector, TabularScorer, save
from detector.errors import MissingExtraError, SchemaError, SettingError, TrackingError
from pipelines.cli import app
from pipelines.reports import figures
from pipelines.tracking import (
    DatasetFacts,
    LoggedModel,
    TrainingRecord,
    experiments,
    log_training,
    session,
    training,
)
from pipelines.tracking.address import mask_passwords, open_command, reachable
from pipelines.tracking.facts import flat_params
from pipelines.tracking.pyfunc import ScoredTable, policy_from_config, policy_to_config

# MLflow and its dependencies warn about themselves on import and when a store is made.
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.slow]

ROOT = Path(__file__).parent.parent


def rows(count: int, seed: int = 0) -> pd.DataFrame:
    """Payments as a file holds them."""
    random = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "transaction": [f"t{i:05d}" for i in range(count)],
            "amount": random.gamma(2, 20, count).round(2),
            "items": random.integers(1, 9, count),
            "shop": random.choice(["grocery", "fuel", "books"], count),
            "foreign": random.random(count) < 0.1,
        }
    )


@pytest.fixture(scope="module")
def scorer() -> TabularScorer:
    """A small fitted detector, made without TensorFlow."""
    table = rows(300)
    detector = TabularDetector(
        schema=Schema.infer(table, key="transaction"), members=("forest", "neighbours"), trees=20
    )
    return detector.fit(table).scorer_


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, scorer: TabularScorer) -> Path:
    """A folder that holds the bundle; the store is made in it."""
    path = tmp_path_factory.mktemp("tracking")
    save(scorer, path / "bundle")
    return path


@pytest.fixture(scope="module")
def uri(folder: Path) -> str:
    """The store."""
    return f"sqlite:///{folder}/store/mlflow.db"


def log(uri: str, folder: Path, scorer: TabularScorer, **changes: Any) -> LoggedModel:
    """One training, with little in it unless said otherwise."""
    table = rows(20, seed=1)
    record = TrainingRecord(
        experiment="payments",
        model_name="payments",
        bundle=folder / "bundle",
        example=table,
        dataset=DatasetFacts(
            "March",
            "postgresql://ann:s3cret@db/x",
            300,
            "f" * 64,
            {"amount": "numeric", "shop": "categorical"},
        ),
    )
    return log_training(uri, replace(record, **changes), predictions=scorer.judge(table).frame)


@pytest.fixture(scope="module")
def first(uri: str, folder: Path, scorer: TabularScorer) -> LoggedModel:
    """The first training in the store, with every part."""
    return log(
        uri,
        folder,
        scorer,
        params={"random_state": 0, "train": {"rows": None, "forest": {"trees": 20}}},
        metrics={"share_below_0.01": 0.012, "rows": 300.0, "ap": 0.7, "auroc": None},
        curves={"loss": [3.0, 2.0, 1.0], "held_out_loss": [3.0, 2.5, 2.6]},
        figures={"loss": figures.loss_curves({"loss": [3.0, 2.0, 1.0]})},
        config_text="source:\n  url: postgresql://ann:s3cret@db/x\n",
        tags={"job": "train"},
        description="Learnt from **300 rows** of March.",
        policy=Policy(quantile=0.95),
    )


@pytest.fixture(scope="module")
def client(uri: str, first: LoggedModel) -> MlflowClient:
    """MLflow's own view of the store."""
    return MlflowClient(uri, uri)


@pytest.fixture
def store(uri: str, first: LoggedModel) -> Iterator[str]:
    """The store as MLflow's current one."""
    before = mlflow.get_tracking_uri(), mlflow.get_registry_uri()
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    yield uri
    mlflow.set_tracking_uri(before[0])
    mlflow.set_registry_uri(before[1])


def test_run_holds_settings_metrics_and_curves(client: MlflowClient, first: LoggedModel) -> None:
    """Settings are flat, missing metrics are left out, and curves have one point an epoch."""
    run = client.get_run(first.run_id)

    assert run.info.status == "FINISHED"
    assert run.info.run_name == "payments v1"
    assert run.data.params == {
        "random_state": "0",
        "train.forest.trees": "20",
        "policy/quantile": "0.95",
    }
    assert run.data.metrics["ap"] == 0.7
    assert "auroc" not in run.data.metrics
    assert run.data.tags["job"] == "train"
    assert run.data.tags["mlflow.note.content"] == "Learnt from **300 rows** of March."
    history = client.get_metric_history(first.run_id, "epoch/held_out_loss")
    assert [(point.step, point.value) for point in history] == [(1, 3.0), (2, 2.5), (3, 2.6)]


def test_what_a_reviewer_compares_comes_first(client: MlflowClient, first: LoggedModel) -> None:
    """MLflow's page shows metrics in the order of the store: average precision before rows, groups behind."""
    shown = list(client.get_run(first.run_id).data.metrics)

    assert shown[:3] == ["ap", "rows", "calibration/share_below_0.01"]
    assert shown.index("epoch/loss") > 2


def test_run_names_its_dataset(client: MlflowClient, first: LoggedModel) -> None:
    """The dataset is linked with its true number of rows, its columns and no password."""
    (entry,) = client.get_run(first.run_id).inputs.dataset_inputs

    assert entry.dataset.name == "March"
    assert json.loads(entry.dataset.profile)["num_rows"] == 300
    assert json.loads(entry.dataset.source) == {"uri": "postgresql://ann:***@db/x"}
    columns = json.loads(entry.dataset.schema)["mlflow_colspec"]
    assert [(column["name"], column["type"]) for column in columns] == [
        ("amount", "double"),
        ("shop", "string"),
    ]
    assert [(tag.key, tag.value) for tag in entry.tags] == [("mlflow.data.context", "training")]


def test_run_keeps_figures_and_configuration(client: MlflowClient, first: LoggedModel, tmp_path: Path) -> None:
    """The figures are PNG and the configuration is kept without passwords."""
    found = Path(client.download_artifacts(first.run_id, "", str(tmp_path)))

    assert (found / "figures" / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert (found / "detector.yaml").read_text() == "source:\n  url: postgresql://ann:***@db/x\n"


def test_artifacts_lie_beside_the_database_and_hold_no_pickle(folder: Path, first: LoggedModel) -> None:
    """Nothing lands in the folder the process runs in, and nothing that runs code when read."""
    files = [path for path in (folder / "store").rglob("*") if path.is_file()]

    assert {path.relative_to(folder / "store").parts[0] for path in files} == {"mlflow.db", "mlartifacts"}
    assert not [path for path in files if path.suffix in {".pkl", ".pickle", ".joblib", ".pyc"}]
    assert not Path("mlruns").exists()
    assert not Path("mlflow.db").exists()
    assert sum(path.stat().st_size for path in files if path.suffix != ".db") < 5_000_000


def test_registered_version_is_described(client: MlflowClient, first: LoggedModel) -> None:
    """The version links to its run, says what it is in words, and lists the columns it takes."""
    found = client.get_model_version("payments", "1")

    assert first.version == 1
    assert found.run_id == first.run_id
    assert found.description.startswith("Learnt from **300 rows** of March.")
    assert "- `amount`: number" in found.description
    assert "- `shop`: text" in found.description
    assert client.get_model_version_by_alias("payments", "champion").version == 1


def test_champion_scores_a_frame(store: str, scorer: TabularScorer) -> None:
    """The registered model says what the detector says, under the policy it was logged with."""
    table = rows(50, seed=2)

    found = mlflow.pyfunc.load_model("models:/payments@champion").predict(table)

    expected = scorer.judge(table, policy=Policy(quantile=0.95)).frame
    pd.testing.assert_frame_equal(found, expected)


def test_champion_takes_another_policy(store: str) -> None:
    """A user of the model can override the flagging rule."""
    model = mlflow.pyfunc.load_model(
        "models:/payments@champion", model_config={"policy": {"quantile": 0.01, "budget": {"rows": 3}}}
    )

    assert model.predict(rows(50, seed=2))["flagged"].sum() == 3


@pytest.mark.parametrize(
    "change",
    [
        {"amount": [10, 20, 30]},
        {"amount": ["10", "20.5", None]},
        {"items": [1.0, np.nan, 2.0]},
        {"shop": [None, "grocery", "never seen"]},
        {"foreign": [True, None, False]},
        {"foreign": [1, 0, 1]},
        {"extra": [1, 2, 3]},
    ],
    ids=[
        "whole amounts",
        "numbers as text",
        "missing",
        "unseen",
        "missing boolean",
        "0 and 1",
        "more columns",
    ],
)
def test_champion_takes_what_the_detector_takes(store: str, change: dict[str, list[Any]]) -> None:
    """MLflow's own check of types refuses no batch that can be read."""
    model = mlflow.pyfunc.load_model("models:/payments@champion")

    found = model.predict(rows(3).assign(**change))

    assert found["risk"].notna().all()


def test_champion_takes_pandas_categories(store: str) -> None:
    """A category is text: the same risks."""
    model = mlflow.pyfunc.load_model("models:/payments@champion")
    plain = rows(3)

    found = model.predict(plain.astype({"shop": "category", "transaction": "category"}))

    assert found["risk"].tolist() == model.predict(plain)["risk"].tolist()


def test_model_keeps_signature_and_example(store: str) -> None:
    """A reviewer sees the columns in and out, and an example."""
    info = mlflow.models.get_model_info("models:/payments/1")

    assert info.signature.inputs.input_names() == list(rows(1).columns)
    assert {"risk", "p_value", "flagged", "reasons"} <= set(info.signature.outputs.input_names())
    assert info.saved_input_example_info is not None


def test_model_loads_without_the_project(store: str, tmp_path: Path) -> None:
    """In a process that knows nothing of the project, the model brings its code and no TensorFlow."""
    code = (
        "import sys, mlflow, pandas as pd; mlflow.set_tracking_uri(sys.argv[1]);"
        "model = mlflow.pyfunc.load_model('models:/payments/1');"
        "frame = pd.DataFrame({'transaction': ['a'], 'amount': [9], 'items': [1], 'shop': ['fuel']});"
        "frame['foreign'] = True;"
        "assert model.predict(frame)['risk'].notna().all();"
        "import detector; assert 'mlartifacts' in detector.__file__, detector.__file__;"
        "assert not {'tensorflow', 'keras', 'matplotlib'} & set(sys.modules)"
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    subprocess.run([sys.executable, "-P", "-c", code, store], check=True, cwd=tmp_path, env=environment)


@pytest.mark.parametrize(
    ("module", "named"),
    [
        ("pipelines.tracking.pyfunc", training.REQUIREMENTS),
        ("pipelines.features.raw_rows", (*training.REQUIREMENTS, *training.RAW_REQUIREMENTS)),
    ],
)
def test_requirements_name_what_the_model_imports(module: str, named: Sequence[str]) -> None:
    """Loading a bundle, and measuring features, imports no third party that the model's requirements do not name."""
    code = (
        f"import sys; before = set(sys.modules); import {module};"
        "tops = {name.split('.')[0] for name in set(sys.modules) - before};"
        "import importlib.metadata as m; known = m.packages_distributions();"
        "print(*sorted({d.lower().replace('_', '-') for top in tops for d in known.get(top, [])}))"
    )

    found = subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, capture_output=True, text=True)

    brought_along = {"anomaly-detector", "cloudpickle", "pyarrow", "python-dateutil", "six"}
    if "pydantic" in named:
        brought_along |= {"annotated-types", "greenlet", "pydantic-core", "typing-extensions", "typing-inspection"}
    assert set(found.stdout.split()) - brought_along <= set(named)


def test_later_training_gets_the_alias_it_names(
    uri: str, folder: Path, scorer: TabularScorer, client: MlflowClient
) -> None:
    """A challenger leaves the champion where it is; a champion moves the alias."""
    kept = log(uri, folder, scorer, alias="challenger")
    champion = client.get_model_version_by_alias("payments", "champion").version
    moved = log(uri, folder, scorer)

    assert (kept.alias, kept.model_uri) == ("challenger", "models:/payments@challenger")
    assert champion < kept.version
    assert (moved.alias, moved.model_uri) == ("champion", "models:/payments@champion")
    assert client.get_model_version_by_alias("payments", "champion").version == moved.version

    client.set_registered_model_alias("payments", "champion", "1")


def test_logging_is_quiet_and_leaves_settings_alone(
    uri: str, folder: Path, scorer: TabularScorer, first: LoggedModel, capfd: pytest.CaptureFixture[str]
) -> None:
    """Nothing is printed, and MLflow, the environment and the import path are as before."""
    before = mlflow.get_tracking_uri(), dict(os.environ), list(sys.path), logging.getLogger("mlflow").level

    log(uri, folder, scorer, alias="challenger")

    after = mlflow.get_tracking_uri(), dict(os.environ), list(sys.path), logging.getLogger("mlflow").level
    assert after == before
    assert "".join(capfd.readouterr()) == ""


def test_failed_logging_leaves_a_failed_run(
    uri: str, folder: Path, scorer: TabularScorer, client: MlflowClient, first: LoggedModel
) -> None:
    """A run that breaks on the way is marked so, and no version is registered."""
    versions = len(client.search_model_versions("name = 'payments'"))

    with pytest.raises(TrackingError, match="refused"):
        log(uri, folder, scorer, bundle=folder / "nowhere")

    (latest, *_) = client.search_runs([first.experiment_id], order_by=["start_time DESC"], max_results=1)
    assert latest.info.status == "FAILED"
    assert len(client.search_model_versions("name = 'payments'")) == versions


def test_deleted_experiment_says_how_to_restore_it(uri: str, folder: Path, scorer: TabularScorer, client: Any) -> None:
    """MLflow keeps deleted experiments; the error says what to type."""
    number = client.create_experiment("gone")
    client.delete_experiment(number)

    with pytest.raises(TrackingError, match=f"restore --experiment-id {number}"):
        log(uri, folder, scorer, experiment="gone")


def test_run_started_by_mlflow_is_the_parent(
    uri: str,
    folder: Path,
    scorer: TabularScorer,
    client: MlflowClient,
    first: LoggedModel,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Under ``mlflow run`` the training hangs below the project's run."""
    monkeypatch.setenv("MLFLOW_RUN_ID", first.run_id)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", first.experiment_id)

    made = log(uri, folder, scorer, alias="challenger")

    assert client.get_run(made.run_id).data.tags["mlflow.parentRunId"] == first.run_id
    assert made.run_id != first.run_id


def test_server_that_is_down_is_said_so(folder: Path, scorer: TabularScorer) -> None:
    """No waiting, no traceback of a connection pool, no password."""
    with pytest.raises(TrackingError, match=r"No MLflow server answers at http://ann:\*\*\*@127\.0\.0\.1:9"):
        log("http://ann:s3cret@127.0.0.1:9", folder, scorer)


def test_without_mlflow_the_extra_is_named(
    folder: Path, scorer: TabularScorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder of that name does not pass for the package."""

    def missing(name: str) -> str:
        raise session.PackageNotFoundError(name)

    monkeypatch.setattr(session, "version", missing)

    with pytest.raises(MissingExtraError, match=r"anomaly-detector\[train\]"):
        log("sqlite:///unused.db", folder, scorer)


def test_folder_named_mlflow_holds_no_python() -> None:
    """A Python file there would make the folder shadow the package."""
    assert not list((ROOT / "mlflow").rglob("*.py"))


def test_server_image_has_the_locked_mlflow_and_fixed_versions() -> None:
    """The server is the MLflow the project is tested with, and no image is "latest" or holds a password."""
    locked = re.search(r"^mlflow==.*$", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    assert locked is not None
    assert f" {locked.group()} " in (ROOT / "mlflow" / "Dockerfile").read_text()

    services = yaml.safe_load((ROOT / "mlflow" / "compose.yaml").read_text())["services"]

    for service in services.values():
        assert "build" in service or re.search(r":[^:]*\d", service["image"])
        for name, value in service.get("environment", {}).items():
            assert "$" in value or not re.search("PASSWORD|SECRET|KEY", name)


def test_project_entry_points_are_commands() -> None:
    """What ``mlflow run`` starts exists."""
    known = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}

    project = yaml.safe_load((ROOT / "mlflow" / "MLproject").read_text())

    started = {entry["command"].split()[6] for entry in project["entry_points"].values()}
    assert started == {"train", "score", "evaluate", "demo"}
    assert started <= known


@pytest.mark.parametrize("status", [200, 401, 404])
def test_server_that_answers_is_reachable(status: int) -> None:
    """Any answer will do, also one that asks for a login."""
    with answering(status) as address:
        assert reachable(address) is None


def test_server_that_is_broken_is_not_reachable() -> None:
    """A server error is named with its number."""
    with answering(503) as address:
        assert "status 503" in str(reachable(address))


def test_local_stores_are_checked_without_making_them(tmp_path: Path) -> None:
    """A file that can be made is fine; what stands in the way is named. Nothing is written."""
    (tmp_path / "notes.txt").write_text("not a database at all")
    (tmp_path / "empty.db").touch()
    sqlite3.connect(tmp_path / "real.db").execute("CREATE TABLE t (x)").connection.close()
    before = sorted(tmp_path.rglob("*"))

    assert reachable(f"sqlite:///{tmp_path}/new/mlflow.db") is None
    assert reachable(f"sqlite:///{tmp_path}/empty.db") is None
    assert reachable(f"sqlite:///{tmp_path}/real.db") is None
    assert reachable(str(tmp_path / "runs")) is None
    assert reachable((tmp_path / "runs").as_uri()) is None
    assert "is not an SQLite file" in str(reachable(f"sqlite:///{tmp_path}/notes.txt"))
    assert "is a folder" in str(reachable(f"sqlite:///{tmp_path}"))
    assert "is a file, expected a folder" in str(reachable(f"sqlite:///{tmp_path}/notes.txt/mlflow.db"))
    assert sorted(tmp_path.rglob("*")) == before


def test_database_without_a_server_is_refused(
    folder: Path, scorer: TabularScorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A database that does not answer is named without its password; files would have no place in it."""
    fault = str(reachable("postgresql://ann:s3cret@127.0.0.1:9/mlflow", timeout=1))
    assert fault.startswith("The database postgresql://ann:***@127.0.0.1:9/mlflow does not answer")

    class Empty:
        def get_experiment_by_name(self, name: str) -> None:
            return None

    with pytest.raises(TrackingError, match="Put an MLflow server in front of it"):
        experiments.experiment_id(Empty(), "postgresql://ann:s3cret@db/mlflow", "payments")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("https://ann:s3cret@mlflow.example/", "https://ann:***@mlflow.example/"),
        ("postgresql+psycopg://ann:p@ss@db/x", "postgresql+psycopg://ann:***@db/x"),
        ("sqlite:////srv/mlflow.db", "sqlite:////srv/mlflow.db"),
        ("http://127.0.0.1:5000/#/x@y", "http://127.0.0.1:5000/#/x@y"),
    ],
)
def test_passwords_are_masked(text: str, masked: str) -> None:
    """Only the password goes."""
    assert mask_passwords(text) == masked


def test_open_command_quotes_and_hides(tmp_path: Path) -> None:
    """What a person types to see a local store; a server has an address instead."""
    assert open_command("sqlite:////srv/my runs/mlflow.db") == (
        "mlflow ui --backend-store-uri 'sqlite:////srv/my runs/mlflow.db'"
    )
    assert open_command("http://127.0.0.1:5000") is None


def test_long_settings_are_cut() -> None:
    """MLflow takes 6,000 characters."""
    assert len(flat_params({"columns": ["x" * 100] * 100})["columns"]) == 6000


@pytest.mark.parametrize(
    "policy",
    [
        None,
        Policy(quantile=0.9),
        Policy(fdr=0.1, budget=Budget(rows=9, per="day")),
        Policy(budget=Budget(rows=3)),
    ],
)
def test_policy_survives_the_way_through_mlflow(policy: Policy | None) -> None:
    """What goes into the model's configuration comes out of it."""
    assert policy_from_config(policy_to_config(policy)) == policy


def test_policy_of_unknown_rules_is_refused() -> None:
    """A misspelt rule in a model's configuration is named."""
    with pytest.raises(SettingError, match="quantile, fdr and budget. Received:"):
        policy_from_config({"policy": {"quantil": 0.9}})


def test_predict_answers_for_every_row(scorer: TabularScorer) -> None:
    """Unreadable rows keep their place, their index and their key, and say what is wrong."""
    table = rows(4).set_axis([10, 20, 30, 40]).astype({"amount": object})
    table.loc[20, "amount"] = "many"
    table.loc[40, "transaction"] = "t00000"

    found = ScoredTable(scorer).predict(table)

    assert list(found.index) == [10, 20, 30, 40]
    assert list(found["transaction"]) == ["t00000", "t00001", "t00002", "t00000"]
    assert list(found["severity"].eq("quarantined")) == [False, True, False, True]
    assert list(found["risk"].isna()) == [False, True, False, True]
    assert not found.loc[[20, 40], "flagged"].any()
    assert found["flagged"].dtype == bool
    assert "'many' is not a number" in found.loc[20, "reasons"]


def test_predict_names_a_missing_column(scorer: TabularScorer) -> None:
    """A missing column is the detector's own error."""
    with pytest.raises(SchemaError, match="Did you mean 'amonut'"):
        ScoredTable(scorer).predict(rows(2).rename(columns={"amount": "amonut"}))


class answering:  # noqa: N801  # reads as a verb in a with statement
    """A server on this machine that answers every request with one status."""

    def __init__(self, status: int) -> None:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(status)
                self.end_headers()

            def log_message(self, *args: object) -> None:
                pass

        self.server = http.server.HTTPServer(("127.0.0.1", 0), Handler)

    def __enter__(self) -> str:
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{self.server.server_port}"

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()


def test_columns_of_any_name_can_be_logged(uri: str, folder: Path, scorer: TabularScorer, client: MlflowClient) -> None:
    """A column called "Betrag (€)" or "km//h" stops no record of a training, and no two share a metric."""
    names = ("Betrag (€)", "Betrag ($)", "Größe", "km//h", "../up", "x" * 400, "x" * 400 + "y")

    logged = log(
        uri,
        folder,
        scorer,
        model_name="named",
        params={"source": {"formats": {name: {"decimal": ","} for name in names}}},
        metrics={f"psi/{name}": float(place) for place, name in enumerate(names)},
    )

    run = client.get_run(logged.run_id)
    assert sum(name.startswith("source.formats.") for name in run.data.params) == len(names)
    assert sorted(value for name, value in run.data.metrics.items() if name.startswith("psi")) == list(
        range(len(names))
    )
    assert run.data.metrics["psi/Größe"] == 2
