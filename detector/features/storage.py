"""A history as one file: plain arrays and JSON, nothing that runs."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detector.atomic import whole_file
from detector.errors import BundleError
from detector.features.duration import short
from detector.features.entities import plain
from detector.features.feature_set import FeatureSet
from detector.features.history import History
from detector.onnx.parts import UNREADABLE, check_unpacked

VERSION = 3


def save_history(history: History, path: Path) -> Path:
    """Write a history, replacing an older one only once all of it is written.

    Parameters
    ----------
    history : History
        What to keep.
    path : Path
        A file that ends in ``.npz``.
    """
    about = {
        "version": VERSION,
        "features": history.features.to_dict(),
        "lateness": short(history.lateness) if history.lateness else None,
        "told_by": history.told_by,
        "latest": history.latest,
    }
    arrays = {"about": _text(json.dumps(about))}
    for number, store in enumerate(history.stores.values()):
        entities = store.entities
        arrays[f"{number}.names"] = _text(json.dumps(list(entities)))
        arrays[f"{number}.keys"] = _text(json.dumps(store.tails, default=plain))
        arrays[f"{number}.ends"] = np.cumsum([0, *map(len, entities.values())], dtype=np.int64)
        arrays[f"{number}.events"] = np.frombuffer(b"".join(entities.values()), dtype=np.uint8)
    with whole_file(path) as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]  # NumPy's stub takes the names for its own arguments
    return path


def load_history(path: Path) -> History:
    """The inverse of ``save_history``, and of ``save_spilled`` where the path is a folder.

    Raises
    ------
    BundleError
        If the file is missing, broken, or of a newer version.
    """
    if path.is_dir():
        from detector.features.spill import load_spilled

        return load_spilled(path)
    try:
        check_unpacked(path)
        with np.load(path, allow_pickle=False) as arrays:
            about = json.loads(arrays["about"].tobytes())
            if about["version"] != VERSION:
                raise BundleError(
                    f"{path} is a history of version {about['version']}, this program reads {VERSION}. Learn it again."
                )
            features = FeatureSet.from_dict(about["features"])
            history = History(features, lateness=about["lateness"], told_by=about.get("told_by"))
            history.latest = about["latest"]
            for number, store in enumerate(history.stores.values()):
                store.entities = _entities(arrays, number)
                tails = json.loads(arrays[f"{number}.keys"].tobytes())
                store.tails = {name: tuple(keys) for name, keys in tails.items()}
    except FileNotFoundError:
        raise BundleError(f"There is no history {path}. Learn one first.") from None
    except UNREADABLE as error:
        if isinstance(error, BundleError):
            raise
        raise BundleError(f"{path} is no history, or is broken ({type(error).__name__}). Learn it again.") from error
    return history


def _entities(arrays: Any, number: int) -> dict[str, bytes]:
    names = json.loads(arrays[f"{number}.names"].tobytes())
    packed, ends = arrays[f"{number}.events"].tobytes(), arrays[f"{number}.ends"].tolist()
    return dict(zip(names, (packed[begin:end] for begin, end in pairwise(ends)), strict=True))


def _text(text: str) -> NDArray[np.uint8]:
    return np.frombuffer(text.encode(), dtype=np.uint8)
