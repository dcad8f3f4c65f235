"""A fitted detector as a folder of ONNX, npz and JSON; never a pickle, so loading runs no code.

::

    bundle/
    ├── bundle.json     format, kind, settings, metrics, and the SHA-256 of every other file
    ├── arrays.npz      scaling, trees, references, components, calibration risks
    └── *.onnx          of a table: graph (rows → members' scores), inside (rows → what reasons are made of) and
                        decoder (code → row); of series: each model's network and forest, where it has them
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from detector.detectors.series.scorer import SequenceScorer
from detector.detectors.table.scorer import TabularScorer
from detector.errors import BundleError, SettingError, UnfittedError
from detector.onnx.folder import PartsFolder, digest_of

if TYPE_CHECKING:
    from detector.detectors.series.detector import SequenceDetector
    from detector.detectors.table.detector import TabularDetector

MANIFEST = "bundle.json"
FOLDER = PartsFolder(
    MANIFEST, "bundle", "train again", f"trained detector (no {MANIFEST}). Run `detector train` first."
)

Scorer: TypeAlias = TabularScorer | SequenceScorer
KINDS: dict[str, type[TabularScorer] | type[SequenceScorer]] = {"table": TabularScorer, "series": SequenceScorer}


def save(scorer: Scorer | TabularDetector | SequenceDetector, folder: Path | str) -> Path:
    """Write a scorer, or that of a fitted detector, to a folder, replacing a bundle that is there.

    The bundle is written beside its place and then moved, so a reader never sees half of one.

    Parameters
    ----------
    scorer : TabularScorer, SequenceScorer, TabularDetector or SequenceDetector
        A fitted detector, or what ``fit`` left in its ``scorer_``.
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
    UnfittedError
        If the detector is not fitted.
    SettingError
        If it is something else.
    """
    folder, scorer = Path(folder), _scorer_of(scorer)
    check_place(folder)
    parts = scorer.to_parts()
    kind = next(kind for kind, made in KINDS.items() if isinstance(scorer, made))
    FOLDER.write(folder, replace(parts, facts={"kind": kind, **parts.facts}))
    return folder


def _scorer_of(given: object) -> Scorer:
    """The scorer of a fitted detector; a scorer is its own."""
    kind = type(given).__name__
    if kind in ("TabularDetector", "SequenceDetector") and not hasattr(given, "scorer_"):
        raise UnfittedError(f"This {kind} is not fitted yet. Call fit before saving it.")
    scorer = getattr(given, "scorer_", given)
    if not isinstance(scorer, TabularScorer | SequenceScorer):
        raise SettingError(
            f"save expected a fitted TabularDetector or SequenceDetector, or its scorer_. Received: {kind}. "
            f"Encoders are saved by detector.encoders."
        )
    return scorer


def check_place(folder: Path) -> None:
    """Make sure that a bundle can be written to a folder; the folders above it are made.

    Raises ``BundleError`` if the folder exists and holds something else than a bundle, or cannot be made.
    """
    FOLDER.check_free(folder)
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
    try:
        parts = FOLDER.read(folder)
        return KINDS[parts.facts["kind"]].from_parts(parts)
    except (BundleError, ImportError):
        raise
    except Exception as error:  # whatever those who can compute digests have put there, it is no detector
        raise BundleError(f"{folder / MANIFEST} does not describe a detector: {error!r}. Train again.") from error


def fingerprint(folder: Path | str) -> str:
    """A short name for exactly this bundle: the first 12 digits of its manifest's SHA-256."""
    FOLDER.facts(Path(folder))
    return digest_of(Path(folder) / MANIFEST)[:12]


def stamp(folder: Path | str) -> tuple[int, ...] | None:
    """What changes with a bundle's manifest, to be had at once; None if there is none."""
    try:
        found = os.stat(os.path.join(folder, MANIFEST))  # noqa: PTH116, PTH118 - each event that is scored asks
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
