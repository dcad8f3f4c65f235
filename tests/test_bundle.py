"""A fitted detector as a folder, and back."""

from __future__ import annotations

import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from detector.detectors.series.detector import SequenceDetector
from detector.detectors.table.detector import TabularDetector
from detector.detectors.table.scorer import TabularScorer
from detector.errors import BundleError, SettingError, UnfittedError
from detector.onnx.folder import digest_of
from detector.persist.bundle import MANIFEST, fingerprint, load, save
from tests.manifests import rewrite
from tests.series_examples import small, waves

FILES = ["arrays.npz", "bundle.json", "decoder.onnx", "graph.onnx", "inside.onnx"]


@pytest.fixture(scope="module")
def saved(fitted: TabularDetector, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with all members; tests copy it before they damage it."""
    return save(fitted.scorer_, tmp_path_factory.mktemp("bundles") / "mixed")


@pytest.fixture(scope="module")
def loaded(saved: Path) -> TabularScorer:
    return load(saved)


@pytest.fixture
def copy(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "copy"))


def test_loaded_scorer_measures_the_same(
    loaded: TabularScorer, fitted: TabularDetector, fresh_rows: pd.DataFrame
) -> None:
    """Every measure, to the last bit."""
    rows = fitted._rows(fresh_rows)

    pd.testing.assert_frame_equal(loaded.measure(rows), fitted.scorer_.measure(rows), check_exact=True)


def test_loaded_scorer_explains_the_same(
    loaded: TabularScorer, fitted: TabularDetector, fresh_rows: pd.DataFrame
) -> None:
    """Reasons, codes and reconstructions too."""
    rows = fitted._rows(fresh_rows.iloc[:30])

    assert loaded.explain(rows) == fitted.scorer_.explain(rows)
    assert np.array_equal(loaded.encode(rows), fitted.scorer_.encode(rows))
    pd.testing.assert_frame_equal(loaded.reconstruct(rows), fitted.scorer_.reconstruct(rows), check_exact=True)


def test_loaded_scorer_scores_the_same(
    loaded: TabularScorer, fitted: TabularDetector, fresh_rows: pd.DataFrame
) -> None:
    """The whole verdict on a table as it comes."""
    pd.testing.assert_frame_equal(loaded.judge(fresh_rows).frame, fitted.judge(fresh_rows).frame, check_exact=True)


def test_loaded_scorer_remembers_the_facts(loaded: TabularScorer, fitted: TabularDetector) -> None:
    """Name, schema, metrics."""
    assert loaded.name == "mixed"
    assert loaded.schema == fitted.scorer_.schema
    assert loaded.metrics == fitted.scorer_.metrics


def test_bundle_without_an_autoencoder_survives_a_round_trip(quick: TabularDetector, tmp_path: Path) -> None:
    """It has no decoder, and needs none."""
    rows = pd.DataFrame({"amount": [40.0, 400.0, np.nan], "fee": [1.0, 2.0, 1.0]})

    restored = load(save(quick.scorer_, tmp_path / "quick"))

    assert not (tmp_path / "quick" / "decoder.onnx").exists()
    pd.testing.assert_frame_equal(restored.measure(rows), quick.scorer_.measure(rows), check_exact=True)
    assert restored.explain(rows) == quick.scorer_.explain(rows)


def test_bundle_is_json_npz_and_onnx(saved: Path) -> None:
    """And nothing else, so that loading one runs no code: no pickle, and no array of Python objects."""
    assert sorted(path.name for path in saved.iterdir()) == FILES
    with zipfile.ZipFile(saved / "arrays.npz") as archive:
        assert all(name.endswith(".npy") for name in archive.namelist())
    with np.load(saved / "arrays.npz", allow_pickle=False) as arrays:
        assert all(not arrays[name].dtype.hasobject for name in arrays.files)
    for path in saved.iterdir():
        assert not path.read_bytes().startswith(b"\x80")  # how every pickle since protocol 2 begins


def test_bundle_never_unpickles(copy: Path) -> None:
    """An array of objects smuggled in is refused, even with the right digests."""
    with np.load(copy / "arrays.npz") as stored:
        arrays = {name: stored[name] for name in stored.files}
    arrays["usual/forest"] = np.array([{"a": 1}], dtype=object)
    np.savez(copy / "arrays.npz", **arrays)
    rewrite(copy, lambda manifest: manifest["files"].update({"arrays.npz": digest_of(copy / "arrays.npz")}))

    with pytest.raises(BundleError, match="allow_pickle=False"):
        load(copy)


@pytest.mark.parametrize("name", FILES)
def test_one_changed_byte_is_noticed(copy: Path, name: str) -> None:
    """In every file of the bundle, and the error says in which."""
    content = bytearray((copy / name).read_bytes())
    place = content.index(b'"name": "mixed"') + 10 if name == MANIFEST else len(content) // 2
    content[place] ^= 1
    (copy / name).write_bytes(bytes(content))

    with pytest.raises(BundleError, match=rf"{re.escape(name)} has changed since it was saved. Copy the bundle again"):
        load(copy)


@pytest.mark.parametrize("name", [name for name in FILES if name != MANIFEST])
def test_missing_file_is_named(copy: Path, name: str) -> None:
    """Half a copy is no bundle."""
    (copy / name).unlink()

    with pytest.raises(BundleError, match=rf"{re.escape(name)} is missing from the bundle. Copy the whole folder"):
        load(copy)


@pytest.mark.parametrize("make", [lambda _: None, lambda folder: folder.mkdir()], ids=["no folder", "empty folder"])
def test_folder_without_a_bundle_says_what_to_do(tmp_path: Path, make: Callable[[Path], object]) -> None:
    """Nothing there, or nothing in it."""
    make(tmp_path / "bundle")

    with pytest.raises(BundleError, match=r"holds no trained detector \(no bundle.json\). Run `detector train` first"):
        load(tmp_path / "bundle")


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"format": 1}', '{"format": 1, "files": []}', "\udc80"])
def test_damaged_manifest_is_a_bundle_error(copy: Path, text: str) -> None:
    """Whatever stands in it."""
    (copy / MANIFEST).write_bytes(text.encode("utf-8", "surrogateescape"))

    with pytest.raises(BundleError, match=r"bundle.json is damaged: .* Copy the bundle again, or train again"):
        load(copy)


@pytest.mark.parametrize("version", [0, 2, "1"])
def test_other_format_is_refused(copy: Path, version: object) -> None:
    """A newer version's bundle is not guessed at."""
    rewrite(copy, lambda manifest: manifest.update(format=version))

    with pytest.raises(BundleError, match=rf"has format {version}; this version reads format 1. Train again"):
        load(copy)


@pytest.mark.parametrize("name", ["../stranger.onnx", "/etc/hostname", "..", "sub/graph.onnx"])
def test_manifest_cannot_reach_outside_its_folder(copy: Path, name: str) -> None:
    """A file is a plain name in the folder; a path is refused, even if the file is there and its digest right."""
    stranger = copy / name
    if not stranger.exists():
        stranger.parent.mkdir(exist_ok=True)
        stranger.write_bytes(b"x")
    digest = digest_of(stranger) if stranger.is_file() else ""
    rewrite(copy, lambda manifest: manifest["files"].update({name: digest}))

    with pytest.raises(BundleError, match="is missing from the bundle"):
        load(copy)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("arrays.npz", "arrays.npz is missing from the bundle"),
        ("graph.onnx", r"does not describe a detector: KeyError\('graph'\)"),
        ("inside.onnx", r"does not describe a detector: KeyError\('inside'\)"),
    ],
)
def test_file_without_a_digest_is_never_read(copy: Path, name: str, message: str) -> None:
    """Or it would be read unchecked."""
    rewrite(copy, lambda manifest: manifest["files"].pop(name))

    with pytest.raises(BundleError, match=message):
        load(copy)


@pytest.mark.parametrize(
    "change",
    [
        lambda manifest: manifest.pop("fusion"),
        lambda manifest: manifest["columns"].pop("levels"),
        lambda manifest: manifest.update(schema={"numbers": ["amount"]}),
        lambda manifest: manifest.update(columns=None),
    ],
    ids=["no fusion", "no levels", "unknown kind", "no columns"],
)
def test_manifest_that_describes_no_detector_is_a_bundle_error(
    copy: Path, change: Callable[[dict[str, Any]], object]
) -> None:
    """Right digests, wrong content."""
    rewrite(copy, change)

    with pytest.raises(BundleError, match=r"bundle.json does not describe a detector: .* Train again"):
        load(copy)


def test_damaged_graph_is_a_bundle_error(copy: Path) -> None:
    """With the right digest too; the message is the graph's own."""
    (copy / "graph.onnx").write_bytes(b"no graph")
    rewrite(copy, lambda manifest: manifest["files"].update({"graph.onnx": digest_of(copy / "graph.onnx")}))

    with pytest.raises(BundleError, match="graph cannot be loaded"):
        load(copy)


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _no_zip(path: Path) -> None:
    path.write_bytes(b"PK\x03\x04" + b"x" * 1000)


def _cut(path: Path) -> None:
    """A member that ends in the middle of its array."""
    with zipfile.ZipFile(path) as stored:
        members = {name: stored.read(name) for name in stored.namelist()}
    with zipfile.ZipFile(path, "w") as made:
        for name, content in members.items():
            made.writestr(name, content[: len(content) // 2] if len(content) > 200 else content)


def _huge(path: Path) -> None:
    """A few hundred kilobytes that unpack to gigabytes."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as made, made.open("x.npy", "w") as member:
        header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (400000000,), }"
        header += b" " * (118 - len(header) - 1) + b"\n"
        member.write(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
        for _ in range(400):
            member.write(b"\0" * 1_000_000)


def _claims(path: Path) -> None:
    """An array that says it is larger than any memory."""
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (4000000000000000,), }".ljust(117) + b"\n"
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("x.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)


@pytest.mark.parametrize("damage", [_empty, _no_zip, _cut, _huge, _claims])
def test_arrays_that_were_tampered_with_are_a_bundle_error(copy: Path, damage: Callable[[Path], None]) -> None:
    """Whoever can compute digests can still not have anything else raised, nor fill the memory."""
    damage(copy / "arrays.npz")
    rewrite(copy, lambda manifest: manifest["files"].update({"arrays.npz": digest_of(copy / "arrays.npz")}))

    with pytest.raises(BundleError, match=r"arrays\.npz is damaged: .*Copy the bundle again, or train again"):
        load(copy)


def test_manifest_of_too_deep_a_nesting_is_a_bundle_error(copy: Path) -> None:
    """Python's own limit is not what a user is told of."""
    (copy / MANIFEST).write_text("[" * 100_000)

    for read in (load, fingerprint):
        with pytest.raises(BundleError, match=r"bundle\.json is damaged"):
            read(copy)


@pytest.mark.parametrize("graph", [b"", b"\0" * 100, b"\xff" * 10_000], ids=["empty", "zeros", "ones"])
def test_graph_that_was_tampered_with_is_a_bundle_error(copy: Path, graph: bytes) -> None:
    """What the ONNX runtime says of it is in the message."""
    (copy / "graph.onnx").write_bytes(graph)
    rewrite(copy, lambda manifest: manifest["files"].update({"graph.onnx": digest_of(copy / "graph.onnx")}))

    with pytest.raises(BundleError, match="graph cannot be loaded: .* Train the detector again"):
        load(copy)


def test_saving_leaves_what_is_no_bundle_alone(quick: TabularDetector, tmp_path: Path) -> None:
    """A slip in a path must not cost a folder of photographs."""
    (tmp_path / "photographs").mkdir()
    (tmp_path / "photographs" / "one.jpg").write_bytes(b"x")
    (tmp_path / "file").write_bytes(b"x")

    for name in ("photographs", "file"):
        with pytest.raises(BundleError, match=rf"{name} exists and is not a bundle. Name another folder, or remove it"):
            save(quick.scorer_, tmp_path / name)

    assert (tmp_path / "photographs" / "one.jpg").read_bytes() == b"x"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "photographs"]


def test_saving_makes_the_folders_it_needs(quick: TabularDetector, tmp_path: Path) -> None:
    """And takes an empty one that is there."""
    (tmp_path / "empty").mkdir()

    assert load(save(quick.scorer_, tmp_path / "a" / "b" / "c")).name == "detector"
    assert load(save(quick.scorer_, str(tmp_path / "empty"))).name == "detector"


def test_saving_replaces_an_older_bundle(copy: Path, quick: TabularDetector) -> None:
    """Wholly: no file of the older one is left, nor anything beside it."""
    save(quick.scorer_, copy)

    assert load(copy).name == "detector"
    assert not (copy / "decoder.onnx").exists()
    assert [path.name for path in copy.parent.iterdir()] == ["copy"]


@pytest.mark.parametrize(
    "step", ["onnx.folder.np.savez_compressed", "onnx.folder.digest_of", "atomic.os.fsync", "atomic.exchange"]
)
def test_saving_that_fails_keeps_the_older_bundle(
    copy: Path, quick: TabularDetector, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """A full disk while writing, or a move that fails: the older bundle is whole and nothing is left beside it."""

    def fail(*_: Any, **__: Any) -> Any:
        raise OSError("No space left on device")

    before = fingerprint(copy)
    with monkeypatch.context() as patch:
        patch.setattr(f"detector.{step}", fail)
        with pytest.raises(OSError, match="No space left"):
            save(quick.scorer_, copy)

    assert fingerprint(copy) == before
    assert load(copy).name == "mixed"
    assert [path.name for path in copy.parent.iterdir()] == ["copy"]


def test_fingerprint_names_exactly_this_bundle(saved: Path, copy: Path, quick: TabularDetector, tmp_path: Path) -> None:
    """Twelve digits, the same for a copy and another for another detector."""
    assert re.fullmatch(r"[0-9a-f]{12}", fingerprint(saved))
    assert fingerprint(copy) == fingerprint(saved)
    assert fingerprint(save(quick.scorer_, tmp_path / "quick")) != fingerprint(saved)


def test_bundle_can_be_read_by_others(saved: Path) -> None:
    """The service that scores is another user than the job that trains."""
    assert saved.stat().st_mode & 0o755 == 0o755


def test_fitted_detector_is_saved_as_its_scorer(quick: TabularDetector, tmp_path: Path) -> None:
    """Nobody needs to know of ``scorer_``; for series as for tables."""
    series = small().fit(waves(300))

    assert fingerprint(save(quick, tmp_path / "table")) == fingerprint(save(quick.scorer_, tmp_path / "its scorer"))
    assert load(save(series, tmp_path / "series")).sensors == series.scorer_.sensors


@pytest.mark.parametrize("detector", [TabularDetector(), SequenceDetector()], ids=["table", "series"])
def test_saving_an_unfitted_detector_says_what_to_do(detector: object, tmp_path: Path) -> None:
    """In place of an attribute that is not there."""
    with pytest.raises(UnfittedError, match=f"This {type(detector).__name__} is not fitted yet. Call fit"):
        save(detector, tmp_path / "bundle")


@pytest.mark.parametrize("given", [None, "bundle", {"a": 1}], ids=repr)
def test_saving_what_is_no_detector_says_what_is_expected(given: object, tmp_path: Path) -> None:
    """And makes no folder."""
    with pytest.raises(SettingError, match="expected a fitted TabularDetector or SequenceDetector, or its scorer_"):
        save(given, tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()
