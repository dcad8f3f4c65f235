"""The benchmarks measure what they say."""

from __future__ import annotations

import json
import threading
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from benchmarks import categorical, faults, flags, mixed, speed, stages, tabular, training, way

ROWS = 240


def write_set(path: Path, *, rows: int = ROWS, anomalies: int = 12) -> Path:
    """A small set whose anomalies lie far out."""
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(rows, 3)), np.zeros(rows, dtype=int)
    X[:anomalies] *= 8
    y[:anomalies] = 1
    np.savez(path, X=X, y=y)
    return path


def test_load_returns_rows_and_truth(tmp_path: Path) -> None:
    """A set is read as numbers and 0 or 1."""
    X, y = tabular.load(write_set(tmp_path / "one.npz"))

    assert X.shape == (ROWS, 3)
    assert y.sum() == 12


def test_load_names_a_file_that_is_none(tmp_path: Path) -> None:
    """A broken file ends the run with its name."""
    path = tmp_path / "broken.npz"
    path.write_bytes(b"PK\x03\x04 not really")

    with pytest.raises(SystemExit, match="broken.npz is not an .npz file"):
        tabular.load(path)


def test_load_names_a_set_without_its_truth(tmp_path: Path) -> None:
    """A file without ``y`` is named, and so is what is missing."""
    path = tmp_path / "half.npz"
    np.savez(path, X=np.zeros((3, 1)))

    with pytest.raises(SystemExit, match="half.npz is not an .npz file with arrays X and y"):
        tabular.load(path)


@pytest.mark.parametrize("y", [[0, 0, 0], [0, 1, 2], [0, 1]])
def test_load_refuses_other_labels(tmp_path: Path, y: list[int]) -> None:
    """Every row needs a label, and both kinds must be there."""
    path = tmp_path / "labels.npz"
    np.savez(path, X=np.ones((3, 1)), y=y)

    with pytest.raises(SystemExit, match="in y a 0 or 1 for each row"):
        tabular.load(path)


def test_load_runs_no_code(tmp_path: Path) -> None:
    """A set with a pickle inside is refused."""
    path = tmp_path / "pickle.npz"
    np.savez(path, X=np.array([{}], dtype=object), y=[1])
    assert zipfile.is_zipfile(path)

    with pytest.raises(SystemExit, match="pickle.npz is not"):
        tabular.load(path)


def test_one_class_fits_no_anomaly() -> None:
    """Half of the normal rows are fitted; all others, every anomaly among them, are scored."""
    X, y = np.arange(100.0)[:, None], (np.arange(100) < 10).astype(int)

    parts = tabular.split(X, y, protocol="one-class", seed=0)

    assert (parts.train >= 10).all()
    assert len(parts.train) == 45
    assert parts.truth.sum() == 10
    assert set(parts.train.ravel()).isdisjoint(parts.test.ravel())


def test_contaminated_scores_what_it_fits() -> None:
    """All rows are fitted, and the same are scored."""
    X, y = np.arange(100.0)[:, None], (np.arange(100) < 10).astype(int)

    parts = tabular.split(X, y, protocol="contaminated", seed=0)

    assert parts.same
    assert parts.train is parts.test
    assert len(parts.test) == 100


def test_large_sets_are_sampled_down_by_the_seed() -> None:
    """The rows kept are those of ``numpy.random.default_rng(seed)``."""
    X, y = np.arange(12_000.0)[:, None], np.zeros(12_000, dtype=int)

    parts = tabular.split(X, y, protocol="contaminated", seed=3)

    kept = np.random.default_rng(3).choice(12_000, 10_000, replace=False)
    np.testing.assert_array_equal(parts.test.ravel(), kept)


def test_a_row_is_not_its_own_neighbour() -> None:
    """Where the rows to score were fitted, the nearest row is another one."""
    X = np.arange(12.0)[:, None]
    parts = tabular.Split(X, X, np.zeros(12, dtype=np.int64), same=True)

    distance = tabular.exact_neighbours(parts, 0)

    assert distance.min() > 0.9 * (1 + 1 + 2 + 2 + 3) / 5 / X.std()


def test_table_shows_the_mean_and_its_spread_over_seeds() -> None:
    """Below the sets stand the mean over all, and how much it moves with the seed."""
    records = pd.DataFrame(
        {"set": ["a", "b", "a", "b"], "seed": [0, 0, 1, 1], "method": "m", "ap": [0.1, 0.3, 0.3, 0.5]}
    )

    lines = tabular.table(records, "ap").splitlines()

    assert [line.split()[-1] for line in lines[1:]] == ["0.200", "0.400", "0.300", "0.141"]


@pytest.mark.slow
@pytest.mark.parametrize("protocol", tabular.PROTOCOLS)
def test_tabular_ends_with_the_means(tmp_path: Path, capsys: pytest.CaptureFixture[str], protocol: str) -> None:
    """The last line is the fusion's means; above it, members and peers stand side by side."""
    write_set(tmp_path / "small.npz")

    tabular.main([str(tmp_path), "--protocol", protocol, "--seeds", "1"])

    printed = capsys.readouterr().out
    means = json.loads(printed.splitlines()[-1])
    assert set(means) == {"auroc", "ap"}
    assert means["auroc"] > 0.9
    header = next(line for line in printed.splitlines() if "fusion" in line)
    assert all(name in header for name in ("autoencoder", "forest", "neighbours", "exact 5-NN"))


def test_means_of_groups_name_sets_without_their_number() -> None:
    """A file of groups says thyroid of 38_thyroid; a set of no group is in none."""
    records = pd.DataFrame(
        {"set": ["38_thyroid", "1_ALOI", "9_other"], "seed": 0, "method": "m", "ap": [0.2, 0.4, 0.9]}
    )

    lines = tabular.by_group(records, {"medical": ["thyroid"], "image": ["ALOI"]}, "ap").splitlines()

    assert [line.split() for line in lines[1:]] == [["image", "0.400"], ["medical", "0.200"]]


@pytest.mark.slow
def test_flags_ends_with_what_became_of_the_rate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Shares of one, for every set; an unknown rate is refused."""
    write_set(tmp_path / "small.npz", rows=400, anomalies=20)

    flags.main([str(tmp_path), "--protocol", "one-class", "--seeds", "1", "--output", str(tmp_path / "out.csv")])

    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert {"fdp", "fdp_worst", "power", "oracle_power", "silent_sets"} <= set(found)
    assert 0 < found["power"] <= 1
    assert found["fdp"] <= 0.3
    (record,) = pd.read_csv(tmp_path / "out.csv").to_dict("records")
    assert record["flagged"] > 0
    with pytest.raises(SystemExit):
        flags.main([str(tmp_path), "--protocol", "one-class", "--alpha", "1"])


@pytest.mark.slow
def test_categorical_ends_with_the_means(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A combination of values that never occurs is found; members and floors stand side by side."""
    rng = np.random.default_rng(0)
    a = rng.integers(0, 3, 600)
    frame = pd.DataFrame({"c0": a, "c1": a, "c2": rng.integers(0, 4, 600), "y": 0})
    frame.loc[:29, "y"] = 1
    frame.loc[:29, "c1"] = (frame.loc[:29, "c0"] + 1) % 3
    frame.astype(dict.fromkeys(("c0", "c1", "c2"), "str")).to_parquet(tmp_path / "small.parquet")

    categorical.main([str(tmp_path), "--protocol", "one-class", "--output", str(tmp_path / "out.csv")])

    printed = capsys.readouterr().out
    means = json.loads(printed.splitlines()[-1])
    assert set(means) == {"auroc", "ap", "slowest_fit_seconds"}
    assert means["auroc"] > 0.9
    assert {"rare values", "one-hot 5-NN", "fusion"} <= set(pd.read_csv(tmp_path / "out.csv")["method"])


def _priced(rows: int) -> pd.DataFrame:
    """What is dear hangs on the kind; a count of rows, and text that is different in each, are no columns to learn."""
    rng = np.random.default_rng(0)
    kind = rng.choice(["book", "phone", "car"], rows)
    price = pd.Series({"book": 10.0, "phone": 500.0, "car": 20_000.0})[kind].to_numpy() * rng.uniform(0.9, 1.1, rows)
    return pd.DataFrame(
        {"number": np.arange(rows), "kind": kind, "price": price, "name": [f"n{i}" for i in range(rows)]}
    )


def test_mixed_plants_what_no_row_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each kind of anomaly changes what it says and nothing else."""
    _priced(300).to_csv(tmp_path / "priced.csv", index=False)
    loaded = mixed.load(tmp_path / "priced.csv")
    assert loaded is not None
    rows, schema = loaded
    assert (schema.numeric, schema.categorical) == (("price",), ("kind",))

    def planted(kind: str) -> pd.DataFrame:
        monkeypatch.setattr(mixed, "KINDS", (kind,))
        return mixed.plant(rows, rows, schema, np.random.default_rng(0))

    times = planted("scaled")["price"] / rows["price"]
    assert np.maximum(times, 1 / times).between(3, 20).all()
    beyond = planted("far")["price"]
    assert ((beyond > rows["price"].max()) | (beyond < rows["price"].min())).all()
    for kind, column in (("numbers", "price"), ("categories", "kind"), ("unusual", "kind")):
        found = planted(kind)
        (other,) = {"price", "kind"} - {column}
        assert (found[column] != rows[column]).any()
        pd.testing.assert_series_equal(found[other], rows[other])
        assert found[column].isin(rows[column]).all()


@pytest.mark.slow
def test_mixed_ends_with_the_means(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Tables without numbers or categories are skipped with a word; members and peers stand side by side."""
    _priced(600).to_csv(tmp_path / "priced.csv", index=False)
    _priced(600)[["kind"]].to_csv(tmp_path / "kinds.csv", index=False)

    mixed.main([str(tmp_path), "--protocol", "one-class", "--output", str(tmp_path / "out.csv")])

    printed = capsys.readouterr().out
    assert "kinds.csv has no numbers, or no categories: skipped" in printed
    assert json.loads(printed.splitlines()[-1])["auroc"] > 0.6
    assert {"neighbours", "one-hot 5-NN", "fusion"} <= set(pd.read_csv(tmp_path / "out.csv")["method"])


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [(["--protocol", "one-class"], "no .npz files"), (["--protocol", "both"], "invalid choice")],
)
def test_tabular_refuses_bad_arguments(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], complaint: str
) -> None:
    """A wrong command line ends with 2 and says why."""
    with pytest.raises(SystemExit, match="2"):
        tabular.main([str(tmp_path), *arguments])

    assert complaint in capsys.readouterr().err


def test_rows_for_speed_are_written_in_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file holds as many rows as asked for, whatever the chunk, and no chunk twice."""
    monkeypatch.setattr(speed, "CHUNK", 100)

    frame = pd.read_parquet(speed.write_rows(tmp_path / "rows.parquet", 250, seed=0))

    assert frame.shape == (250, speed.FEATURES)
    assert not frame.duplicated().any()


@pytest.mark.parametrize(("peers", "ratio"), [({}, None), ({"pyod IForest": 50.0, "pyod pair": 20.0}, 10.0)])
def test_speed_report_ends_with_the_figures(peers: dict[str, float], ratio: float | None) -> None:
    """The ratios are against both of PyOD's models in turn, and null without PyOD."""
    pair = {
        "train_seconds": 9.0,
        "rows_per_second": 200.0,
        "row_ms": 2.0,
        "cold_start_seconds": 1.0,
        "peak_memory_mb": 300.0,
    }
    found = {
        "detectors": {"autoencoder + forest": pair, "default": pair | {"rows_per_second": 100.0}},
        "members": {"forest": 100.0},
        "peers": peers,
        "install_mb": 455.2,
    }

    printed = speed.report(found, speed.Sizes(score=1, memory=5, train=1, sample=1))

    figures = json.loads(printed.splitlines()[-1])
    assert (figures["rows_per_second"], figures["rows_per_second_default"]) == (200, 100)
    assert figures["ratio_to_pyod"] == ratio
    assert figures["ratio_to_pyod_default"] == (None if ratio is None else ratio / 2)
    assert (figures["peak_memory_mb"], figures["cold_start_seconds"], figures["train_seconds"]) == (300, 1.0, 9.0)
    assert figures["install_mb"] == 455


@pytest.mark.slow
@pytest.mark.long
def test_speed_measures_every_part(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """On few rows, the whole benchmark runs, scikit-learn beside it, and every figure is a number above nothing."""
    monkeypatch.setattr(speed, "RUNS", 1)
    monkeypatch.setattr(speed, "COLD_STARTS", 1)
    monkeypatch.setattr(speed, "ONE_BY_ONE", 3)
    sizes = ["--rows", "500", "--memory-rows", "500", "--train-rows", "1000", "--sample", "100"]

    speed.main([*sizes, "--against", "sklearn"])

    said = capsys.readouterr().out
    figures = json.loads(said.splitlines()[-1])
    assert {name for name, value in figures.items() if value is None} == {"ratio_to_pyod", "ratio_to_pyod_default"}
    assert all(value > 0 for value in figures.values() if value is not None)
    assert "sklearn NearestNeighbors" in said


@pytest.mark.slow
def test_stages_are_measured_at_every_size(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Each stage has its time, none more than the job; the table is written, too."""
    monkeypatch.setattr(stages, "SAMPLE", 500)

    stages.main(["--rows", "500,1000", "--train-rows", "1000", "--output", str(tmp_path / "stages.csv")])

    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert list(found["sizes"]) == ["500", "1000"]
    for size in found["sizes"].values():
        assert set(size["stages"]) >= {*stages.STAGES, stages.WRITE} - {"explain"}
        assert all(0 < seconds < size["processor_seconds"] for seconds in size["stages"].values())
    assert set(found["members"]) >= {"autoencoder", "forest", "neighbours"}
    assert pd.read_csv(tmp_path / "stages.csv")["stage"].tolist()[-1] == "peak memory, MB"


def test_a_stage_has_its_own_seconds_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a stage within takes, and what is done with the items it yields, is not its own."""
    now = iter([0.0, 1.0, 4.0, 10.0])
    monkeypatch.setattr(stages.time, "thread_time", lambda: next(now))
    clock = stages.Clock()

    clock.time("outer", lambda: clock.time("inner", lambda: None))

    assert clock.seconds == {"inner": 3.0, "outer": 7.0}


def test_speed_refuses_too_few_rows(capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong command line ends with 2 and says why."""
    with pytest.raises(SystemExit, match="2"):
        speed.main(["--train-rows", "10"])

    assert "--train-rows at least 1000" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        speed.main(["--against", "pyodd"])
    assert "received 'pyodd'" in capsys.readouterr().err


def test_speed_shows_why_a_process_failed() -> None:
    """What a failed process said is not lost."""
    with pytest.raises(SystemExit, match="nothing to score"):
        speed._run([speed.sys.executable, "-c", "raise SystemExit('nothing to score')"])


def test_way_counts_modules_and_changes() -> None:
    """Calls and returns between our modules count, also in another thread; what lies between them does not."""
    source = {
        "detector.a": "def inner(_=None):\n    return 1",
        "json": "def middle(_=None):\n    return inner()",
        "pipelines.b": "def outer():\n    return sum(map(middle, [1])) + inner()",
    }
    made: dict[str, Any] = {}
    for module, text in source.items():
        scope = {"__name__": module, **made}
        exec(text, scope)
        made |= {name: value for name, value in scope.items() if callable(value)}

    with way.Way() as found:
        made["outer"]()
        thread = threading.Thread(target=made["inner"])
        thread.start()
        thread.join()

    assert found.figures() == {"modules": 2, "changes": 4}
    assert found.visits == {"detector.a": 3, "pipelines.b": 1}


def test_training_compares_the_fastest_that_is_as_good() -> None:
    """The target is the other's best; settings that miss it do not count, however fast."""
    records = pd.DataFrame(
        [
            ("a", "ours", 4.0, 0.70),
            ("a", "ours", 2.0, 0.50),
            ("a", "pyod", 12.0, 0.70),
            ("a", "pyod", 8.0, 0.697),
            ("a", "pyod", 1.0, 0.30),
            ("b", "ours", 4.0, 0.10),
            ("b", "pyod", 9.0, 0.20),
        ],
        columns=["set", "method", "seconds", "ap"],
    )

    found = training.summary(records, slack=0.005)

    assert found.loc["a", ["ours", "pyod", "ratio"]].tolist() == [4.0, 8.0, 2.0]
    assert np.isnan(found.loc["b", "ratio"])


@pytest.mark.slow
def test_training_is_timed_and_its_ranking_measured(tmp_path) -> None:
    """One fit of one set: half of the normal rows are learnt from, and far outliers come first."""
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(300, 4)), np.repeat([0, 1], [280, 20])
    np.savez(tmp_path / "made.npz", X=X + 30.0 * y[:, None], y=y)

    found = training.once(tmp_path / "made.npz", training.OURS, {"max_steps": 20}, rows=200)

    assert json.loads(json.dumps(found)).keys() == {
        "set",
        "rows",
        "columns",
        "method",
        "settings",
        "seconds",
        "auroc",
        "ap",
    }
    assert (found["set"], found["rows"], found["columns"], found["settings"]) == ("made", 140, 4, "max_steps=20")
    assert found["seconds"] > 0
    assert found["ap"] == pytest.approx(1.0)


def test_faults_are_counted_by_machine_and_time() -> None:
    """Two kinds that touch are two faults; an event of another machine, or beside a fault, finds none and is false."""
    times = pd.date_range("2026-01-01", periods=6, freq="min")
    rows = pd.DataFrame({"time": times, "machine": "M1", "anomaly": [0, 1, 1, 1, 0, 0]})
    found = faults.faults_of(rows.assign(anomaly_kind=["", "spike", "drift", "drift", "", ""]))
    events = pd.DataFrame(
        {"entity": ["M1", "M2", "M1"], "start": [times[3], times[1], times[4]], "end": [times[4], times[3], times[5]]}
    )

    assert found[["start", "end"]].to_numpy().tolist() == [[times[1], times[1]], [times[2], times[3]]]
    assert faults.count(found, events) == (1, 2)


def test_run_cut_short_keeps_earlier_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of sets that it came to are replaced, the others stay; a whole run leaves its own alone."""
    for name in ("one", "two"):
        write_set(tmp_path / f"{name}.npz")
    output = tmp_path / "ap.csv"
    earlier = pd.DataFrame({"set": ["gone", "one", "two"], "seed": 0, "method": "fusion", "auroc": 0.1, "ap": 0.1})
    earlier.to_csv(output, index=False)
    monkeypatch.setattr(tabular, "peers", dict)
    monkeypatch.setattr(tabular, "score_members", lambda parts, seed: {"fusion": parts.test[:, 0]})
    monkeypatch.setattr(tabular, "FUSION", "fusion")
    load, whole = tabular.load, tabular.load

    def cut(path: Path) -> Any:
        if path.stem == "zero":
            raise KeyboardInterrupt
        return load(path)

    write_set(tmp_path / "zero.npz")
    monkeypatch.setattr(tabular, "load", cut)
    with pytest.raises(KeyboardInterrupt):
        tabular.main([str(tmp_path), "--protocol", "one-class", "--seeds", "1", "--output", str(output)])
    kept = pd.read_csv(output).set_index("set")["ap"]
    monkeypatch.setattr(tabular, "load", whole)
    tabular.main([str(tmp_path), "--protocol", "one-class", "--seeds", "1", "--output", str(output)])

    assert kept["gone"] == 0.1
    assert kept["one"] != 0.1
    assert sorted(pd.read_csv(output)["set"]) == ["one", "two", "zero"]
