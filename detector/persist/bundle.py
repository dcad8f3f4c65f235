"""A fitted detector as a folder of ONNX, npz and JSON; never a pickle, so loading runs no code.

::

    bundle/
    ├── bundle.json     format, kind, settings, metrics, and the SHA-256 of every other file
    ├── arrays.npz      scaling, trees, references, components, calibration risks
    └── *.onnx          of a table: graph (rows → members' scores), inside (rows → what reasons are made of) and
                        decoder (code → row); of series: each model's network and forest, where it has them
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from detector.atomic import whole_folder
from detector.detectors.series.scorer import SequenceScorer
from detector.detectors.table.scorer import TabularScorer
from detector.errors import BundleError
from detector.onnx.parts import Parts

FORMAT = 1
MANIFEST = "bundle.json"
ARRAYS = "arrays.npz"

Scorer: TypeAlias = TabularScorer | SequenceScorer
KINDS: dict[str, type[TabularScorer] | type[SequenceScorer]] = {"table": TabularScorer, "series": SequenceScorer}


def save(scorer: Scorer, folder: Path | str) -> Path:
    """Write a scorer to a folder, replacing a bundle that is there.

    The bundle is written beside its place and then moved, so a reader never sees half of one.

    Parameters
    ----------
    scorer : TabularScorer
        What ``TabularDetector.fit`` left in ``scorer_``.
    folder : path
        Made if it does not exist.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    BundleError
        See ``check_place``.
    """
    folder = Path(folder)
    check_place(folder)
    with whole_folder(folder) as building:
        parts = scorer.to_parts()
        np.savez_compressed(building / ARRAYS, **parts.arrays)  # type: ignore[arg-type]  # numpy types the flag too
        for name, content in parts.graphs.items():
            (building / f"{name}.onnx").write_bytes(content)
        manifest = {
            "format": FORMAT,
            "kind": next(kind for kind, made in KINDS.items() if isinstance(scorer, made)),
            **parts.facts,
            "files": {path.name: _digest(path) for path in sorted(building.iterdir())},
        }
        manifest["digest"] = _own_digest(manifest)
        (building / MANIFEST).write_text(json.dumps(manifest, indent=2, ensure_ascii=False), encoding="utf-8")
    return folder


def check_place(folder: Path) -> None:
    """Make sure that a bundle can be written to a folder; the folders above it are made.

    Raises ``BundleError`` if the folder exists and holds something else than a bundle, or cannot be made.
    """
    if folder.exists() and not (folder.is_dir() and ((folder / MANIFEST).exists() or not any(folder.iterdir()))):
        raise BundleError(f"{folder} exists and is not a bundle. Name another folder, or remove it.")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise BundleError(f"{folder} cannot be made: {folder.parent} is a file. Name another folder.") from None
    except OSError as error:
        raise BundleError(f"{folder} cannot be made: {error.strerror}. Name another folder.") from error
    if not os.access(folder.parent, os.W_OK | os.X_OK):
        raise BundleError(f"{folder} cannot be made: this user may not write to {folder.parent}. Name another folder.")


def load(folder: Path | str) -> Scorer:
    """Read a scorer back and check that no byte of it has changed.

    Parameters
    ----------
    folder : path
        As ``save`` wrote it.

    Raises
    ------
    BundleError
        If the folder is no bundle, a file of it is missing or changed, or it was written by a newer version.
    """
    folder = Path(folder).resolve()  # a link to a bundle may be moved to another one meanwhile
    manifest = _manifest(folder)
    for name in {ARRAYS: None, **manifest["files"]}:
        path = folder / name
        if name not in manifest["files"] or Path(name).name != name or not path.is_file():
            raise BundleError(f"{path} is missing from the bundle. Copy the whole folder again, or train again.")
        if _digest(path) != manifest["files"][name]:
            raise BundleError(f"{path} has changed since it was saved. Copy the bundle again, or train again.")
    try:
        return _assemble(folder, manifest)
    except (KeyError, TypeError, ValueError, OSError) as error:
        if isinstance(error, BundleError):
            raise
        raise BundleError(f"{folder / MANIFEST} does not describe a detector: {error!r}. Train again.") from error


def fingerprint(folder: Path | str) -> str:
    """A short name for exactly this bundle: the first 12 digits of its manifest's SHA-256."""
    _manifest(Path(folder))
    return _digest(Path(folder) / MANIFEST)[:12]


def _manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    if not path.is_file():
        raise BundleError(f"{folder} holds no trained detector (no {MANIFEST}). Run `detector train` first.")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        version = manifest["format"]
        _ = manifest["files"].items()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BundleError(f"{path} is damaged: {error!r}. Copy the bundle again, or train again.") from error
    if version != FORMAT:
        raise BundleError(f"{path} has format {version}; this version reads format {FORMAT}. Train again.")
    if manifest.get("digest") != _own_digest(manifest):
        raise BundleError(f"{path} has changed since it was saved. Copy the bundle again, or train again.")
    return dict(manifest)


def _own_digest(manifest: dict[str, Any]) -> str:
    """The SHA-256 of everything in the manifest but itself."""
    text = json.dumps({key: value for key, value in manifest.items() if key != "digest"}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _assemble(folder: Path, manifest: dict[str, Any]) -> Scorer:
    with np.load(folder / ARRAYS, allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files}
    graphs = {Path(name).stem: (folder / name).read_bytes() for name in manifest["files"] if name.endswith(".onnx")}
    return KINDS[manifest["kind"]].from_parts(Parts(manifest, arrays, graphs))


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
