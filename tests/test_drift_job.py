from __future__ import annotations

import json
import shutil
from datetime import datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from detector.errors import BundleError
from detector.persist import bundle
from pipelines.cli import app
from pipelines.config import load_config
from pipelines.listing import Listing
from pipelines.monitoring import drift
from pipelines.monitoring.drift import DriftReport, watch
from pipelines.registry.registry import ModelRegistry
from pipelines.tracking.messages import spool_of
from pipelines.tracking.usage import measured
from pipelines.training.retrain import retrain
from tests.moving_world import after, settle, world


@pytest.fixture(scope="module")
def young(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose detector learnt from the first 20 days; tests take copies."""
    folder = tmp_path_factory.mktemp("monitored")
    retrain(settle(folder, world(20)), now=after(20))
    return folder


@pytest.fixture
def home(young: Path, tmp_path: Path) -> Path:
    """A copy of that folder."""
    return Path(shutil.copytree(young, tmp_path / "home", symlinks=True))


def look(home: Path, day: int, *, changes: int = 10_000, moment: datetime | None = None) -> DriftReport:
    """Let all rows up to a day come, and look."""
    return watch(settle(home, world(day, changes=changes)), now=moment or after(day))


def test_unchanged_rows_are_no_drift(home: Path) -> None:
    """Only rows since those learnt from are looked at, each once."""
    reports = [look(home, day) for day in (21, 22, 23)]

    assert [report.drifting for report in reports] == [[], [], []]
    assert [report.rows for report in reports[1:]] == [100, 100]
    assert reports[0].rows > 100
    assert reports[0].note.startswith("No drift in")


def test_drift_must_last_and_asks_once_in_a_while(home: Path) -> None:
    """The first look only says that something moved; the second calls it drift; the next asks in five days."""
    found = [look(home, day, changes=21) for day in (21, 22, 23, 24, 28, 29)]

    assert not found[0].drifting
    assert found[1].note.startswith("a, b, c, risk, alerts moved, not yet for long")
    assert set(found[2].drifting) == {"a", "b", "c", "risk", "alerts"}
    assert [report.retrain for report in found] == [False, False, True, False, True, False]
    assert found[2].outcome()["then"] == ["retrain"]
    assert found[2].outcome()["gauges"]["drift:a"] > 1
    moved = found[2].outcome()["facts"]["columns"]
    assert {each["column"] for each in moved if each["state"] == "drift"} == {"a", "b", "c", "risk", "alerts"}
    assert all(each["index"] > each["limit"] for each in moved if each["column"] in "abc")
    (changed,) = [part for part in found[2].summary() if isinstance(part, Listing)]
    assert changed.to_json()[0]["state"] == "drift"


def test_new_detector_begins_anew(home: Path) -> None:
    """What moved against the old reference says nothing of the new one."""
    for day in (22, 23):
        look(home, day, changes=20)
    config = settle(home, world(40, changes=20))
    assert retrain(config, now=after(40)).decision.outcome == "promote"

    report = look(home, 42, changes=20)

    assert not report.drifting
    memory = json.loads((ModelRegistry(config.bundle).folder / "drift.json").read_text())
    assert memory["detector"] == bundle.fingerprint(config.bundle)
    assert len(memory["checks"]) == 1


def test_few_rows_wait_for_the_next_look(home: Path) -> None:
    """They are not lost: the next look has them too."""
    look(home, 22)
    few = watch(settle(home, world(23).head(2230)), now=after(23))
    enough = look(home, 23)

    assert few.outcome()["outcome"] == "skipped"
    assert few.note == "30 rows came since the last look; `drift.least_rows` asks for 50."
    assert enough.rows == 100


def test_clock_set_back_looks_at_nothing(home: Path) -> None:
    """Rows after now are not believed, and the place reached stays."""
    look(home, 22)

    assert look(home, 23, moment=after(21)).rows == 0
    assert look(home, 23).rows == 100


def test_many_rows_are_bounded_to_the_latest(home: Path) -> None:
    """A look after a long pause takes the latest rows only, and the next goes on behind them."""
    config = settle(home, world(40), drift={"most_rows": 300})

    assert watch(config, now=after(40)).rows == 300
    assert watch(config, now=after(40)).rows == 0


def test_damaged_memory_is_begun_anew(home: Path) -> None:
    """It held a convenience."""
    config = load_config(home)
    (ModelRegistry(config.bundle).folder / "drift.json").write_text("{")

    assert look(home, 22).rows > 100


def test_table_without_a_time_is_looked_at_in_order(tmp_path: Path) -> None:
    """Rows are counted; those counted before are not looked at again."""
    rows = world(30).drop(columns="at")
    config = settle(tmp_path, rows.head(2000), columns={"time": None})
    retrain(config, now=after(20))

    first = watch(config, now=after(20))
    settle(tmp_path, rows, columns={"time": None})
    second = watch(config, now=after(30))

    assert (first.rows, second.rows) == (2000, 1000)


def test_without_a_detector_or_a_reference_nothing_is_said(tmp_path: Path, home: Path) -> None:
    """No detector is an error; one from before there were references is told to be trained again."""
    with pytest.raises(BundleError, match="holds no trained detector"):
        watch(settle(tmp_path / "new", world(2)), now=after(2))
    config = load_config(home)
    scorer = bundle.load(config.bundle)
    del scorer.metrics["reference"]
    shutil.rmtree(ModelRegistry(config.bundle).folder)
    config.bundle.unlink()
    bundle.save(scorer, config.bundle)

    assert "Train again" in look(home, 22).note


def test_look_is_reported_as_one_point(home: Path) -> None:
    """A figure a column, in groups, with the time of the look."""
    config = settle(home, world(22), tracking={"enabled": True, "uri": "http://127.0.0.1:9"})

    report = watch(config, now=after(22))

    (entry,) = spool_of(config).entries()
    assert entry.kind == "monitoring"
    assert {"psi columns/a", "effect columns/a", "psi detector/risk", "alerts_a_day"} <= set(entry.values["metrics"])
    assert (entry.values["step"], entry.values["at"]) == (1, after(22).timestamp())
    assert "1 record waits" in report.summary()[-1]


@pytest.mark.parametrize("service", [False, True])
def test_commands_tell_people_and_the_service(home: Path, monkeypatch: pytest.MonkeyPatch, service: bool) -> None:
    """Lines for people; under the service the last line is the outcome as JSON."""
    settle(home, world(25))
    if service:
        monkeypatch.setenv("DETECTOR_RUN", "7")
    for command in (["drift"], ["retrain", "--trigger", "schedule"], ["models", "flush"]):
        done = CliRunner().invoke(app, [*command, str(home)])
        assert done.exit_code == 0, done.output
        last = done.stdout.strip().splitlines()[-1]
        assert last.startswith("{") == service
        if service:
            assert set(json.loads(last)) <= {"rows", "note", "outcome", "facts", "gauges", "then"}


def test_models_are_listed_and_moved_by_command(home: Path) -> None:
    """List, promote the challenger, go back, and an error for a name that is unknown."""
    retrain(settle(home, world(30)), now=after(30))
    run = CliRunner()

    listed = run.invoke(app, ["models", "list", str(home)])
    assert "champion" in listed.stdout
    assert "challenger" in listed.stdout
    challenger = ModelRegistry(load_config(home).bundle).state().challenger
    page = home / "bundle.models" / "reports" / f"{challenger}.html"
    models = json.loads(run.invoke(app, ["models", "list", str(home), "--json"]).stdout)["models"]
    assert [model["report"] for model in models if model["name"] == challenger] == [str(page)]
    text = page.read_text(encoding="utf-8")
    assert "Retraining report" in text
    assert "The champion stays" in text
    assert 'id="figure-comparison"' in text
    assert "keep: The champion stays" in listed.stdout.replace("\n", "")
    promoted = run.invoke(app, ["models", "promote", str(home), "--reason", "tried it"])
    assert "serves now; before," in promoted.stdout
    back = run.invoke(app, ["models", "rollback", str(home)])
    assert back.exit_code == 0
    assert run.invoke(app, ["models", "promote", str(home), "zzz"]).exit_code == 2
    assert "tried it" in run.invoke(app, ["models", "list", str(home)]).stdout


def test_empty_shelf_says_how_it_begins(tmp_path: Path) -> None:
    """Before the first training there is nothing to list or to compare, and both say how to begin."""
    settle(tmp_path, world(2))

    listed, compared = (CliRunner().invoke(app, ["models", each, str(tmp_path)]) for each in ("list", "compare"))

    assert "There is none yet. `detector train` makes the first one." in listed.stdout
    assert compared.exit_code == 2
    assert "There is no detector yet, so there is nothing to compare." in compared.output


def test_usage_is_measured_and_bounded() -> None:
    """At most 300 figures, in pairs, in the order of time."""
    with measured(every=0.0002) as points:
        sum(range(3_000_000))

    assert 2 <= len(points) <= 310
    assert [at for at, _, _ in points] == sorted(at for at, _, _ in points)
    names = [name for _, name, _ in points]
    assert names[::2] == ["process_cpu_percentage"] * (len(names) // 2)


def test_clock_set_back_lets_drift_ask_for_a_training(home: Path) -> None:
    """A request of next month, made while the clock was ahead, is no reason to wait until then."""
    config = load_config(home)
    asked = drift.DriftState(asked_at=after(60).isoformat())

    assert drift._may_ask(asked, config, after(40))
    assert not drift._may_ask(asked, config, after(61))
