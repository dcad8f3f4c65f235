"""Parts as a folder of ONNX, npz and JSON, sealed by digests; never a pickle, so reading runs no code."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from detector.atomic import whole_folder
from detector.errors import BundleError
from detector.onnx.parts import UNREADABLE, Parts, check_unpacked

FORMAT = 1
ARRAYS = "arrays.npz"


@dataclass(frozen=True)
class PartsFolder:
    """How parts of one kind are stored: the facts in a manifest, with the SHA-256 of every other file and its own.

    - ``manifest``: the name of that file.
    - ``noun``: what the folder is called in messages.
    - ``again``: how to make another, in messages.
    - ``absent``: what to say of a folder without a manifest.
    """

    manifest: str
    noun: str
    again: str
    absent: str

    def check_free(self, folder: Path) -> None:
        """Refuse to write over anything but a folder of this kind, or an empty one."""
        ours = folder.is_dir() and ((folder / self.manifest).exists() or not any(folder.iterdir()))
        if folder.exists() and not ours:
            article = "an" if self.noun[0] in "aeiou" else "a"
            raise BundleError(f"{folder} exists and is not {article} {self.noun}. Name another folder, or remove it.")

    def write(self, folder: Path, parts: Parts) -> None:
        """Write parts, replacing those that are there; the folder above must exist."""
        with whole_folder(folder) as building:
            np.savez_compressed(building / ARRAYS, **parts.arrays)  # type: ignore[arg-type]  # numpy types the flag too
            for name, content in parts.graphs.items():
                (building / f"{name}.onnx").write_bytes(content)
            files = {path.name: digest_of(path) for path in sorted(building.iterdir())}
            facts = {"format": FORMAT, **parts.facts, "files": files}
            facts["digest"] = own_digest(facts)
            (building / self.manifest).write_text(json.dumps(facts, indent=2, ensure_ascii=False), encoding="utf-8")

    def read(self, folder: Path) -> Parts:
        """Read parts back. Raises ``BundleError`` if a byte has changed since, or the format is another."""
        facts = self.facts(folder)
        files = facts["files"]
        for name in {ARRAYS: None, **files}:
            path = folder / name
            if name not in files or Path(name).name != name or not path.is_file():
                raise BundleError(
                    f"{path} is missing from the {self.noun}. Copy the whole folder again, or {self.again}."
                )
            if digest_of(path) != files[name]:
                raise self._damaged(path, "has changed since it was saved")
        try:
            check_unpacked(folder / ARRAYS)
            with np.load(folder / ARRAYS, allow_pickle=False) as stored:
                arrays = {name: stored[name] for name in stored.files}
        except UNREADABLE as error:
            raise self._damaged(folder / ARRAYS, f"is damaged: {error!r}") from error
        graphs = [name for name in files if name.endswith(".onnx")]
        return Parts(facts, arrays, {name.removesuffix(".onnx"): (folder / name).read_bytes() for name in graphs})

    def facts(self, folder: Path) -> dict[str, Any]:
        """The manifest alone, checked."""
        path = folder / self.manifest
        if not path.is_file():
            raise BundleError(f"{folder} holds no {self.absent}")
        try:
            facts = json.loads(path.read_text(encoding="utf-8"))
            version = facts["format"]
            _ = facts["files"].items()
        except (*UNREADABLE, AttributeError) as error:
            raise self._damaged(path, f"is damaged: {error!r}") from error
        if version != FORMAT:
            raise BundleError(
                f"{path} has format {version}; this version reads format {FORMAT}. {self.again.capitalize()}."
            )
        if facts.get("digest") != own_digest(facts):
            raise self._damaged(path, "has changed since it was saved")
        return dict(facts)

    def _damaged(self, path: Path, how: str) -> BundleError:
        return BundleError(f"{path} {how}. Copy the {self.noun} again, or {self.again}.")


def own_digest(facts: Mapping[str, Any]) -> str:
    """The SHA-256 of everything in a manifest but itself."""
    text = json.dumps({key: value for key, value in facts.items() if key != "digest"}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def digest_of(path: Path) -> str:
    """The SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
