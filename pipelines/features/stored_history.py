"""Where a past is kept: as one file while it is small, as a folder on disk once it would take too much memory.

Which of the two is nobody's concern but this module's: whoever reads a past goes on from either.
"""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pandas as pd

from detector.features import History, load_history, save_history

FILE, FOLDER = ".npz", ".state"
LEARNT_AT_ONCE = 2_000_000
FORGETS = 0.25
"""A past on disk is looked through for idle entities whenever so much of the time has passed that features look back.
Smaller, and all of it is read more often; larger, and more lies on disk that no feature looks at."""


def is_large(history: History, most: float) -> bool:
    """Whether a past takes more memory than so many bytes, or lies on disk already."""
    return history.is_spilled or history.bytes_in_memory >= most


def forget_idle(history: History) -> None:
    """Drop the entities that no feature looks back to; of a past on disk, only now and then."""
    if history.is_spilled and history.latest is not None and history.forgot_at is not None:
        reach = max((store.layout.reach for store in history.stores.values()), default=0)
        if history.latest - history.forgot_at < FORGETS * reach:
            return
    history.forget()


def keep(history: History, place: Path, *, most: float, purge: bool = False) -> Path:
    """Write a past, in place of an older one only once all of it is written.

    - ``place``: without an ending, which says how it is kept.
    - ``most``: bytes of memory that it may take; a larger one goes on from the folder.
    - ``purge``: have nothing stay on the disk of what it no longer holds.

    Raises ``OSError`` if the disk is full, or fails; the older one stays.
    """
    if not is_large(history, most):
        path = save_history(history, place.with_name(place.name + FILE))
        remove(place.with_name(place.name + FOLDER))
        return path
    from detector.features.spill import spill

    path = spill(history, place.with_name(place.name + FOLDER), purge=purge)
    remove(place.with_name(place.name + FILE))
    return path


def find(place: Path) -> Path:
    """The file or the folder that holds a past; the later one, where a crash has left both."""
    both = [place.with_name(place.name + ending) for ending in (FILE, FOLDER)]
    there = [path for path in both if path.exists()]
    return max(there, key=lambda path: path.stat().st_mtime_ns) if there else both[0]


def recall(place: Path) -> History:
    """The past that ``keep`` wrote.

    Raises ``BundleError`` if there is none, or it is broken.
    """
    return load_history(find(place))


def remove(path: Path) -> None:
    """Delete a file or a folder, if it is there; half a folder is never taken for a whole one."""
    if not path.is_dir():
        path.unlink(missing_ok=True)
        return
    gone = path.rename(path.with_name(f".{path.name}-{uuid4().hex}"))
    shutil.rmtree(gone, ignore_errors=True)


def leftovers(folder: Path) -> Iterator[Path]:
    """What a crash has left of files and folders in the making, or of those that were being deleted."""
    if folder.is_dir():
        yield from (path for path in folder.iterdir() if path.name.startswith(".") and (FOLDER in path.name))


def learnt_from(history: History, taken: pd.DataFrame, *, most: float) -> History:
    """An empty history with the past of some rows; of very many in parts, on disk once it takes so many bytes."""
    if len(taken) <= LEARNT_AT_ONCE:
        history.learn(taken)
        return history
    folder = Path(tempfile.mkdtemp(prefix="detector-past-"))
    weakref.finalize(history, shutil.rmtree, folder, ignore_errors=True)
    order = history.features.read(taken).order
    for part, start in enumerate(range(0, len(taken), LEARNT_AT_ONCE)):
        history.learn(taken.iloc[order[start : start + LEARNT_AT_ONCE]])
        if is_large(history, most):
            keep(history, folder / f"part-{part}", most=most)
    return history
