"""A fitted encoder as a folder of ONNX, npz and JSON; never a pickle, so loading runs no code.

::

    folder/
    ├── encoder.json    class, parameters, what was learnt, and the SHA-256 of every other file
    ├── arrays.npz      scaling, levels of categories, weights
    ├── graph.onnx      row → code, what is expected, error
    └── decoder.onnx    code → what is expected
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import detector.encoders
from detector.atomic import whole_folder
from detector.encoders.estimator import AutoencoderMixin
from detector.encoders.scaling import Scaling
from detector.encoders.vocabulary import Vocabulary
from detector.errors import BundleError
from detector.onnx.graph import Graph
from detector.training.settings import Training

FORMAT = 1
MANIFEST = "encoder.json"
ARRAYS = "arrays.npz"
KINDS = tuple(name for name in detector.encoders.__all__ if name.endswith("Autoencoder"))
LEFT_OUT = ("initial_weights", "on_epoch")
"""Parameters that mattered only while fitting."""


def save(encoder: AutoencoderMixin, folder: Path | str) -> Path:
    """Write a fitted encoder to a folder, replacing an encoder that is there.

    ``initial_weights`` and ``on_epoch`` are not kept; the learnt ``weights_`` are.

    Raises
    ------
    UnfittedError
        If the encoder is not fitted.
    BundleError
        If the folder holds something else, or cannot be written.
    """
    encoder._check_fitted()
    folder = Path(folder)
    if folder.exists() and not (folder.is_dir() and ((folder / MANIFEST).exists() or not any(folder.iterdir()))):
        raise BundleError(f"{folder} exists and is not an encoder. Name another folder, or remove it.")
    writing = _Writing()
    facts = {"format": FORMAT, "encoder": writing.put(encoder)}
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with whole_folder(folder) as building:
            np.savez_compressed(building / ARRAYS, **writing.arrays)  # type: ignore[arg-type]  # numpy types the flag
            for name, content in writing.graphs.items():
                (building / name).write_bytes(content)
            facts["files"] = {path.name: _digest(path) for path in sorted(building.iterdir())}
            facts["digest"] = _own_digest(facts)
            (building / MANIFEST).write_text(json.dumps(facts, indent=2, ensure_ascii=False), encoding="utf-8")
    except OSError as error:
        raise BundleError(f"{folder} cannot be made: {error.strerror or error}. Name another folder.") from error
    return folder


def load(folder: Path | str) -> Any:
    """Read an encoder back; it answers as it did, without TensorFlow.

    Raises
    ------
    BundleError
        If the folder is no encoder, or a file of it is missing, changed or of another format.
    """
    folder = Path(folder)
    if not (folder / MANIFEST).is_file():
        raise BundleError(f"{folder} holds no encoder (no {MANIFEST}). Save one with detector.encoders.save.")
    try:
        facts = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if facts["format"] != FORMAT:
            raise BundleError(
                f"{folder / MANIFEST} has format {facts['format']}; this version reads format {FORMAT}. Fit it again."
            )
        if facts["digest"] != _own_digest(facts):
            raise BundleError(
                f"{folder / MANIFEST} has changed since it was saved. Copy the folder again, or fit again."
            )
        for name, digest in facts["files"].items():
            if Path(name).name != name or _digest(folder / name) != digest:
                raise BundleError(
                    f"{folder / name} has changed since it was saved. Copy the folder again, or fit again."
                )
        with np.load(folder / ARRAYS, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        return _read(facts["encoder"], arrays, folder, list(facts["files"]))
    except (KeyError, TypeError, ValueError, AttributeError, OSError) as error:
        if isinstance(error, BundleError):
            raise
        raise BundleError(f"{folder} is damaged: {error!r}. Copy the folder again, or fit again.") from error


class _Writing:
    """Turns values into JSON, and puts aside what JSON cannot hold."""

    def __init__(self) -> None:
        self.arrays: dict[str, NDArray[Any]] = {}
        self.graphs: dict[str, bytes] = {}

    def put(self, value: Any, name: str = "") -> Any:
        """A value of a kind that encoders have among their parameters and attributes."""
        if isinstance(value, np.ndarray) and value.dtype == object:
            return {"names": value.tolist()}
        if isinstance(value, np.ndarray):
            self.arrays[name] = value
            return {"array": name}
        if isinstance(value, Graph):
            self.graphs[file := f"{name.strip('/').rstrip('_')}.onnx"] = value.content
            return {"graph": file}
        if isinstance(value, AutoencoderMixin):
            return {"class": type(value).__name__, **self._encoder(value, f"{name}/" if name else "")}
        if isinstance(value, Scaling):
            return {"scaling": self.put([value.centre, value.scale], name)}
        if isinstance(value, Vocabulary):
            return {"vocabulary": list(value.tokens), "length": value.length}
        if isinstance(value, Training):
            return {"training": asdict(value)}
        if isinstance(value, Mapping):
            return {"mapping": {key: self.put(part, f"{name}/{key}") for key, part in value.items()}}
        if isinstance(value, tuple):
            return {"tuple": self.put(list(value), name)}
        if isinstance(value, list):
            return [self.put(part, f"{name}/{at}") for at, part in enumerate(value)]
        return value.item() if isinstance(value, np.generic) else value

    def _encoder(self, encoder: Any, start: str) -> dict[str, Any]:
        parameters = {
            name: None if name in LEFT_OUT else value for name, value in encoder.get_params(deep=False).items()
        }
        learnt = {name: value for name, value in vars(encoder).items() if name.endswith("_")}
        return {
            part: {name: self.put(value, f"{start}{name}") for name, value in values.items()}
            for part, values in (("parameters", parameters), ("learnt", learnt))
        }


def _read(value: Any, arrays: Mapping[str, NDArray[Any]], folder: Path, files: list[str]) -> Any:
    """What ``_Writing.put`` wrote."""
    if isinstance(value, list):
        return [_read(part, arrays, folder, files) for part in value]
    if not isinstance(value, dict):
        return value
    match value:
        case {"array": name}:
            return arrays[name]
        case {"names": names}:
            return np.array(names, dtype=object)
        case {"graph": name} if name in files:
            return Graph((folder / name).read_bytes())
        case {"scaling": parts}:
            return Scaling(*_read(parts, arrays, folder, files))
        case {"vocabulary": tokens, "length": length}:
            return Vocabulary(tuple(tokens), length)
        case {"training": settings}:
            return Training(**settings)
        case {"tuple": parts}:
            return tuple(_read(parts, arrays, folder, files))
        case {"mapping": parts}:
            return {name: _read(part, arrays, folder, files) for name, part in parts.items()}
        case {"class": kind, "parameters": parameters, "learnt": learnt} if kind in KINDS:
            encoder = getattr(detector.encoders, kind)(
                **{name: _read(part, arrays, folder, files) for name, part in parameters.items()}
            )
            vars(encoder).update({name: _read(part, arrays, folder, files) for name, part in learnt.items()})
            return encoder
    raise BundleError(f"{folder / MANIFEST} does not describe an encoder: {value!r}. Fit it again.")


def _own_digest(facts: Mapping[str, Any]) -> str:
    """The SHA-256 of everything in the manifest but itself."""
    text = json.dumps({key: value for key, value in facts.items() if key != "digest"}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
