"""Encoders as folders, and the package as the place where all their names are."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from detector import encoders
from detector.encoders import DenseAutoencoder, TokenAutoencoder, load, save
from detector.errors import BundleError, UnfittedError
from detector.training.settings import Training
from tests.encoder_homes import BRIEF

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def fitted() -> DenseAutoencoder:
    """Fitted on a frame; tests must not change it."""
    rows = pd.DataFrame(np.random.default_rng(0).normal(size=(20, 3)), columns=["a", "b", "c"])
    return DenseAutoencoder(code=2, hidden=(4, 3), training=BRIEF, on_epoch=lambda done, planned: None).fit(rows)


@pytest.fixture
def folder(fitted: DenseAutoencoder, tmp_path: Path) -> Path:
    """A saved encoder, to do anything with."""
    return save(fitted, tmp_path / "encoder")


def test_saved_encoder_keeps_parameters_and_names(fitted: DenseAutoencoder, folder: Path) -> None:
    """Tuples stay tuples, training settings their type; what only fitting needed is gone."""
    again = load(folder)

    assert again.get_params() == fitted.get_params() | {"on_epoch": None}
    assert again.feature_names_in_.tolist() == ["a", "b", "c"]
    assert {path.name for path in folder.iterdir()} == {"arrays.npz", "decoder.onnx", "encoder.json", "graph.onnx"}


def test_saving_replaces_an_encoder_and_nothing_else(fitted: DenseAutoencoder, folder: Path, tmp_path: Path) -> None:
    """A folder of something else, or a file, is left alone."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear", encoding="utf-8")

    assert save(fitted, folder) == folder
    assert sorted(path.name for path in tmp_path.iterdir()) == ["encoder", "mine"]
    with pytest.raises(BundleError, match="mine exists and is not an encoder. Name another folder"):
        save(fitted, tmp_path / "mine")
    with pytest.raises(BundleError, match="encoder cannot be made: .*. Name another folder"):
        save(fitted, tmp_path / "mine" / "letter.txt" / "encoder")


def test_only_a_fitted_encoder_can_be_saved(tmp_path: Path) -> None:
    """There would be nothing to answer from."""
    with pytest.raises(UnfittedError, match="is not fitted yet"):
        save(DenseAutoencoder(), tmp_path / "encoder")


def test_folder_without_an_encoder_is_an_error(tmp_path: Path) -> None:
    """It says what is missing."""
    with pytest.raises(BundleError, match=r"holds no encoder \(no encoder.json\)"):
        load(tmp_path)


@pytest.mark.parametrize("name", ["arrays.npz", "graph.onnx", "decoder.onnx", "encoder.json"])
def test_changed_byte_names_the_file(folder: Path, name: str) -> None:
    """Any change of any file is found."""
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content.replace(b"0", b"1", 1) if name.endswith("json") else content[:-1])

    with pytest.raises(BundleError, match=f"{name} has changed|is damaged|has format"):
        load(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "has format 2; this version reads format 1"),
        ({"encoder": {"class": "save", "parameters": {}, "learnt": {}}}, "does not describe an encoder"),
        ({"encoder": {"class": "DenseAutoencoder", "parameters": {"size": 3}, "learnt": {}}}, "is damaged: TypeError"),
        ({"files": {"arrays.npz": None, "../elsewhere": ""}}, "is missing from the encoder|has changed"),
    ],
)
def test_manifest_of_someone_elses_making_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], message: str
) -> None:
    """Even where its own checksum is right: no other class, no other parameter, no file from elsewhere."""
    facts = json.loads((folder / "encoder.json").read_text(encoding="utf-8")) | change
    monkeypatch.setattr("detector.onnx.folder.own_digest", lambda facts: facts["digest"])
    (folder / "encoder.json").write_text(json.dumps(facts), encoding="utf-8")

    with pytest.raises(BundleError, match=message):
        load(folder)


def test_whole_float_of_an_earlier_version_is_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as epochs of 30.0, which fitted as well as 30."""
    facts = json.loads((folder / "encoder.json").read_text(encoding="utf-8"))
    facts["encoder"]["parameters"]["training"]["training"]["epochs"] = 30.0
    monkeypatch.setattr("detector.onnx.folder.own_digest", lambda facts: facts["digest"])
    (folder / "encoder.json").write_text(json.dumps(facts), encoding="utf-8")

    assert repr(load(folder).training.epochs) == "30"


def test_missing_file_is_an_error(folder: Path) -> None:
    """The folder was not copied as a whole."""
    (folder / "graph.onnx").unlink()

    with pytest.raises(BundleError, match="graph.onnx is missing from the encoder. Copy the whole folder again"):
        load(folder)


def test_every_public_name_can_be_had() -> None:
    """``__all__`` is what there is, and each name is the thing of that name."""
    assert [getattr(encoders, name).__name__ for name in encoders.__all__] == encoders.__all__
    assert set(dir(encoders)) == set(encoders.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'Autoencoder'"):
        _ = encoders.Autoencoder


def test_importing_encoders_loads_no_tensorflow() -> None:
    """Nor does making one: that comes with ``fit``."""
    code = (
        "import sys; from detector.encoders import *; TokenAutoencoder(); "
        "print([name for name in ('keras', 'tensorflow', 'onnx') if name in sys.modules])"
    )

    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.slow
def test_lists_of_any_lengths_become_vectors_and_lists_again() -> None:
    """The example of the README, with fewer epochs."""
    histories = [[3, 1, 4], [1, 5, 9, 2, 6], [5, 3], [5, 8, 9, 7]]
    encoder = TokenAutoencoder(code=8, training=Training(epochs=5)).fit(histories)
    vectors = encoder.encode(histories)

    assert vectors.shape == (4, 8)
    assert encoder.decode(vectors) == histories


def test_documentation_makes_every_encoder() -> None:
    """The examples run, and none is forgotten."""
    text = (ROOT / "docs" / "encoders.md").read_text(encoding="utf-8")
    example = next(block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "rng" in block)

    exec(compile(example, "docs/encoders.md", "exec"), {})  # our own
    assert all(f"encoders.{name}(" in example for name in encoders.__all__ if name.endswith("Autoencoder"))
