from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from detector.detectors.table.scorer import TabularScorer
from detector.errors import DataError, DetectorError, SettingError
from detector.persist import bundle
from pipelines.config import Config, load_config
from pipelines.factory.metadata import reference_of
from pipelines.factory.training_period import recent, split
from pipelines.ingest.batch import InputBatch
from pipelines.jobs.context import ProcessCache
from pipelines.listing import in_json
from pipelines.registry.promotion import Decision
from pipelines.registry.registry import ModelRegistry
from pipelines.scoring import shadow
from pipelines.scoring.contract import BatchContext
from pipelines.scoring.load import load_scorer
from pipelines.scoring.shadow import ShadowTrial, begin_shadow, settle_shadow, trial_of
from pipelines.sinks.quarantine import QuarantineSink
from pipelines.sources import open_source
from pipelines.tracking import TrainingRecord
from pipelines.tracking.messages import spool_of
from pipelines.training import retrain as job
from pipelines.training.pages import page_of
from pipelines.training.registry_commands import compare_models, promote_model, rollback_model
from pipelines.training.retrain import retrain
from pipelines.training.train import train
from tests.moving_world import after, settle, world

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def young(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose first detector learnt from the first 16 of 20 days; tests take copies."""
    folder = tmp_path_factory.mktemp("world")
    retrain(settle(folder, world(20)), now=after(20))
    return folder


@pytest.fixture
def home(young: Path, tmp_path: Path) -> Path:
    """A copy of that folder."""
    return Path(shutil.copytree(young, tmp_path / "home", symlinks=True))


def serving(config: Config) -> str:
    """The name of what serves, read from the bundle itself."""
    return bundle.fingerprint(config.bundle)


def test_first_detector_serves_at_once(young: Path) -> None:
    """There was none; it remembers its days and what its rows looked like."""
    config = load_config(young)
    state = ModelRegistry(config.bundle).state()
    scorer = bundle.load(config.bundle)

    assert state.champion == serving(config)
    assert state.promotions[0].why == "The detector serves: there was none before."
    assert str(scorer.metrics["learnt_since"]).startswith("2026-01-01")
    assert str(scorer.metrics["learnt_until"]).startswith("2026-01-1")
    reference = reference_of(scorer.metrics)
    assert reference is not None
    assert [profile.name for profile in reference.profiles] == ["a", "b", "c", "risk"]


def test_unchanged_world_keeps_the_champion(home: Path) -> None:
    """A challenger that is as good is not good enough; it stays on disk and is compared with reasons."""
    config = settle(home, world(30))
    before = serving(config)

    report = retrain(config, now=after(30))

    assert report.decision.outcome == "keep"
    assert serving(config) == before == report.champion
    assert report.challenger not in ("", before)
    assert ModelRegistry(config.bundle).state().find(report.challenger).decision.startswith("keep: The champion stays")
    assert report.metrics["compared_anomalies"] >= 10
    assert report.outcome()["facts"]["decision"] == "keep"


@pytest.fixture(scope="module")
def changed(young: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """The same world after it changed on day 20 and a retraining on day 40; with its report."""
    folder = Path(shutil.copytree(young, tmp_path_factory.mktemp("changed") / "home", symlinks=True))
    report = retrain(settle(folder, world(40, changes=20)), now=after(40), trigger="drift")
    return folder, report


def test_changed_world_promotes_the_challenger(changed: tuple[Path, Any]) -> None:
    """By labels: a sure gain, with its interval, and the link moved."""
    folder, report = changed
    config = load_config(folder)

    assert report.decision.outcome == "promote"
    assert serving(config) == report.challenger == report.champion
    assert report.metrics["gain_low"] > 0
    assert report.metrics["calibration_distance_champion"] > 0.3 > report.metrics["calibration_distance_challenger"]
    assert "it finds more" in ModelRegistry(config.bundle).state().promotions[-1].why


def test_detector_of_detector_train_is_taken_over(tmp_path: Path) -> None:
    """A plain bundle becomes the champion, rows it learnt from are not compared on, and it serves throughout."""
    config = settle(tmp_path / "home", world(20))
    train(config, now=after(20))
    before = serving(config)
    settle(tmp_path / "home", world(24))

    report = retrain(config, now=after(24))

    assert config.bundle.is_symlink()
    assert ModelRegistry(config.bundle).state().models[0].name == before
    assert report.decision.outcome == "keep"


def test_detector_train_on_a_shelf_serves_and_is_remembered(home: Path) -> None:
    """Training by hand after retrainings neither fails nor loses the earlier detectors."""
    config = load_config(home)
    before = serving(config)

    train(config, now=after(21))

    state = ModelRegistry(config.bundle).state()
    assert config.bundle.is_symlink()
    assert serving(config) == state.champion != before
    assert state.before_champion() == before


def test_nothing_is_trained_for_too_few_new_rows(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A day of rows is no ground for a decision, and an hour of training would be wasted."""
    config = settle(home, world(21), retrain={"least_rows": 900})
    monkeypatch.setattr(job, "_fit", lambda *_: pytest.fail("trained"))

    report = retrain(config, now=after(21))

    assert report.decision.outcome == "keep"
    assert report.outcome()["outcome"] == "skipped"
    assert "`retrain.least_rows` asks for 900" in report.decision.reason


def test_report_of_a_retraining_goes_to_mlflow(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page that is kept beside the detectors is an artifact of the run as well."""
    config = settle(home, world(40, changes=20))
    config = config.model_copy(update={"tracking": config.tracking.model_copy(update={"enabled": True})})
    records: list[TrainingRecord] = []
    monkeypatch.setattr(job, "keep_training", lambda _, record: records.append(record))

    report = retrain(config, now=after(40))

    (record,) = records
    assert "<h1>" in record.texts["report.html"]
    assert record.texts["report.html"] == page_of(config, report.challenger).read_text(encoding="utf-8")


def test_without_labels_anomalies_are_injected(home: Path) -> None:
    """With labels too young to be believed, the champion's broken p-values and injected anomalies decide."""
    config = settle(home, world(40, changes=20), retrain={"label_delay_days": 1000})

    report = retrain(config, now=after(40))

    assert report.decision.outcome == "promote"
    assert any("recall of injected anomalies" in check.asks for check in report.decision.checks)
    assert report.metrics["compared_anomalies"] >= 20


def test_rows_are_parted_by_time_and_by_what_is_known(home: Path) -> None:
    """Neither has learnt from rows compared on; young labels are unknown; known anomalies are not learnt from."""
    config = settle(home, world(30))
    frame = recent(open_source(config.source), config, now=after(30))

    period = split(frame, config, now=after(30), champion_until="2026-01-27T12:00:00")

    assert period.learn["at"].max() <= pd.Timestamp("2026-01-27T12:00:00") < period.compare["at"].min()
    assert period.learn["at"].min() >= pd.Timestamp(after(10)).tz_localize(None) - pd.Timedelta(hours=1)
    assert not period.learn["bad"].eq(1).any()
    old = (period.compare["at"] <= pd.Timestamp(after(28)).tz_localize(None)).to_numpy()
    assert np.isnan(period.labels[~old]).all()
    assert not np.isnan(period.labels[old]).any()
    assert period.span == f"2026-01-10 to 2026-01-27, {len(period.learn):,} rows"


def test_rows_of_a_wrong_clock_are_left_out(home: Path) -> None:
    """A row from the next century would otherwise empty the period."""
    rows = world(20)
    rows.loc[5, "at"] = pd.Timestamp("2106-01-01")
    config = settle(home, rows)

    frame = recent(open_source(config.source), config, now=after(20))

    assert len(frame) == len(rows) - 1
    with pytest.raises(DataError, match="No row of .* has a 'at' up to 2020"):
        recent(open_source(config.source), config, now=after(-2000))


def test_table_without_a_time_is_parted_by_order(tmp_path: Path) -> None:
    """The last rows are the recent ones."""
    config = settle(tmp_path, world(10).drop(columns="at"), columns={"time": None})

    first = retrain(config, now=after(10))
    second = retrain(config, now=after(11))

    assert (first.decision.outcome, second.decision.outcome) == ("promote", "keep")
    assert second.metrics["compared_days"] == 0


def test_many_rows_are_thinned_and_bounded(home: Path) -> None:
    """What is held and learnt from stays within `train.rows`, spread over all days."""
    config = settle(home, world(20), train={"rows": 100})

    frame = recent(open_source(config.source), config, now=after(20))
    period = split(frame, config, now=after(20))

    assert 200 <= len(frame) <= 400
    assert frame["at"].dt.date.nunique() == 20
    assert len(period.learn) == 100


def test_changed_columns_are_compared_by_what_each_needs(home: Path) -> None:
    """A new column is used by the challenger; the champion goes on with its own."""
    rows = world(40, changes=20)
    config = settle(home, rows.assign(extra=rows["a"] ** 2))

    report = retrain(config, now=after(40))

    scorer = bundle.load(ModelRegistry(config.bundle).path_of(report.challenger))
    assert isinstance(scorer, TabularScorer)
    assert "extra" in scorer.schema.numeric
    assert report.decision.outcome == "promote"


def spoil(home: Path, how: str) -> Config:
    """A configuration under which training fails."""
    if how == "empty":
        (home / "rows.parquet").unlink()
        return load_config(home)
    if how == "constant":
        return settle(home, world(30).assign(a=1.0, b=1.0, c=1.0))
    rows = world(30)
    rows["at"] = "yesterday"
    return settle(home, rows)


@pytest.mark.parametrize("how", ["empty", "constant", "times"])
def test_failing_training_leaves_the_champion_and_a_note(home: Path, how: str) -> None:
    """Whatever is wrong with the rows, what serves goes on, and MLflow hears of it."""
    config = spoil(home, how)
    before, state = serving(config), ModelRegistry(config.bundle).state()
    noted = config.model_copy(
        update={"tracking": config.tracking.model_copy(update={"enabled": True, "uri": "http://127.0.0.1:9"})}
    )

    with pytest.raises(DetectorError):
        retrain(noted, now=after(30))

    assert serving(config) == before
    assert ModelRegistry(config.bundle).state() == state
    (entry,) = spool_of(noted).entries()
    assert (entry.kind, entry.values["failed"], entry.values["tags"]["decision"]) == ("note", True, "failed")
    assert entry.values["note"].startswith("## Training failed")


def test_detector_that_gives_no_numbers_never_serves(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A challenger whose risks are NaN is refused before anything moves."""
    config = settle(home, world(40, changes=20))
    before = serving(config)
    recalled = TabularScorer.recalled

    def diverged(self: TabularScorer, rows: pd.DataFrame) -> tuple[pd.DataFrame, np.ndarray]:
        found, learnt = recalled(self, rows)
        challenger = "made_at" in self.metrics and len(rows) > 10 and self is not first
        return (found.assign(risk=np.nan) if challenger else found), learnt

    first = bundle.load(config.bundle)
    monkeypatch.setattr(TabularScorer, "recalled", diverged)

    with pytest.raises(DetectorError):
        retrain(config, now=after(40))
    assert serving(config) == before


@pytest.mark.slow
def test_diverging_network_never_serves(home: Path) -> None:
    """A real network with an absurd step size: training says so, and the champion stays."""
    network = {"enabled": True, "hidden": [8], "code": 4, "training": {"epochs": 2, "learning_rate": 1e30}}
    config = settle(home, world(40, changes=20), train={"autoencoder": network})
    before = serving(config)

    with pytest.raises(DetectorError, match="became nan"):
        retrain(config, now=after(40))
    assert serving(config) == before


def test_person_decides_by_command(changed: tuple[Path, Any], tmp_path: Path) -> None:
    """Back, forward again, and the faults: no challenger, serving already, nothing before."""
    config = load_config(Path(shutil.copytree(changed[0], tmp_path / "home", symlinks=True)))
    second = serving(config)

    assert "serves now" in rollback_model(config, reason="too many alerts", now=after(41))[0]
    first = serving(config)
    assert first != second
    with pytest.raises(SettingError, match="There is no challenger"):
        promote_model(config, "", reason="", now=after(42))
    with pytest.raises(SettingError, match="serves already"):
        promote_model(config, first[:6], reason="", now=after(42))
    promote_model(config, second[:6], reason="looked at it", now=after(42))
    assert serving(config) == second
    assert [move.why for move in ModelRegistry(config.bundle).state().promotions[-2:]] == [
        "too many alerts",
        "looked at it",
    ]


def test_first_detector_has_no_way_back(home: Path) -> None:
    """The error says what to do."""
    with pytest.raises(SettingError, match="No detector served before this one"):
        rollback_model(load_config(home), reason="", now=after(21))


def test_two_detectors_are_compared_by_command(changed: tuple[Path, Any]) -> None:
    """On rows later than either's, without moving anything."""
    config = load_config(changed[0])
    names = ModelRegistry(config.bundle).state().names
    before = serving(config)

    found = compare_models(config, names[0], names[1], now=after(40))
    note, last = found.summary()

    assert "| average precision |" in note
    assert note.startswith("## A retraining would ")
    assert last == "Nothing was changed: this only compares."
    assert json.loads(in_json(found))["figures"]["ap_champion"] == found.comparison.champion.precision
    assert serving(config) == before


def test_winner_over_another_champion_does_not_serve(
    changed: tuple[Path, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A retraining that was held up has compared with a detector that a person has replaced meanwhile."""
    config = settle(Path(shutil.copytree(changed[0], tmp_path / "home", symlinks=True)), world(44, changes=20))

    def decide_late(*_: Any) -> Decision:
        rollback_model(config, reason="too many alerts", now=after(43))
        return Decision("promote", "It finds more.")

    monkeypatch.setattr(job, "decide", decide_late)
    report = retrain(config, now=after(44))

    state = ModelRegistry(config.bundle).state()
    assert report.decision.outcome == "keep"
    assert serving(config) == report.champion == state.champion == state.names[0]
    assert state.challenger == report.challenger
    assert "another detector serves than the one it was compared with" in state.find(report.challenger).decision
    assert [move.why for move in state.promotions].count("too many alerts") == 1


def test_trial_that_two_jobs_settle_is_settled_once(trial: tuple[Config, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A look for drift and a retraining may come to it at the same moment."""
    config, name = trial
    settled = shadow._settled
    verdicts: list[str | None] = []

    def overtaken(*given: Any) -> Any:
        monkeypatch.setattr(shadow, "_settled", settled)
        verdicts.append(settle_shadow(config, now=after(43)))
        return settled(*given)

    monkeypatch.setattr(shadow, "_settled", overtaken)
    verdicts.append(settle_shadow(config, now=after(43)))

    state = ModelRegistry(config.bundle).state()
    assert verdicts == ["promote", None]
    assert serving(config) == name
    assert [move.to for move in state.promotions[-2:]].count(name) == 1
    assert state.find(name).decision.startswith("promoted: ")


def test_trial_beside_another_champion_is_lost(trial: tuple[Config, str]) -> None:
    """The detector it scored beside no longer serves: what it has shown is no comparison with the one that does."""
    config, name = trial
    train(config, now=after(41))
    before = serving(config)

    assert settle_shadow(config, now=after(43)) == "keep"
    assert serving(config) == before
    assert "another detector serves" in ModelRegistry(config.bundle).state().find(name).decision


@pytest.fixture
def trial(changed: tuple[Path, Any], tmp_path: Path) -> tuple[Config, str]:
    """The first detector serves again, and the second one is in the shadow for three days."""
    folder = Path(shutil.copytree(changed[0], tmp_path / "home", symlinks=True))
    config = settle(folder, retrain={"shadow_days": 3})
    name = serving(config)
    rollback_model(config, reason="", now=after(40))
    begin_shadow(config, name, reason="It finds more.", now=after(40))
    return config, name


def score_shadow(config: Config, frame: pd.DataFrame, *, batch: int, now: datetime) -> Path | None:
    """Score rows with the champion, then with the challenger on trial."""
    cache = ProcessCache()
    trial = ShadowTrial.of(config, cache, now=now)
    if trial is None:
        return None
    rows = InputBatch(tuple(frame.columns), lambda _: iter([frame.reset_index(drop=True)]))
    with tempfile.TemporaryDirectory() as folder, QuarantineSink(Path(folder) / "bad.csv") as quarantine:
        scored = load_scorer(config, cache).score(rows, BatchContext(Path(folder), quarantine, now))
        assert len(list(trial.watch(scored.frames)))
    return trial.score(rows, batch=batch)


def test_shadow_scores_each_batch_once_and_flags_nothing(trial: tuple[Config, str]) -> None:
    """The same batch again writes the same file; after the trial nothing is written."""
    config, _ = trial
    batch = world(45, changes=20, seed=7).tail(300)

    first = score_shadow(config, batch, batch=7, now=after(41))
    again = score_shadow(config, batch, batch=7, now=after(42))

    assert first == again
    assert first is not None
    found = pd.read_parquet(first)
    assert len(found) == 300
    assert found["risk_challenger"].corr(found["risk_champion"]) < 1
    assert found["flagged_champion"].sum() > found["flagged_challenger"].sum() > 0
    assert len(list(first.parent.glob("*.parquet"))) == 1
    assert score_shadow(config, batch, batch=8, now=after(44)) is None


@pytest.mark.parametrize("batches", [0, 2])
def test_trial_ends_with_a_decision(trial: tuple[Config, str], batches: int) -> None:
    """Not before its days are over; then it serves, with or without batches in between."""
    config, name = trial
    for number in range(batches):
        score_shadow(config, world(45, changes=20, seed=number).tail(500), batch=number, now=after(41))

    assert settle_shadow(config, now=after(42.9)) is None
    assert settle_shadow(config, now=after(43)) == "promote"
    assert serving(config) == name
    assert trial_of(config) is None
    assert settle_shadow(config, now=after(44)) is None


def test_trial_that_floods_people_is_lost(trial: tuple[Config, str]) -> None:
    """Three times the champion's alerts in the shadow: the champion stays."""
    config, name = trial
    before = serving(config)
    path = score_shadow(config, world(45, changes=20).tail(600), batch=1, now=after(41))
    assert path is not None
    rows = pd.read_parquet(path)
    rows.assign(flagged_champion=False, flagged_challenger=rows["risk_challenger"].rank() > 500).to_parquet(path)

    assert settle_shadow(config, now=after(43)) == "keep"
    assert serving(config) == before
    assert "too many alerts" in ModelRegistry(config.bundle).state().find(name).decision


def test_trial_of_a_winner_begins_by_itself(home: Path) -> None:
    """With `shadow_days`, a winner scores beside the champion first; without batches, the next job settles it."""
    config = settle(home, world(40, changes=20), retrain={"shadow_days": 2})
    before = serving(config)

    report = retrain(config, now=after(40))

    assert (report.decision.outcome, serving(config)) == ("shadow", before)
    trial = trial_of(config)
    assert trial is not None
    assert trial.name == report.challenger
    assert settle_shadow(config, now=after(42)) == "promote"
    assert serving(config) == report.challenger


def test_series_are_retrained_too(tmp_path: Path) -> None:
    """Sensors whose level changed a month ago: the champion's p-values are broken, and the challenger repairs them."""
    columns = {"time": "at", "key": None, "label": None}
    rng, step = np.random.default_rng(0), np.arange(6000)
    rows = pd.DataFrame(
        {
            "at": pd.Timestamp(after(0)).tz_localize(None) + pd.to_timedelta(step * 10, unit="min"),
            "x": np.sin(step / 20) + rng.normal(0, 0.1, 6000) + 2 * (step >= 2000),
            "y": np.cos(step / 20) + rng.normal(0, 0.1, 6000),
        }
    )
    config = settle(tmp_path, rows.head(2000), kind="sensors", columns=columns)
    retrain(config, now=after(14))
    settle(tmp_path, rows, kind="sensors", columns=columns)

    report = retrain(config, now=after(42))

    assert report.decision.outcome == "promote"
    assert report.metrics["calibration_distance_champion"] > 0.5 > report.metrics["calibration_distance_challenger"]


def test_a_new_machine_stops_no_retraining(tmp_path: Path) -> None:
    """It is learnt once there are eight windows of it; until then the others go on without it."""
    columns = {"time": "at", "entity": "pump", "key": None, "label": None}
    series = {"models": "entity", "window": 16}
    rng, step = np.random.default_rng(0), np.arange(2000)
    one = pd.DataFrame(
        {
            "at": pd.Timestamp(after(0)).tz_localize(None) + pd.to_timedelta(step * 20, unit="min"),
            "pump": "old",
            "x": np.sin(step / 20) + rng.normal(0, 0.1, 2000),
            "y": np.cos(step / 20) + rng.normal(0, 0.1, 2000),
        }
    )
    new = one.iloc[1500:].assign(pump="new")
    given = {"kind": "sensors", "columns": columns, "series": series}
    retrain(settle(tmp_path, one.head(1000), **given), now=after(14))

    short = retrain(settle(tmp_path, pd.concat([one.head(1530), new.head(30)]), **given), now=after(22))
    longer = retrain(settle(tmp_path, pd.concat([one, new]), **given), now=after(28))

    assert short.decision.outcome in ("keep", "promote")
    assert longer.challenger
    scorer = bundle.load(ModelRegistry(load_config(tmp_path).bundle).path_of(longer.challenger))
    assert set(scorer.models) == {"old", "new"}


POINTS = [
    "adopt.copied",
    "adopt.listed",
    "retrain.fitting",
    "retrain.fitted",
    "retrain.saved",
    "retrain.placed",
    "retrain.compared",
    "spool.built",
    "retrain.kept",
    "promote.begun",
    "promote.linked",
    "promote.notified",
    "retrain.decided",
]
DRIVER = """
import json, os, shutil, sys, time
from pathlib import Path
import sklearn.ensemble, onnxruntime, onnx
import pipelines.training.retrain as job
from detector.persist import bundle
from pipelines.config import load_config
from pipelines.registry.registry import ModelRegistry
from pipelines.tracking.messages import spool_of
from tests.moving_world import after
import pipelines.reports.style, pipelines.training.review, pipelines.training.run_record, pipelines.tracking.sending

def child(work):
    pid = os.fork()
    if pid == 0:
        sys.stderr = open(os.devnull, "w")
        try:
            work()
            os._exit(0)
        except BaseException as error:
            print(repr(error), file=sys.__stderr__, flush=True)
            os._exit(7)
    return pid

def state(config):
    registry = ModelRegistry(config.bundle)
    found, spool = registry.state(), spool_of(config).entries()
    loaded = bundle.load(config.bundle)
    return {
        "serving": bundle.fingerprint(config.bundle), "champion": found.champion, "moving": bool(found.begun),
        "moves": [move.to for move in found.promotions], "kept": found.names,
        "told": [entry.values["bundle"] for entry in spool if entry.kind == "move"], "left": sorted(
            path.name for path in [*config.bundle.parent.glob(".bundle*"), *registry.folder.glob(".new*")]),
    }

def read(config, stop):
    while not stop.exists():
        bundle.load(config.bundle)
        time.sleep(0.1)

pipelines.reports.style.to_png = lambda figure: b"png"
pipelines.training.review.figures = lambda *given, **named: {}
pipelines.training.run_record.comparison_figure = lambda found: None
home, points, results = Path(sys.argv[1]), sys.argv[2:], {}
for point in points:
    folder = home.parent / point
    shutil.copytree(home, folder, symlinks=True)
    config, stop = load_config(folder), folder / "stop"
    reader = child(lambda: read(config, stop))
    def killed():
        os.environ["DETECTOR_FAULT"] = f"{point}:1"
        job.retrain(config, now=after(40))
    status = os.waitpid(child(killed), 0)[1]
    seen = {"signal": os.WTERMSIG(status) if os.WIFSIGNALED(status) else -os.WEXITSTATUS(status)}
    pipe = folder / "state.json"
    def look(name):
        os.waitpid(child(lambda: (folder / name).write_text(json.dumps(state(config)))), 0)
        return json.loads((folder / name).read_text())
    seen["after"] = look("after.json")
    again = os.waitpid(child(lambda: job.retrain(config, now=after(40))), 0)[1]
    seen["again"] = again
    seen["end"] = look("end.json")
    stop.touch()
    seen["reader"] = os.waitpid(reader, 0)[1]
    results[point] = seen
print(json.dumps(results))
"""


@pytest.fixture(scope="module")
def killings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A retraining killed at each point, then started again, all the while another process reads the bundle.

    The champion is a plain bundle, so that taking it over is killed too. One process that has done all imports forks
    the others: it runs no model itself, so nothing is inherited but modules.
    """
    home = tmp_path_factory.mktemp("killed") / "home"
    down = {"enabled": True, "uri": "http://127.0.0.1:9"}
    config = settle(home, world(20))
    train(config, now=after(20))
    settle(home, world(40, changes=20), tracking=down, train={"forest": {"trees": 10}})
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, str(home), *POINTS],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout)) | {"first": serving(config)}


@pytest.mark.slow
@pytest.mark.parametrize("point", POINTS)
def test_killed_retraining_harms_nothing(killings: dict[str, Any], point: str) -> None:
    """Kill -9 at any point: a whole detector serves at every moment, and the next retraining mends the rest."""
    found = killings[point]
    assert found["signal"] == 9
    assert found["reader"] == 0, "a reader met half a bundle"

    after_kill, end = found["after"], found["end"]
    promoted = point in ("promote.linked", "promote.notified", "retrain.decided")
    assert (after_kill["serving"] != killings["first"]) == promoted

    assert found["again"] == 0
    assert end["serving"] == end["champion"] in end["kept"]
    assert end["serving"] != killings["first"]
    assert not end["moving"]
    assert end["left"] == []
    assert end["moves"][-1] == end["serving"]
    assert end["told"][-1] == end["serving"]
    assert len(end["moves"]) == len(set(end["moves"])) == len(set(end["told"]))
