"""A detector for series survives a folder: to the last bit, without pickles, and without what only fitting needs."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from detector.detectors.series.detector import SequenceDetector
from detector.detectors.series.scorer import SequenceScorer
from detector.detectors.table.detector import TabularDetector
from detector.detectors.table.scorer import TabularScorer
from detector.errors import BundleError
from detector.onnx.folder import digest_of
from detector.persist import bundle
from detector.persist.bundle import MANIFEST, fingerprint, load, save
from detector.series.sampling import Sampling
from tests.manifests import rewrite
from tests.series_examples import PUMPS, networked, readings, small

ONLY_FOR_FITTING = {"tensorflow", "keras", "onnx", "tf2onnx", "sklearn", "mlflow", "matplotlib"}
FILES = ["0-forest.onnx", "0-network.onnx", "arrays.npz", "bundle.json"]
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All members and a network; tests copy it before they damage it."""
    return save(networked().scorer_, tmp_path_factory.mktemp("bundles") / "mixed")


@pytest.fixture
def copy(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "copy"))


def assert_alike(first: SequenceScorer, second: SequenceScorer, rows: pd.DataFrame) -> None:
    """Verdicts, events and curves, to the last bit."""
    one, two = first.judge(rows), second.judge(rows)
    pd.testing.assert_frame_equal(one.frame, two.frame, check_exact=True)
    pd.testing.assert_frame_equal(one.events, two.events, check_exact=True)
    pd.testing.assert_frame_equal(first.curves(rows, one.events), second.curves(rows, two.events), check_exact=True)


def test_a_loaded_scorer_says_the_same(saved: Path) -> None:
    """With every member there is."""
    rows = readings(100, 1)
    rows.loc[50:55, "flow"] = 20.0
    rows.loc[80:90, "heat"] = np.nan

    loaded, scorer = load(saved), networked().scorer_

    assert (loaded.name, loaded.schema, loaded.metrics) == (scorer.name, scorer.schema, scorer.metrics)
    assert (loaded.sampling.interval, loaded.thresholds) == (60_000_000, scorer.thresholds)
    assert_alike(loaded, scorer, rows)


@pytest.mark.parametrize(
    "settings",
    [
        {"models": "entity", "members": ("reconstruction", "forecast"), "weights": {"forecast": np.float64(2.0)}},
        {"residuals": "mahalanobis", "window": np.int64(8), "short": "pad", "trailing": True},
        {"sampling": Sampling(every="1min", align="mean", missing="previous"), "members": ("forest",)},
    ],
    ids=["a model an entity", "mahalanobis", "forest"],
)
def test_other_detectors_survive_a_round_trip(tmp_path: Path, settings: dict[str, Any]) -> None:
    """Their models, settings and policies."""
    rows = pd.concat([readings(200, 0, pump="a"), readings(200, 1, pump="b")], ignore_index=True)
    detector: SequenceDetector = small(schema=PUMPS, **settings).fit(rows)

    loaded = load(save(detector.scorer_, tmp_path / "bundle"))

    assert loaded.models.keys() == detector.scorer_.models.keys()
    assert_alike(loaded, detector.scorer_, rows)


def test_constant_sensors_survive_too(tmp_path: Path) -> None:
    """A model without components."""
    detector = small().fit(np.full((50, 2), 3.0))

    loaded = load(save(detector.scorer_, tmp_path / "bundle"))

    assert_alike(loaded, detector.scorer_, pd.DataFrame({"x0": [3.0] * 9, "x1": [9.0] * 9}))


def test_a_bundle_is_json_npz_and_onnx_and_always_the_same(saved: Path, tmp_path: Path) -> None:
    """No pickle and no array of objects; the same detector makes the same bytes, readable by others."""
    again = save(load(saved), tmp_path / "again")

    assert sorted(path.name for path in saved.iterdir()) == FILES
    with zipfile.ZipFile(saved / "arrays.npz") as archive:
        assert all(name.endswith(".npy") for name in archive.namelist())
    with np.load(saved / "arrays.npz", allow_pickle=False) as arrays:
        assert all(not arrays[name].dtype.hasobject for name in arrays.files)
    assert all((saved / name).read_bytes() == (again / name).read_bytes() for name in FILES)
    assert fingerprint(saved) == fingerprint(again)
    assert saved.stat().st_mode & 0o755 == 0o755


@pytest.mark.parametrize("name", FILES)
def test_one_changed_byte_is_noticed(copy: Path, name: str) -> None:
    """In every file of the bundle, and the error says in which."""
    content = bytearray((copy / name).read_bytes())
    place = content.index(b'"name": "mixed"') + 10 if name == MANIFEST else len(content) // 2
    content[place] ^= 1
    (copy / name).write_bytes(bytes(content))

    with pytest.raises(BundleError, match=f"{name} has changed since it was saved. Copy the bundle again"):
        load(copy)


@pytest.mark.parametrize("name", ["arrays.npz", "0-forest.onnx"])
def test_a_missing_file_is_named(copy: Path, name: str) -> None:
    """Half a copy is no bundle; nor is one whose manifest passes over a file, or reaches outside."""
    (copy / name).unlink()
    with pytest.raises(BundleError, match=f"{name} is missing from the bundle. Copy the whole folder"):
        load(copy)

    rewrite(copy, lambda manifest: manifest["files"].update({"../stranger.onnx": ""}))
    with pytest.raises(BundleError, match="is missing from the bundle"):
        load(copy)


@pytest.mark.parametrize(
    "change",
    [
        lambda manifest: manifest.pop("models"),
        lambda manifest: manifest["models"][0].pop("fusion"),
        lambda manifest: manifest["models"][0].update(recipe={"members": ["trees"]}),
        lambda manifest: manifest.update(sampling={"pace": 1}),
    ],
    ids=["no models", "no fusion", "unknown member", "unknown policy"],
)
def test_a_manifest_that_describes_no_detector_is_a_bundle_error(copy: Path, change: Any) -> None:
    """Right digests, wrong content."""
    rewrite(copy, change)

    with pytest.raises(BundleError, match=r"bundle.json does not describe a detector: .* Train again"):
        load(copy)


def test_a_bundle_never_unpickles(copy: Path) -> None:
    """An array of objects smuggled in is refused, even with the right digests."""
    np.savez(copy / "arrays.npz", **{"0/usual/forest": np.array([{"a": 1}], dtype=object)})
    rewrite(copy, lambda manifest: manifest["files"].update({"arrays.npz": digest_of(copy / "arrays.npz")}))

    with pytest.raises(BundleError, match="allow_pickle=False"):
        load(copy)


def test_a_damaged_graph_is_a_bundle_error() -> None:
    """The message is the graph's own."""
    parts = networked().scorer_.to_parts()

    with pytest.raises(BundleError, match="graph cannot be loaded"):
        SequenceScorer.from_parts(replace(parts, graphs=parts.graphs | {"0-forest": b"no graph"}))


def test_detectors_for_tables_and_for_series_are_told_apart(
    quick: TabularDetector, saved: Path, tmp_path: Path
) -> None:
    """The manifest says which one a folder holds."""
    table = bundle.save(quick.scorer_, tmp_path / "table")

    assert isinstance(load(saved), SequenceScorer)
    assert isinstance(load(table), TabularScorer)


def test_saving_replaces_a_bundle_and_nothing_else(copy: Path, tmp_path: Path) -> None:
    """Wholly: no file of the older one is left, nor anything beside it."""
    (tmp_path / "photographs").mkdir()
    (tmp_path / "photographs" / "one.jpg").write_bytes(b"x")

    save(small().fit(readings(100)[["heat", "flow"]]).scorer_, copy)

    assert sorted(path.name for path in copy.iterdir()) == ["arrays.npz", MANIFEST]
    with pytest.raises(BundleError, match="exists and is not a bundle"):
        save(load(copy), tmp_path / "photographs")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", "photographs"]


@pytest.mark.slow
def test_scoring_imports_nothing_that_only_fitting_needs(saved: Path, tmp_path: Path) -> None:
    """Load a bundle with all members and a network, judge, explain, draw curves: no TensorFlow, no scikit-learn."""
    rows = readings(100, 1)
    rows.loc[50:60, "flow"] = 20.0
    rows.to_csv(tmp_path / "rows.csv", index=False)
    code = (
        "import sys, pandas as pd\n"
        "from detector.persist import bundle\n"
        "scorer = bundle.load(sys.argv[1])\n"
        "rows = pd.read_csv(sys.argv[2])\n"
        "verdicts = scorer.judge(rows)\n"
        "assert len(verdicts.events) and len(scorer.curves(rows, verdicts.events))\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    )

    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, str(saved), str(tmp_path / "rows.csv")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert "onnxruntime" in done.stdout.split()
    assert ONLY_FOR_FITTING.isdisjoint(done.stdout.split())
