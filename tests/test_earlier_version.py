"""What commit 4640342 left behind goes on: bundles, a logged model, what waits for MLflow, the state of services.

The fixtures lie beside this file, see their README. Only what users reach is used here: names exported by ``detector``,
the command line, MLflow.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from detector import Policy, load

# MLflow and its dependencies warn about themselves on import and when a store is made.
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.slow]

FIXTURES = Path(__file__).parent / "fixtures" / "commit_4640342"
VERDICT = ["risk", "p_value", "flagged", "severity", "reasons"]
TOLD = ("kind", "source", "about", "severity", "first_at", "last_at", "rows", "p_value", "amount", "keys")
SECONDS = 180.0
"""Patience with a process that starts: three busy neighbours on two cores have made it 30."""
LOADER = """
import sys
import time
import detector
import mlflow
import pandas as pd
assert detector.TabularScorer
model = mlflow.pyfunc.load_model(sys.argv[1])
assert sys.modules["pipelines.pyfunc"].__file__.startswith(sys.argv[1])
model.predict(pd.read_parquet(sys.argv[2])).to_csv(sys.argv[3], index=False)
"""


def place(name: str, folder: Path) -> Path:
    """A copy in another folder, of files that are as new as after a checkout."""
    return Path(shutil.copytree(FIXTURES / name, folder / "project", symlinks=True, copy_function=shutil.copy))


def detector(project: Path, *arguments: str, text: str = "") -> str:
    """Run a command in a process of its own, as after a restart; what it printed."""
    done = subprocess.run(
        command(*arguments), cwd=project, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert text in done.stdout
    return done.stdout


def command(*arguments: str) -> list[str]:
    """``detector`` of this environment."""
    return [sys.executable, "-m", "pipelines", *arguments]


def environment() -> dict[str, str]:
    """Of this process, with the places it imports from, and room for tables."""
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "COLUMNS": "200"}


def read(file: Path) -> pd.DataFrame:
    """Scores from a file, in which a text that is not there is empty."""
    frame = pd.read_parquet(file) if file.suffix == ".parquet" else pd.read_csv(file)
    return frame.assign(**{name: frame[name].fillna("").astype("str") for name in ("severity", "reasons")})


def scores_of(project: Path) -> pd.DataFrame:
    """All scores that count, of a service that writes a file a batch."""
    return pd.concat([read(file) for file in sorted((project / "scores").glob("*.parquet"))], ignore_index=True)


def has_scored(project: Path, rows: int) -> bool:
    """Whether a service that runs has written so many rows; as it starts it moves a file that does not count."""
    try:
        return len(scores_of(project)) == rows
    except FileNotFoundError:
        return False


def assert_same(found: pd.DataFrame, expected: pd.DataFrame, *, key: str) -> None:
    """Each row is there once, and is judged as before."""
    found, expected = (frame.set_index(frame[key].astype("str"))[VERDICT].sort_index() for frame in (found, expected))
    assert found.index.is_unique
    assert_alike(found, expected)


def assert_alike(found: pd.DataFrame, expected: pd.DataFrame) -> None:
    """The same but for the words of reasons: which deviations count, and what they are compared with, has changed.

    The same rows have reasons, and of half the first is about the same: beside a fault, a sensor's window names the
    sensor at fault now, and others before.
    """
    ours, theirs = found["reasons"], expected["reasons"]
    assert ours.ne("").tolist() == theirs.ne("").tolist()
    same = ours[ours.ne("")].str.split().str[0].to_numpy() == theirs[theirs.ne("")].str.split().str[0].to_numpy()
    assert same.mean() > 0.5
    words = ["reasons", "text", "sensors"]
    found, expected = (frame.drop(columns=words, errors="ignore") for frame in (found, expected))
    pd.testing.assert_frame_equal(found, expected, check_dtype=False, check_index_type=False, rtol=1e-6)


def alerts_of(project: Path) -> list[dict[str, Any]]:
    """What was delivered to the file, in order."""
    return [json.loads(line) for line in (project / "alerts.jsonl").read_text(encoding="utf-8").splitlines()]


def assert_reported_once(project: Path, name: str) -> None:
    """What was delivered before is not delivered again, what waited is, word for word, and so is what came to it."""
    expected = json.loads((FIXTURES / name / "expected" / "alerts.json").read_text(encoding="utf-8"))
    before = (FIXTURES / name / "project" / "alerts.jsonl").read_text(encoding="utf-8")
    old, found = {*expected["sent"], *expected["waiting"]}, alerts_of(project)
    assert (project / "alerts.jsonl").read_text(encoding="utf-8").startswith(before)
    assert len({alert["id"] for alert in found}) == len(found)
    waited = {alert["id"]: alert for alert in found if alert["id"] in expected["waiting"]}
    assert waited.keys() == set(expected["waiting"])
    for alert in expected["alerts"]:
        if alert.get("id") in waited:
            assert {key: waited[alert["id"]][key] for key in alert} == alert
    assert told(alert for alert in found if alert["id"] not in old) == told(
        alert for alert in expected["alerts"] if alert.get("id") not in old
    )


def told(alerts: Any) -> list[str]:
    """What new alerts say, whatever they are named, in no order."""
    return sorted(json.dumps({name: alert[name] for name in TOLD}) for alert in alerts)


def wait_until(condition: Callable[[], bool]) -> None:
    """Look now and then whether something is so."""
    deadline = time.monotonic() + SECONDS
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert condition()


def test_bundle_of_a_table_scores_as_before() -> None:
    """A bundle of all members and a head that decides loads, and gives risk, p-value, flag, severity and reasons."""
    rows = pd.read_parquet(FIXTURES / "mlflow_model" / "rows.parquet")
    scorer = load(FIXTURES / "table" / "project" / "bundle")

    verdicts = scorer.judge(rows, policy=Policy(quantile=0.97)).frame

    expected = read(FIXTURES / "mlflow_model" / "predictions.csv").query("severity != 'quarantined'")
    assert_same(verdicts, expected, key="transaction_id")


def test_table_is_scored_as_before(tmp_path: Path) -> None:
    """`detector score` reads the configuration, the bundle and the past of the cards, and says of each row the same."""
    project = place("table/project", tmp_path)

    detector(project, "score", ".", "--input", "rows.csv")

    expected = read(FIXTURES / "table" / "expected" / "scores.csv")
    assert_same(read(project / "scores.csv"), expected, key="transaction_id")


def test_sensors_are_scored_as_before(tmp_path: Path) -> None:
    """`detector score` says of each reading the same, and gathers the same events."""
    project = place("sensors/project", tmp_path)

    detector(project, "score", ".", "--input", "rows.csv")

    assert_same(read(project / "scores.csv"), read(FIXTURES / "sensors" / "expected" / "scores.csv"), key="id")
    found, expected = read(project / "scores.events.csv"), read(FIXTURES / "sensors" / "expected" / "events.csv")
    found[["start", "end", "peak"]] = found[["start", "end", "peak"]].apply(pd.to_datetime)
    expected[["start", "end", "peak"]] = expected[["start", "end", "peak"]].apply(pd.to_datetime)
    assert_alike(found[expected.columns], expected)


def test_bundle_of_sensors_scores_as_before() -> None:
    """A bundle of all members of series loads, and gives risk, p-value, flag, severity and reasons."""
    rows = pd.read_csv(FIXTURES / "sensors" / "project" / "rows.csv", parse_dates=["when"])
    scorer = load(FIXTURES / "sensors" / "project" / "bundle")

    verdicts = scorer.judge(rows, policy=Policy(quantile=0.997)).frame

    assert_same(verdicts, read(FIXTURES / "sensors" / "expected" / "scores.csv"), key="id")


def test_logged_model_predicts_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow loads what was logged by the name of its loader, and says of each row the same, unusable ones included."""
    import mlflow

    import pipelines  # noqa: F401 - then the model's own code, which MLflow puts beside it, is not looked for

    monkeypatch.setattr(sys, "path", list(sys.path))
    model = mlflow.pyfunc.load_model(str(FIXTURES / "mlflow_model" / "model"))

    said = model.predict(pd.read_parquet(FIXTURES / "mlflow_model" / "rows.parquet"))

    said = said.assign(**{name: said[name].fillna("").astype("str") for name in ("severity", "reasons")})
    expected = read(FIXTURES / "mlflow_model" / "predictions.csv")
    assert_alike(said[VERDICT], expected[VERDICT])


def test_logged_model_finds_this_library_with_its_own_loader(tmp_path: Path) -> None:
    """Where `detector` is imported first and `pipelines` is not, the loader logged with the model works with it."""
    model = Path(shutil.copytree(FIXTURES / "mlflow_model" / "model", tmp_path / "model"))
    (model / "code" / "pipelines").mkdir(parents=True)
    for file in (FIXTURES / "mlflow_model" / "code" / "pipelines").iterdir():
        shutil.copy(file, model / "code" / "pipelines" / file.stem)
    rows, said = FIXTURES / "mlflow_model" / "rows.parquet", tmp_path / "said.csv"

    done = subprocess.run(
        [sys.executable, "-c", LOADER, str(model), str(rows), str(said)],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    expected = read(FIXTURES / "mlflow_model" / "predictions.csv")
    assert_alike(read(said)[VERDICT], expected[VERDICT])


def test_service_of_a_table_goes_on(tmp_path: Path) -> None:
    """The open batch is finished, a new file scored, each row once, by its card's past; alerts are reported once."""
    project = place("service/project", tmp_path)

    detector(project, "jobs", "run", ".", "score")
    detector(project, "jobs", "run", ".", "deliver")

    expected = read(FIXTURES / "service" / "expected" / "scores.csv")
    assert_same(scores_of(project), expected, key="transaction_id")
    assert_reported_once(project, "service")
    detector(project, "jobs", "run", ".", "score", text="nothing new")
    assert len(scores_of(project)) == len(expected)
    detector(project, "alerts", "show", ".", alerts_of(project)[0]["id"], text="fine by ann")


def test_service_of_sensors_goes_on(tmp_path: Path) -> None:
    """The same for series: rows that waited are scored once, as if all had come at once; alerts are reported once."""
    project = place("service_sensors/project", tmp_path)

    detector(project, "jobs", "run", ".", "score")
    detector(project, "jobs", "run", ".", "deliver")

    assert_same(scores_of(project), read(FIXTURES / "service_sensors" / "expected" / "scores.csv"), key="id")
    assert_reported_once(project, "service_sensors")


def test_service_starts_with_the_schedule_it_had(tmp_path: Path) -> None:
    """Next times are kept; what the schedule held in pickles is dropped, and none of them is opened."""
    project, now = place("service/project", tmp_path), datetime.now(UTC)
    later = now + timedelta(minutes=3)
    pickled = b"cos\nsystem\n(S'touch opened'\ntR."
    with sqlite3.connect(project / "service.sqlite") as connection:
        connection.execute(
            "CREATE TABLE apscheduler_jobs (id VARCHAR(191) NOT NULL PRIMARY KEY, next_run_time FLOAT(25), "
            "job_state BLOB NOT NULL)"
        )
        rows = [("score", now.timestamp(), pickled), ("deliver", now.timestamp(), pickled)]
        rows.append(("housekeeping", later.timestamp(), pickled))
        connection.executemany("INSERT INTO apscheduler_jobs VALUES (?, ?, ?)", rows)
    connection.close()
    settings = yaml.safe_load((project / "detector.yaml").read_text(encoding="utf-8"))
    settings["service"]["jobs"] = {
        "score": {"when": "every 5m"},
        "deliver": {"when": "every 1m"},
        "housekeeping": {"when": "every 1d"},
        "retrain": {"enabled": False},
        "drift": {"enabled": False},
    }
    (project / "detector.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    wanted = len(read(FIXTURES / "service" / "expected" / "scores.csv"))

    with (project / "log").open("wb") as log:
        process = subprocess.Popen(command("serve", "."), cwd=project, env=environment(), stdout=log, stderr=log)
    try:
        wait_until(lambda: process.poll() is not None or has_scored(project, wanted))
        process.send_signal(signal.SIGTERM)
        assert process.wait(SECONDS) == 0
    finally:
        process.kill()
        process.wait()

    assert not (project / "opened").exists()
    assert "Traceback" not in (project / "log").read_text()
    with sqlite3.connect(project / "service.sqlite") as connection:
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'apscheduler_jobs'").fetchone()
    connection.close()
    assert tables == 0
    assert f"{later.astimezone():%Y-%m-%d %H:%M:%S}" in detector(project, "jobs", "list", ".")


def test_detectors_on_disk_can_be_moved(tmp_path: Path) -> None:
    """The list of detectors is read: which serves, which served before; each can serve again."""
    project = place("service/project", tmp_path)
    kept = json.loads((project / "bundle.models" / "models.json").read_text(encoding="utf-8"))
    names = [each["name"] for each in kept["kept"]]

    listed = detector(project, "models", "list", ".")

    assert [name in listed for name in names] == [True, True]
    detector(project, "models", "promote", ".", next(name for name in names if name != kept["champion"]))
    detector(project, "models", "rollback", ".", text=kept["champion"])


def test_what_waited_for_mlflow_is_sent(tmp_path: Path) -> None:
    """Trainings, notes, looks for drift and moves that were kept while MLflow was down come to it in their order."""
    project = place("service/project", tmp_path)
    settings = (project / "detector.yaml").read_text(encoding="utf-8")
    (project / "detector.yaml").write_text(settings.replace("http://127.0.0.1:9", "sqlite:///mlflow.db"))

    detector(project, "models", "flush", ".")

    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{project}/mlflow.db", f"sqlite:///{project}/mlflow.db")
    assert {int(found.version) for found in client.search_model_versions("name = 'payments'")} == {1, 2}
    assert int(client.get_model_version_by_alias("payments", "champion").version) == 1
    assert not list((project / "bundle.models" / "spool").glob("0*"))
