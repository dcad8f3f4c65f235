"""The sensor benchmark follows its protocols on files made up here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from benchmarks import sensor_files, sensors
from benchmarks.sensor_files import Task
from detector.detectors.series.detector import SequenceDetector
from detector.detectors.series.recipe import MEMBERS
from tests.series_examples import KnownEncoder

FIGURES = {"skab": {"f1", "far", "mar"}, "tsb": {"vus_pr"}, "single": {"vus_pr"}, "asd": {"ap"}}


@pytest.fixture(autouse=True)
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Figures of files are written beside the test's own."""
    monkeypatch.setattr(sensors, "RESULTS", tmp_path / "results")
    return tmp_path / "results"


def make_series(n: int = 600) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Three waves and an anomaly near the end."""
    time, rng = np.arange(float(n)), np.random.default_rng(0)
    X = np.column_stack([np.sin(time / 4), np.cos(time / 4), np.sin(time / 9)]) + 0.02 * rng.normal(size=(n, 3))
    y = np.zeros(n, dtype=np.int64)
    y[-100:-80] = 1
    X[y == 1] += 2.0
    return X, y


def write_files(folder: Path, kind: str) -> Path:
    """Two files of a benchmark."""
    X, y = make_series()
    for name in ("one", "two"):
        if kind == "skab":
            frame = pd.DataFrame(X, columns=["a", "b", "c"]).assign(anomaly=y.astype(float), changepoint=0.0)
            frame.insert(0, "datetime", pd.date_range("2020-03-01", periods=len(X), freq="s"))
            (folder / name).mkdir(parents=True)
            frame.to_csv(folder / name / "0.csv", sep=";", index=False)
        elif kind in ("tsb", "single"):
            np.savez(folder / f"{name}.npz", data=X, label=y, tr=300)
        else:
            np.savez(folder / f"{name}.npz", train=X[:300], test=X[300:], label=y[300:])
    return folder


@pytest.mark.parametrize("kind", sorted(FIGURES))
def test_the_last_line_is_one_json_object(
    tmp_path: Path, results: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    """The rule comes first, then the figures of the default detector by file, and at the end over all."""
    sensors.main([kind, str(write_files(tmp_path, kind)), "--alone"])

    lines = capsys.readouterr().out.strip().splitlines()
    figures = json.loads(lines[-1])
    assert lines[0].startswith("Declared before scoring")
    assert not any(line.startswith("forest ") for line in lines)
    assert set(figures) == FIGURES[kind]
    assert len(pd.read_csv(results / f"sensors-{kind}.csv")) == 2
    assert figures.get("ap", 1.0) > 0.5
    assert figures.get("vus_pr", 1.0) > 0.5
    assert figures.get("mar", 0.0) < 0.5


def test_members_and_encoders_stand_side_by_side(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line a method; of an encoder also on how many files it beats the principal components."""

    def score_encoder(name: str, task: Task) -> tuple[sensors.Scored, bool]:
        return sensors.score_default(task)[sensors.DEFAULT], task.name == "one"

    monkeypatch.setattr(sensors, "score_encoder", score_encoder)
    monkeypatch.setattr(sensors, "default_detector", lambda **given: SequenceDetector(trees=5, **given))

    sensors.main(["asd", str(write_files(tmp_path, "asd")), "--encoders", "gru"])

    lines = capsys.readouterr().out.strip().splitlines()
    table = {line.split()[0]: line for line in lines[lines.index("all methods, asd") + 1 : -2]}
    assert list(table)[1:] == ["default", *MEMBERS, "gru"]
    assert "1 of 2" in table["gru"]
    assert f"{json.loads(lines[-1])['ap']:.4f}".rstrip("0") in table["default"]


@pytest.mark.parametrize(("off", "better"), [(0.0, True), (0.5, False)])
def test_an_encoder_is_scored_whether_it_beats_the_floor_or_not(
    monkeypatch: pytest.MonkeyPatch, off: float, better: bool
) -> None:
    """With its own threshold; and its held-out error says whether it does."""
    monkeypatch.setattr(
        "detector.detectors.series.detector.EncoderChoice",
        lambda _, fall_back, **__: KnownEncoder(off, fall_back=fall_back),
    )
    X, y = make_series()

    scored, beats = sensors.score_encoder("known", Task("one", X[:300], X[300:], y[300:]))

    assert beats == better
    assert np.isfinite(scored.risk).all()
    assert len(scored.risk) == 300


def test_run_cut_short_keeps_earlier_results(tmp_path: Path, results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of files that it did not come to, also by the same methods; a whole run leaves those of its files alone."""
    methods = {"default": 3, "conv1d": 3}
    earlier = pd.DataFrame(
        [
            {"file": file, "method": method, "ap": 0.1, "far": 0, "mar": 0, "seconds": 1}
            for method in methods
            for file in ("gone", "one", "two")
        ]
    )
    results.mkdir()
    earlier.to_csv(results / "sensors-asd.csv", index=False)
    folder = write_files(tmp_path, "asd")
    judged = [{"ap": 0.5}, {"ap": 0.6}]

    def cut(paths: Any, *_: Any, **__: Any) -> Any:
        for path, found in zip(paths, judged, strict=False):
            yield [{"file": path.stem, "method": "default", **found, "seconds": 1.0, "beats_pca": np.nan}]
        if len(judged) < 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(sensors, "measure", cut)
    judged.pop()
    with pytest.raises(KeyboardInterrupt):
        sensors.main(["asd", str(folder)])
    kept = pd.read_csv(results / "sensors-asd.csv")
    judged.append({"ap": 0.6})
    sensors.main(["asd", str(folder)])
    whole = pd.read_csv(results / "sensors-asd.csv")

    by_file = kept[kept["method"] == "default"].set_index("file")["ap"]
    assert by_file.to_dict() == {"gone": 0.1, "one": 0.5, "two": 0.1}
    assert whole[whole["method"] == "default"].set_index("file")["ap"].to_dict() == {"one": 0.5, "two": 0.6}
    for found in (kept, whole):
        assert (found["method"] == "conv1d").sum() == 3


def test_an_unknown_encoder_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Before anything is scored."""
    with pytest.raises(SystemExit):
        sensors.main(["tsb", str(write_files(tmp_path, "tsb")), "--encoders", "conv1d,cnn"])

    assert "there is no encoder cnn; there are conv1d, lstm" in capsys.readouterr().err


def test_skab_scores_the_rows_after_the_first_400(tmp_path: Path) -> None:
    """The counts of a file are of its test rows."""
    folder = write_files(tmp_path, "skab")
    task = sensor_files.load_skab(folder / "one" / "0.csv")

    assert task is not None
    assert (len(task.train), len(task.scored), len(task.truth)) == (400, 600, 200)
    assert task.train.shape[1] == 3
    assert len(sensors.score_default(task)[sensors.DEFAULT].risk) == 200


def test_a_file_without_labels_is_passed_over_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """SKAB ships a file of normal rows without labels."""
    folder = write_files(tmp_path, "skab")
    pd.DataFrame(make_series()[0], columns=["a", "b", "c"]).to_csv(folder / "free.csv", sep=";", index=False)

    sensors.main(["skab", str(folder), "--alone"])

    assert "Without labels, not judged: free.csv" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["tsb", "asd"])
def test_a_file_of_normal_rows_does_not_end_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    """It has no such figure, and the mean is of the others."""
    X, y = make_series()
    folder = write_files(tmp_path, kind)
    np.savez(folder / "calm.npz", data=X, label=0 * y, tr=300, train=X, test=X)

    sensors.main([kind, str(folder), "--alone"])

    assert next(iter(json.loads(capsys.readouterr().out.splitlines()[-1]).values())) > 0.5


@pytest.mark.parametrize(
    ("load", "names"), [(sensor_files.load_tsb, "data, label, tr"), (sensor_files.load_asd, "train, test")]
)
def test_a_broken_file_is_named(tmp_path: Path, load: object, names: str) -> None:
    """No traceback, the file and what it should hold."""
    path = tmp_path / "broken.npz"
    path.write_bytes(b"PK\x03\x04 not really")

    with pytest.raises(SystemExit, match=f"broken.npz is not an .npz file with numbers in {names}"):
        load(path)  # type: ignore[operator]


def test_labels_must_fit_the_rows(tmp_path: Path) -> None:
    """Other labels than 0 and 1 are refused."""
    np.savez(tmp_path / "odd.npz", data=np.ones((10, 2)), label=np.full(10, 3), tr=5)

    with pytest.raises(SystemExit, match="odd.npz must hold tables of the same sensors, and a label of 0 or 1"):
        sensor_files.load_tsb(tmp_path / "odd.npz")


@pytest.mark.parametrize(
    ("text", "match"),
    [("a;anomaly\nx;0\n", "0.csv is not a ';'-separated table"), ("a;anomaly\n1;0\n", "0.csv has 1 rows; 400 train")],
)
def test_a_broken_table_is_named(tmp_path: Path, text: str, match: str) -> None:
    """Text among the sensors, or nothing to judge."""
    (tmp_path / "0.csv").write_text(text)

    with pytest.raises(SystemExit, match=match):
        sensor_files.load_skab(tmp_path / "0.csv")


def test_an_empty_folder_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With the pattern that was looked for; and a folder without labels likewise."""
    with pytest.raises(SystemExit):
        sensors.main(["tsb", str(tmp_path)])
    assert "no *.npz files in" in capsys.readouterr().err

    (tmp_path / "free.csv").write_text("a;b\n1;2\n")
    with pytest.raises(SystemExit):
        sensors.main(["skab", str(tmp_path)])
    assert "no labelled file in" in capsys.readouterr().err
