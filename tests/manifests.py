"""Manifests of bundles, changed as an attacker or a later release would."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from detector.onnx.folder import own_digest
from detector.persist.bundle import MANIFEST


def rewrite(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the manifest as someone would who can compute its digest."""
    path = folder / MANIFEST
    manifest = json.loads(path.read_text(encoding="utf-8"))
    change(manifest)
    manifest["digest"] = own_digest(manifest)
    path.write_text(json.dumps(manifest), encoding="utf-8")
