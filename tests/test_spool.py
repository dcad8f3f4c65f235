from __future__ import annotations

import base64
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from mlflow import MlflowClient
from typer.testing import CliRunner

from detector import TabularDetector
from detector.persist import bundle
from pipelines.cli import app
from pipelines.config import Config
from pipelines.monitoring.drift import watch
from pipelines.registry.registry import ModelRegistry
from pipelines.tracking import DatasetFacts, Spool, TrainingRecord, keep_training
from pipelines.tracking.experiments import CURVES, LOSS, REVIEW
from pipelines.tracking.messages import flush_tracking, record_note, spool_of
from pipelines.tracking.spool import MOST_ATTEMPTS
from pipelines.training.registry_commands import promote_model, rollback_model
from pipelines.training.retrain import retrain
from pipelines.training.train import train
from tests.moving_world import after, settle, world

# MLflow and its dependencies warn about themselves on import and when a store is made.
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.slow]


class Server:
    """A real MLflow server on this machine that can be stopped and started."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.folder = folder
        self.uri = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--backend-store-uri", f"sqlite:///{self.folder}/mlflow.db", "--workers", "1"]
        command += ["--artifacts-destination", str(self.folder / "artifacts")]
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env=os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
                start_new_session=True,
            )
        for _ in range(2_400):  # a busy machine takes minutes to import it
            try:
                urllib.request.urlopen(f"{self.uri}/health", timeout=1).close()
                return
            except OSError:
                time.sleep(0.1)
        raise AssertionError((self.folder / "server.log").read_text())

    def stop(self) -> None:
        """End it and its workers at once."""
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for the module; it is not started yet."""
    made = Server(tmp_path_factory.mktemp("server"))
    yield made
    made.stop()


@pytest.fixture(scope="module")
def flushed(server: Server, tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, MlflowClient]:
    """A training, a look, a retraining and a way back, all while the server is down; then it starts."""
    folder = tmp_path_factory.mktemp("told")
    tracking = {"enabled": True, "uri": server.uri}
    config = settle(folder, world(20), tracking=tracking)
    assert train(config, now=after(20)).unsent
    config = settle(folder, world(40, changes=20), tracking=tracking)
    watch(config, now=after(30))
    assert retrain(config, now=after(40), trigger="drift").decision.outcome == "promote"
    waiting = rollback_model(config, reason="a person did not trust it", now=after(41))
    assert "wait for MLflow and will be sent later: No MLflow server answers" in waiting[-1]
    assert [entry.kind for entry in spool_of(config).entries()] == [
        "training",
        "monitoring",
        "training",
        "move",
        "move",
    ]

    server.start()
    sent = flush_tracking(config)
    assert (sent.entries, sent.waiting, sent.fault) == (5, 0, None)
    return config, MlflowClient(server.uri, server.uri)


def runs(client: MlflowClient, experiment: str, text: str = "") -> list[Any]:
    """The runs of an experiment, oldest first."""
    found = client.get_experiment_by_name(experiment)
    assert found is not None
    return list(client.search_runs([found.experiment_id], filter_string=text, order_by=["start_time ASC"]))


def test_what_waited_arrives_whole_and_in_order(flushed: tuple[Config, MlflowClient]) -> None:
    """Versions, aliases and decisions are as if the server had been there."""
    config, client = flushed
    first, second = client.get_model_version("world", "1"), client.get_model_version("world", "2")
    state = ModelRegistry(config.bundle).state()

    assert client.get_model_version_by_alias("world", "champion").version == first.version
    assert first.tags["detector.bundle"] == state.champion == bundle.fingerprint(config.bundle)
    assert second.tags["detector.bundle"] == state.before_champion()
    assert "challenger" not in client.get_registered_model("world").aliases
    assert (second.tags["decision"], first.tags["reason"]) == ("promote", "a person did not trust it")
    assert first.tags["last move"].startswith("rolled back to, 2026-")
    assert str(second.description).startswith("Promoted. The challenger serves: ")


def test_retraining_reads_well(flushed: tuple[Config, MlflowClient]) -> None:
    """The columns a reviewer wants, two datasets, the machine's load, a figure, a note, and runs of the members."""
    _, client = flushed
    (run,) = runs(client, "world", "tags.job = 'retrain'")
    tags, metrics = run.data.tags, run.data.metrics

    assert run.info.run_name == "retrain v2: promote"
    assert (tags["decision"], tags["trigger"], tags["compared by"]) == ("promote", "drift", "labels")
    assert tags["data window"].startswith("2026-01-20 to 2026-02")
    assert "risk" in tags["drift"]
    assert {"rows", "ap", "ap_champion", "ap_challenger", "gain_low", "alerts_a_day", "drifted_columns"} <= set(metrics)
    assert "## Promoted" in tags["mlflow.note.content"]
    assert [entry.tags[0].value for entry in run.inputs.dataset_inputs] == ["training", "evaluation"]
    assert any(name.startswith("system/process_memory") for name in metrics)
    files = {item.path for item in client.list_artifacts(run.info.run_id)}
    assert {"decision.md", "detector.yaml", "figures"} <= files
    assert "figures/comparison.png" in {item.path for item in client.list_artifacts(run.info.run_id, "figures")}
    (member,) = runs(client, "world", f"tags.mlflow.parentRunId = '{run.info.run_id}'")
    assert member.info.run_name == "forest"
    assert member.data.metrics["ap"] > 0.5


def test_way_back_has_a_run_of_its_own(flushed: tuple[Config, MlflowClient]) -> None:
    """A person's decision stands in the list, with its reason."""
    (run,) = runs(flushed[1], "world", "tags.job = 'rollback'")

    assert run.info.run_name == "rollback: v1 serves"
    assert run.data.tags["decision"] == "rolled back to v1"
    assert "a person did not trust it" in run.data.tags["mlflow.note.content"]


def test_experiments_say_what_they_hold(flushed: tuple[Config, MlflowClient]) -> None:
    """A description each, and a saved view with the columns that a review needs, which the runs do have."""
    _, client = flushed
    trainings, monitoring = (client.get_experiment_by_name(name) for name in ("world", "world monitoring"))
    assert trainings is not None
    assert monitoring is not None
    view = json.loads(trainings.tags[REVIEW])
    shown = json.loads(zlib.decompress(base64.b64decode(view["state"].removeprefix("deflate;"))))
    (run,) = runs(client, "world", "tags.job = 'retrain'")
    known = {f"tags.`{name}`" for name in run.data.tags} | {f"metrics.`{name}`" for name in run.data.metrics}

    assert view["name"] == "Review"
    assert set(shown["selectedColumns"]) <= known
    assert "Under Views, Review lists the decision" in trainings.tags["mlflow.note.content"]
    assert "drift" in monitoring.tags["mlflow.note.content"]


def test_loss_and_held_out_loss_are_one_chart_of_a_saved_view(flushed: tuple[Config, MlflowClient]) -> None:
    """The view Loss draws both metrics of the curves in one chart, in a section that is there."""
    _, client = flushed
    trainings = client.get_experiment_by_name("world")
    assert trainings is not None
    view = json.loads(trainings.tags[LOSS])
    shown = json.loads(zlib.decompress(base64.b64decode(view["state"].removeprefix("deflate;"))))
    (chart,), (section,) = shown["compareRunCharts"], shown["compareRunSections"]

    assert view["name"] == "Loss"
    assert chart["selectedMetricKeys"] == list(CURVES)
    assert (chart["type"], chart["metricSectionId"], chart["xAxisKey"]) == ("LINE", section["uuid"], "step")
    assert (chart["deleted"], section["deleted"], section["display"]) == (False, False, True)


def test_drift_is_a_time_series_on_one_run(flushed: tuple[Config, MlflowClient]) -> None:
    """Each look adds a point at its own time; sending one twice adds none."""
    config, client = flushed
    again = spool_of(config)
    settle(config.bundle.parent, world(45, changes=20), tracking={"enabled": True, "uri": config.tracking.uri})
    watch(config, now=after(45))
    assert again.waiting() == 0

    (run,) = runs(client, "world monitoring")
    points = client.get_metric_history(run.info.run_id, "psi columns/a")

    assert [point.step for point in points] == [1, 2]
    assert [point.timestamp / 1000 for point in points] == [after(30).timestamp(), after(45).timestamp()]
    assert run.data.tags["drift"] != ""
    assert run.info.status == "FINISHED"


def test_entry_sent_twice_leaves_one_run_and_one_version(
    flushed: tuple[Config, MlflowClient],
    server: Server,
    quick: TabularDetector,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A process killed after sending and before forgetting sends again: what it left is replaced."""
    client = flushed[1]
    bundle.save(quick.scorer_, tmp_path / "bundle")
    spool = Spool(tmp_path / "spool")
    record = TrainingRecord(
        experiment="twice",
        model_name="twice",
        bundle=tmp_path / "bundle",
        example=pd.DataFrame({"amount": [40.0], "fee": [1.0]}),
        dataset=DatasetFacts("rows", "rows.csv", 1, "d"),
        params={"a": {"b": 1}},
        metrics={"ap": 0.5},
    )
    keep_training(spool, record)
    from pipelines.tracking.sending import flush_spool

    store = f"sqlite:///{server.folder}/mlflow.db"  # the same runs, without a hundred files by HTTP
    with monkeypatch.context() as patch:
        patch.setattr(Spool, "done", lambda *_: None)
        flush_spool(spool, store)
    sent = flush_spool(spool, store)

    assert (sent.entries, spool.waiting()) == (1, 0)
    assert len(runs(client, "twice")) == 1
    assert len(client.search_model_versions("name = 'twice'")) == 1


def test_entry_that_is_refused_holds_up_no_other(flushed: tuple[Config, MlflowClient]) -> None:
    """A server that answers and refuses gets five chances; then the entry is given up with the reason."""
    config, client = flushed
    number = client.create_experiment("gone")
    client.delete_experiment(number)
    lost = config.model_copy(update={"tracking": config.tracking.model_copy(update={"experiment": "gone"})})
    given: dict[str, Any] = {"note": "", "tags": {}, "started": 0.0, "ended": 1.0}
    record_note(lost, run="lost", **given)
    record_note(config, run="kept", **given)

    for _ in range(MOST_ATTEMPTS - 1):
        sent = flush_tracking(config)
        assert (sent.entries, sent.waiting) == (0, 2)
        assert "was deleted" in str(sent.fault)
    sent = flush_tracking(config)

    assert (sent.entries, sent.waiting) == (1, 0)
    ((name, reason),) = spool_of(config).refused()
    assert name.split("-")[1] == "note"
    assert "mlflow experiments restore" in reason

    client.restore_experiment(number)
    done = CliRunner().invoke(app, ["models", "flush", str(config.file), "--refused"])
    assert "Sent 1 to MLflow; 0 wait." in done.output, done.output
    assert [run.info.run_name for run in runs(client, "gone")] == ["lost"]
    assert spool_of(config).refused() == []


def test_damaged_entry_is_refused(tmp_path: Path) -> None:
    """Half a file, which a full disk can leave, stops nobody."""
    spool = Spool(tmp_path)
    (tmp_path / spool.put("note", {}) / "entry.json").write_text("{")
    spool.put("note", {"good": True})

    assert [entry.values for entry in spool.entries()] == [{"good": True}]
    assert "damaged" in spool.refused()[0][1]


def test_full_disk_leaves_no_half_entry(tmp_path: Path) -> None:
    """An entry is there as a whole or not at all."""

    def full(_: Path) -> None:
        raise OSError(28, "No space left on device")

    spool = Spool(tmp_path)
    with pytest.raises(OSError, match="No space left"):
        spool.put("training", {}, full)

    assert spool.waiting() == 0
    assert [path.name for path in tmp_path.iterdir()] == [".lock-put"]


def test_entries_put_at_once_get_numbers_of_their_own(tmp_path: Path) -> None:
    """A service and a command that record at the same moment keep both, in one order."""
    spool = Spool(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        names = list(pool.map(lambda _: Spool(tmp_path).put("note", {}), range(40)))

    assert sorted(name[:6] for name in names) == [f"{number:06d}" for number in range(1, 41)]
    assert spool.waiting() == 40


def test_only_one_process_sends(tmp_path: Path) -> None:
    """Two jobs that end together do not send the same entry twice."""
    from pipelines.tracking.sending import flush_spool

    spool = Spool(tmp_path)
    spool.put("note", {})
    with spool.sending() as alone:
        assert alone
        assert (
            flush_spool(Spool(tmp_path), f"sqlite:///{tmp_path}/m.db").fault
            == "Another process is sending at this moment."
        )


def test_server_that_goes_away_stops_no_promotion(flushed: tuple[Config, MlflowClient], server: Server) -> None:
    """A promotion while it is down is done at once on disk, and waits to be reported."""
    config, _ = flushed
    other = str(ModelRegistry(config.bundle).state().before_champion())
    server.stop()

    started = time.monotonic()
    lines = promote_model(config, other, reason="looked again", now=after(46))

    assert time.monotonic() - started < 10
    assert bundle.fingerprint(config.bundle) == other
    assert [entry.kind for entry in spool_of(config).entries()] == ["move"]
    assert "1 record waits for MLflow and will be sent later" in lines[-1]
