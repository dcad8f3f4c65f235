"""Sensors through the same commands as tables: train, score, evaluate, report."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from typer.testing import CliRunner

from detector.detectors.series.scorer import SequenceScorer
from detector.errors import SettingError
from detector.persist import bundle
from pipelines.cli import app
from pipelines.config import Config, load_config
from pipelines.factory.kinds import KINDS
from pipelines.factory.machines import some_machines
from pipelines.lab.evaluate import evaluate_encoders
from pipelines.listing import Listing
from pipelines.scoring.one_off import score
from pipelines.simulate import simulate_sensors
from pipelines.sources import open_source
from pipelines.training.evaluate import evaluate
from pipelines.training.train import TrainReport, train

NOW = datetime(2026, 3, 1, tzinfo=UTC)
SETTINGS = {
    "name": "machines",
    "kind": "sensors",
    "source": {"path": "readings.parquet"},
    "columns": {
        "time": "time",
        "entity": "machine",
        "label": "anomaly",
        "ignore": ["anomaly_kind", "anomaly_sensor"],
    },
    "series": {"window": 16, "models": "entity"},
    "train": {"review_share": 0.3},
    "policy": {"quantile": 0.99},
    "tracking": {"enabled": False},
}


@pytest.fixture(scope="module")
def readings() -> pd.DataFrame:
    """Two machines with four sensors; the last third has faults."""
    return simulate_sensors(
        9_000, seed=3, machines=2, sensors=4, normal_share=0.66, anomalies=["stuck", "level_shift", "missing"]
    )


@pytest.fixture(scope="module")
def trained(readings: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, TrainReport]:
    """A detector in a folder, trained once; tests must not change it."""
    folder = tmp_path_factory.mktemp("machines")
    readings.to_parquet(folder / "readings.parquet")
    readings.iloc[6_000:].to_parquet(folder / "fresh.parquet")
    (folder / "detector.yaml").write_text(yaml.safe_dump(SETTINGS), encoding="utf-8")
    config = load_config(folder)
    return config, train(config, now=NOW)


def test_training_finds_the_faults_in_what_was_kept_apart(trained: tuple[Config, TrainReport]) -> None:
    """The last third of each machine's rows; its truth is by row and by event."""
    config, report = trained

    assert isinstance(bundle.load(config.bundle), SequenceScorer)
    truth = report.reviewed.truth
    assert truth is not None
    assert truth["auroc"] > 0.8
    assert truth["found_events"] >= 2
    assert len(report.reviewed.scored) == pytest.approx(2_700, abs=4)
    assert set(report.reviewed.scored["entity"]) == {"M1", "M2"}


def test_report_shows_events_with_their_curves(trained: tuple[Config, TrainReport]) -> None:
    """One figure an event, observed against expected."""
    page = trained[0].report.read_text(encoding="utf-8")

    assert "Flagged events, riskiest first" in page
    assert "Events found" in page
    assert page.count("observed") >= len(trained[1].reviewed.alerts.head(6))
    assert "mathdefault" not in page


def test_scoring_writes_every_row_and_every_event(trained: tuple[Config, TrainReport], tmp_path: Path) -> None:
    """Rows in the order they came; events beside them."""
    config = trained[0]
    folder = config.bundle.parent

    report = score(config, input=str(folder / "fresh.parquet"), output=str(tmp_path / "out.parquet"), now=NOW)

    fresh, rows = pd.read_parquet(folder / "fresh.parquet"), pd.read_parquet(tmp_path / "out.parquet")
    events = pd.read_parquet(tmp_path / "out.events.parquet")
    assert rows["machine"].tolist() == fresh["machine"].tolist()
    assert rows["time"].tolist() == fresh["time"].tolist()
    assert rows["flagged"].sum() == report.flagged > 0
    assert rows.loc[rows["flagged"], "reasons"].str.contains("% of the risk").all()
    assert 0 < len(events) <= report.flagged
    assert (events["start"] <= events["end"]).all()
    assert {"entity", "severity", "sensors", "reasons", "model_version"} <= set(events)
    (listed,) = (part for part in report.summary() if isinstance(part, Listing))
    assert listed.rows[0]["time"].startswith(str(events.loc[events["risk"].idxmax(), "start"]))


def test_sensors_go_by_the_names_that_people_have_for_them(trained: tuple[Config, TrainReport], tmp_path: Path) -> None:
    """In scores, in events and their text, and in the report; pictures still find their sensor."""
    folder = trained[0].bundle.parent
    sensor = trained[1].reviewed.reasons[0][0].feature
    columns = {**SETTINGS["columns"], "names": {sensor: {"name": "the named sensor", "unit": "units"}}}
    (folder / "named.yaml").write_text(yaml.safe_dump({**SETTINGS, "columns": columns}), encoding="utf-8")
    config = load_config(folder / "named.yaml")

    score(config, input=str(folder / "readings.parquet"), output=str(tmp_path / "scores.parquet"), now=NOW)
    found = evaluate(config, input=str(folder / "readings.parquet"), now=NOW)

    scores = pd.read_parquet(tmp_path / "scores.parquet")
    events = pd.read_parquet(tmp_path / "scores.events.parquet")
    assert scores["reasons"].str.contains("the named sensor").any()
    assert events["reasons"].str.contains("the named sensor").any()
    assert not scores["reasons"].str.contains(f"(?:^|[|] ){sensor} ", regex=True).any()
    page = found.report.read_text(encoding="utf-8")
    assert "<strong>the named sensor</strong>" in page
    assert 'id="figure-event_1"' in page


def test_evaluation_counts_events(trained: tuple[Config, TrainReport]) -> None:
    """As ``detector evaluate`` prints it."""
    config = trained[0]

    report = evaluate(config, input=str(config.bundle.parent / "fresh.parquet"), now=NOW)

    assert any(line.startswith("Events: found") for line in report.summary())
    assert "Flagged events" in report.report.read_text(encoding="utf-8")


@pytest.mark.slow
def test_encoders_are_compared_on_the_same_windows(trained: tuple[Config, TrainReport]) -> None:
    """One line an encoder, what it stands, a figure of each; an unknown name is refused."""
    config = trained[0]
    brief = config.series.encoder.model_copy(
        update={"training": config.series.encoder.training.model_copy(update={"epochs": 1, "max_steps": 50})}
    )
    config = config.model_copy(update={"series": config.series.model_copy(update={"encoder": brief})})
    fresh = str(config.bundle.parent / "fresh.parquet")

    report = evaluate_encoders(config, encoders=["dense"], input=fresh, now=NOW)

    assert list(report.table.index) == ["dense"]
    assert 0 < report.table.loc["dense", "error_held_out"] < 1
    assert set(report.robustness["damage"]) == {"noise", "missing", "contamination"}
    assert any("rows/s" in line for line in report.summary())
    assert report.report.read_text(encoding="utf-8").count("<svg") >= 2
    with pytest.raises(SettingError, match="no encoder 'conv2d' for sensors. Did you mean 'conv1d'"):
        evaluate_encoders(config, encoders=["conv2d"], input=fresh, now=NOW)


def test_scoring_sensors_loads_neither_tensorflow_nor_scikit_learn(
    trained: tuple[Config, TrainReport], tmp_path: Path
) -> None:
    """In a process of its own."""
    folder = trained[0].bundle.parent
    code = (
        "import sys; from pipelines.cli import app\n"
        f"try: app(['score', {str(folder)!r}, '--input', {str(folder / 'fresh.parquet')!r}, "
        f"'--output', {str(tmp_path / 'o.csv')!r}])\n"
        "except SystemExit as done: print('exit', done.code)\n"
        "print(sorted({'tensorflow', 'keras', 'sklearn'} & set(sys.modules)))"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.splitlines()[-2:] == ["exit 0", "[]"]


def test_only_the_latest_rows_are_learnt_from(readings: pd.DataFrame, tmp_path: Path) -> None:
    """A random sample would tear series apart."""
    readings.sample(frac=1, random_state=0).to_parquet(tmp_path / "readings.parquet")
    settings = SETTINGS | {"train": {"rows": 1_000, "review_share": 0.3}}
    (tmp_path / "detector.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")

    report = train(load_config(tmp_path), now=NOW)

    assert report.rows + len(report.reviewed.scored) == 1_000
    assert report.reviewed.scored["time"].max() == readings["time"].max()


def test_registered_model_scores_like_the_command(
    readings: pd.DataFrame, tmp_path: Path, trained: tuple[Config, TrainReport]
) -> None:
    """What MLflow loads judges a frame as ``detector score`` does, row by row."""
    from pipelines.tracking.pyfunc import ScoredTable

    config = trained[0]
    fresh = readings.iloc[6_000:].sample(frac=1, random_state=1)
    fresh.to_parquet(tmp_path / "mixed.parquet")
    score(config, input=str(tmp_path / "mixed.parquet"), output=str(tmp_path / "out.parquet"), now=NOW)
    commanded = pd.read_parquet(tmp_path / "out.parquet")

    from pipelines.factory.detector import policy_of

    scorer = bundle.load(config.bundle)
    loaded = ScoredTable(scorer, policy_of(config.policy, scorer.schema)).predict(fresh)

    assert loaded.index.equals(fresh.index)
    assert np.allclose(loaded["risk"].to_numpy(), commanded["risk"].to_numpy())
    assert loaded["flagged"].tolist() == commanded["flagged"].tolist()


@pytest.mark.parametrize(
    ("change", "reason"),
    [({"time": "soon"}, "time: 'soon' is not a date"), ({"machine": None}, "machine: the entity is missing")],
    ids=["no time", "no machine"],
)
def test_rows_none_of_which_can_be_scored_are_quarantined(
    trained: tuple[Config, TrainReport], tmp_path: Path, change: dict[str, Any], reason: str
) -> None:
    """By the command and by what MLflow loads, as rows of a table are."""
    from pipelines.tracking.pyfunc import ScoredTable

    config = trained[0]
    unread = pd.read_parquet(config.bundle.parent / "fresh.parquet").head(30).assign(**change)
    unread.to_parquet(tmp_path / "in.parquet")

    report = score(config, input=str(tmp_path / "in.parquet"), output=str(tmp_path / "out.parquet"), now=NOW)
    loaded = ScoredTable(bundle.load(config.bundle)).predict(unread)

    assert (report.rows, report.scored, report.quarantined) == (30, 0, 30)
    assert loaded["severity"].eq("quarantined").all()
    assert loaded["reasons"].eq(reason).all()
    assert loaded["risk"].isna().all()
    assert not loaded["flagged"].any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows.iloc[:5], "a window 16"),
        (lambda rows: rows.drop(columns="speed_rpm"), "Column 'speed_rpm' is missing"),
        (lambda rows: rows.assign(machine="M9"), "No model was fitted for 'M9'"),
        (lambda rows: rows.iloc[:0], "no rows"),
    ],
    ids=["too short", "lost sensor", "unknown machine", "empty"],
)
def test_what_cannot_be_scored_is_said(
    trained: tuple[Config, TrainReport], tmp_path: Path, change: object, message: str
) -> None:
    """One message, an exit code, nothing half written."""
    folder = trained[0].bundle.parent
    change(pd.read_parquet(folder / "fresh.parquet")).to_parquet(tmp_path / "in.parquet")  # type: ignore[operator]

    done = CliRunner().invoke(
        app, ["score", str(folder), "--input", str(tmp_path / "in.parquet"), "--output", str(tmp_path / "out.parquet")]
    )

    assert done.exit_code in (1, 2)
    assert message in done.output
    assert "Traceback" not in done.output
    assert not (tmp_path / "out.parquet").exists()


def test_machine_none_of_whose_rows_could_be_used_is_named(trained: tuple[Config, TrainReport], tmp_path: Path) -> None:
    """Nothing else in the summary would say that it was not looked at; one with a few bad rows is not named."""
    fresh = pd.read_parquet(trained[0].bundle.parent / "fresh.parquet")
    lost, other = sorted(fresh["machine"].unique())
    speed = fresh["speed_rpm"].astype(object).where(fresh["machine"] != lost, "n.v.")
    speed[fresh.index[fresh["machine"] == other][:3]] = "n.v."
    fresh.assign(speed_rpm=speed.astype(str)).to_parquet(tmp_path / "in.parquet")

    report = score(trained[0], input=str(tmp_path / "in.parquet"), output=str(tmp_path / "out.parquet"), now=NOW)

    assert report.absent == (lost,)
    assert f"No row of {lost} could be used; nothing is known of it." in report.summary()


def test_machine_that_has_fallen_silent_is_named(trained: tuple[Config, TrainReport], tmp_path: Path) -> None:
    """No row of it is there to be flagged; with rows to the end there is nothing to say."""
    fresh = pd.read_parquet(trained[0].bundle.parent / "fresh.parquet")
    silent, other = sorted(fresh["machine"].unique())
    last = fresh["time"].max()
    early = fresh[(fresh["machine"] != silent) | (fresh["time"] < last - pd.Timedelta("3h"))]
    since = early.loc[early["machine"] == silent, "time"].max()
    found = []
    for name, rows in (("whole", fresh), ("early", early)):
        rows.to_parquet(tmp_path / f"{name}.parquet")
        report = score(
            trained[0], input=str(tmp_path / f"{name}.parquet"), output=str(tmp_path / "out.parquet"), now=NOW
        )
        found.append([line for line in report.summary() if str(line).startswith("No row of")])

    assert found == [
        [],
        [f"No row of {silent} since {since:%Y-%m-%d %H:%M}, though others have later ones (`series.silent_minutes`)."],
    ]
    assert other not in found[1][0]


def test_a_machine_that_is_no_longer_what_was_learnt_is_named(
    trained: tuple[Config, TrainReport], tmp_path: Path
) -> None:
    """A summer after a winter is many events, and none is a fault: what can be done about it is said."""
    fresh = pd.read_parquet(trained[0].bundle.parent / "fresh.parquet")
    warm, other = sorted(fresh["machine"].unique())
    sensor = "speed_rpm"
    warmer = fresh.assign(**{sensor: fresh[sensor].where(fresh["machine"] != warm, fresh[sensor] + 4_000)})
    said = []
    for name, rows in (("fresh", fresh), ("warmer", warmer)):
        rows.to_parquet(tmp_path / f"{name}.parquet")
        report = score(
            trained[0], input=str(tmp_path / f"{name}.parquet"), output=str(tmp_path / "out.parquet"), now=NOW
        )
        said.append([str(line) for line in report.summary() if "unlike what was learnt" in str(line)])

    assert said[0] == []
    (line,) = said[1]
    assert line.startswith("Flagged are ")
    assert f" of the rows of {warm}:" in line
    assert "`detector train`" in line
    assert other not in line


def test_a_policy_that_no_row_can_pass_is_said_where_nothing_is_flagged(tmp_path: Path) -> None:
    """Two hundred readings cannot tell what is rarer than one in a thousand; that nothing is found is no news."""
    rng = np.random.default_rng(0)
    when = pd.date_range("2026-01-01", periods=400, freq="15min").astype(str)
    rows = pd.DataFrame({"time": when, "a": rng.normal(5, 1, 400).round(2), "b": rng.normal(9, 1, 400).round(2)})
    rows[:200].to_csv(tmp_path / "old.csv", index=False)
    rows[200:].to_csv(tmp_path / "new.csv", index=False)
    config = Config.model_validate(
        {
            "kind": "sensors",
            "source": {"path": str(tmp_path / "old.csv")},
            "columns": {"time": "time"},
            "policy": {"quantile": 0.999},
            "bundle": str(tmp_path / "bundle"),
            "report": str(tmp_path / "report.html"),
            "tracking": {"enabled": False},
        }
    )
    train(config, now=NOW)

    report = score(config, input=str(tmp_path / "new.csv"), output=str(tmp_path / "out.csv"), now=NOW)

    assert report.flagged == 0
    assert any("no row can pass the quantile 0.999" in str(line) for line in report.summary())


def test_the_hour_that_a_named_clock_repeats_costs_its_second_pass_alone(tmp_path: Path) -> None:
    """Meters are read by the clock on the wall; the end of summer time must not keep back all of them."""
    rows = simulate_sensors(1_200, seed=3, machines=2, sensors=3).iloc[:, :5]
    when = pd.date_range("2026-10-20", periods=600, freq="15min", tz="UTC").tz_convert("Europe/Berlin")
    told = np.repeat(when.strftime("%Y-%m-%d %H:%M"), 2)
    rows = rows.sort_values(["time", "machine"]).assign(time=told)
    rows.to_csv(tmp_path / "readings.csv", index=False)
    rows[told < "2026-10-25"].to_csv(tmp_path / "summer.csv", index=False)
    columns = {"time": "time", "entity": "machine"}
    series = {"window": 8, "members": ["reconstruction"]}
    source = {"path": "summer.csv", "formats": {"time": {"timezone": "Europe/Berlin"}}}
    settings = SETTINGS | {"source": source, "columns": columns, "series": series}
    (tmp_path / "detector.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    config = load_config(tmp_path)
    train(config, now=NOW)

    report = score(config, input=str(tmp_path / "readings.csv"), output=str(tmp_path / "out.parquet"), now=NOW)

    assert (report.scored, report.quarantined) == (1_200 - 8, 8)
    assert not pd.read_parquet(tmp_path / "out.events.parquet")["reasons"].str.contains("no reading since 01:00").any()
    reasons = pd.read_csv(tmp_path / "out.quarantine.csv")["reason"]
    assert reasons.str.contains("has a reading of this time").all()
    assert config.clock == "Europe/Berlin"


def test_simulated_sensors_are_written(tmp_path: Path) -> None:
    """As many rows and machines as asked for, truth included."""
    done = CliRunner().invoke(
        app, ["simulate", "sensors", "--rows", "500", "--machines", "2", "--out", str(tmp_path / "m.parquet")]
    )

    rows = pd.read_parquet(tmp_path / "m.parquet")
    assert done.exit_code == 0, done.output
    assert len(rows) == 500
    assert rows["machine"].nunique() == 2
    assert rows["anomaly"].sum() > 0


def test_a_machine_of_which_there_is_too_little_is_not_learnt_yet(
    trained: tuple[Config, TrainReport], readings: pd.DataFrame
) -> None:
    """A retraining says so and goes on; with one model for all, or of one machine alone, nothing is left out."""
    config, _ = trained
    rows = pd.concat([readings.assign(machine="M1").head(200), readings.assign(machine="M9").head(100)])
    schema = KINDS["sensors"].schema(rows, config)

    enough, notes = KINDS["sensors"].trainable(rows, config, schema)
    shared = config.model_copy(update={"series": config.series.model_copy(update={"models": "shared"})})

    assert enough["machine"].unique().tolist() == ["M1"]
    assert notes == ["'M9' has no model yet: 100 rows to learn from, 128 are needed."]
    assert len(KINDS["sensors"].trainable(rows, shared, schema)[0]) == 300
    assert len(KINDS["sensors"].trainable(rows.tail(100), config, schema)[0]) == 100


def test_some_machines_at_a_time_say_what_all_at_once_say(
    trained: tuple[Config, TrainReport], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scores, events and quarantine, however many machines there are; one without a row that can be read is no end."""
    config = trained[0]
    rows = pd.read_parquet(config.bundle.parent / "readings.parquet")
    rows.loc[rows.index[5:8], "machine"] = None
    bad = rows.head(40).assign(machine="M1", time=None)
    given = pd.concat([rows, bad], ignore_index=True)
    given.to_parquet(tmp_path / "in.parquet")
    found = []
    for most in (10**6, 1_000):
        monkeypatch.setattr("pipelines.scoring.series_spool.ROWS_AT_ONCE", most)
        report = score(config, input=str(tmp_path / "in.parquet"), output=str(tmp_path / f"{most}.parquet"), now=NOW)
        assert report.rows == len(given)
        found.append([pd.read_parquet(tmp_path / f"{most}{kind}.parquet") for kind in ("", ".events")])
        found[-1].append(pd.read_csv(tmp_path / f"{most}.quarantine.csv"))

    for whole, parted in zip(*found, strict=True):
        by = [name for name in ("machine", "entity", "time", "start", "row") if name in whole]
        assert len(whole) > 3
        pd.testing.assert_frame_equal(
            parted.sort_values(by, ignore_index=True), whole.sort_values(by, ignore_index=True), check_dtype=False
        )


def test_a_shared_model_learns_from_some_machines(tmp_path: Path) -> None:
    """From all rows of as many as are asked for, the same each time; the others are scored by it."""
    rows = simulate_sensors(12_000, seed=5, machines=6, sensors=4, normal_share=0.5, anomalies=["stuck"])
    rows.to_parquet(tmp_path / "readings.parquet")
    series = {"window": 16, "models": "shared", "learn_from": 2}
    (tmp_path / "detector.yaml").write_text(yaml.safe_dump(SETTINGS | {"series": series}), encoding="utf-8")
    config = load_config(tmp_path)

    source = some_machines(open_source(config.source), config)
    report = train(config, now=NOW)

    learnt = source.read()
    assert learnt["machine"].nunique() == 2
    assert (len(learnt), report.rows) == (4_000, 2_800)  # the others are kept apart
    assert list(source.read(columns=["time"]).columns) == ["time"]
    found = score(config, output=str(tmp_path / "scores.parquet"), now=NOW)
    assert found.scored == len(rows)
    alone = {"series": {"models": "entity", "learn_from": 2}}
    (tmp_path / "detector.yaml").write_text(yaml.safe_dump(SETTINGS | alone), encoding="utf-8")
    with pytest.raises(SettingError, match="which `models: entity` gives no model"):
        load_config(tmp_path)
