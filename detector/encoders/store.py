"""A fitted encoder as a folder of ONNX, npz and JSON; never a pickle, so loading runs no code.

::

    folder/
    ├── encoder.json    class, parameters, what was learnt, and the SHA-256 of every other file
    ├── arrays.npz      scaling, levels of categories, weights
    ├── graph.onnx      row → code, what is expected, error
    └── decoder.onnx    code → what is expected
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import detector.encoders
from detector.encoders.estimator import AutoencoderMixin
from detector.encoders.scaling import Scaling
from detector.encoders.vocabulary import Vocabulary
from detector.errors import BundleError
from detector.onnx.folder import PartsFolder
from detector.onnx.graph import Graph
from detector.onnx.parts import Parts
from detector.training.settings import Training

MANIFEST = "encoder.json"
FOLDER = PartsFolder(
    MANIFEST, "encoder", "fit again", f"encoder (no {MANIFEST}). Save one with detector.encoders.save."
)
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
    FOLDER.check_free(folder)
    writing = _Writing()
    facts = {"encoder": writing.put(encoder)}
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        FOLDER.write(folder, Parts(facts, writing.arrays, writing.graphs))
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
    try:
        parts = FOLDER.read(folder)
        return _read(parts.facts["encoder"], parts)
    except (BundleError, ImportError):
        raise
    except Exception as error:  # whatever those who can compute digests have put there, it is no encoder
        raise BundleError(f"{folder} is damaged: {error!r}. Copy the encoder again, or fit again.") from error


class _Writing:
    """Turns values into JSON, and collects what JSON cannot hold."""

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
            self.graphs[stem := name.strip("/").rstrip("_")] = value.content
            return {"graph": f"{stem}.onnx"}
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


def _read(value: Any, parts: Parts) -> Any:
    """What ``_Writing.put`` wrote."""
    if isinstance(value, list):
        return [_read(part, parts) for part in value]
    if not isinstance(value, dict):
        return value
    match value:
        case {"array": name}:
            return parts.arrays[name]
        case {"names": names}:
            return np.array(names, dtype=object)
        case {"graph": name}:
            return Graph(parts.graphs[name.removesuffix(".onnx")])
        case {"scaling": values}:
            return Scaling(*_read(values, parts))
        case {"vocabulary": tokens, "length": length}:
            return Vocabulary(tuple(tokens), length)
        case {"training": settings}:
            return Training(**settings)
        case {"tuple": values}:
            return tuple(_read(values, parts))
        case {"mapping": values}:
            return {name: _read(part, parts) for name, part in values.items()}
        case {"class": kind, "parameters": parameters, "learnt": learnt} if kind in KINDS:
            encoder = getattr(detector.encoders, kind)(
                **{name: _read(part, parts) for name, part in parameters.items()}
            )
            vars(encoder).update({name: _read(part, parts) for name, part in learnt.items()})
            return encoder
    raise BundleError(f"{MANIFEST} does not describe an encoder: {value!r}. Fit it again.")
