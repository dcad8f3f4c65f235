"""What to say of a disk that is full: which file, and how much room there is."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

FULL = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the quota of this user is used up",
    errno.EFBIG: "a file may not grow so large (ulimit -f, or the file system)",
}
"""What a system says when there is no room, and what it means."""
LEAST_FREE, LEAST_SHARE = 50_000_000, 0.1
"""With fewer bytes free a disk is full soon: the scores of some hundred thousand rows; of a small one, that share."""


def unwritten(path: Path, error: OSError) -> str:
    """That a file cannot be written, why, and how much room its disk has.

    >>> unwritten(Path("/nowhere/scores.csv"), OSError(errno.ENOSPC, "")).partition(". ")[0]
    '/nowhere/scores.csv cannot be written: the disk is full'
    """
    return f"{path} cannot be written: {_why(error)}. {room([path])}"


def full_disk(error: BaseException, places: Iterable[Path] = ()) -> str | None:
    """What to tell people of an error that nobody expected; None if it is no full disk.

    - ``places``: where might have been written to, where the error does not say it; beside temporary files.

    >>> full_disk(ValueError("no")) is None
    True
    """
    if isinstance(error, shutil.Error):  # a folder that was copied in part
        for _, target, said in error.args[0]:
            for code in FULL:
                if f"[Errno {code}]" in str(said):
                    return unwritten(Path(target), OSError(code, os.strerror(code)))
    if not isinstance(error, OSError) or error.errno not in FULL:
        return None
    if isinstance(error.filename, str):
        return unwritten(Path(error.filename), error)
    return f"Nothing can be written: {_why(error)}. {room([*places, Path(tempfile.gettempdir())])}"


def room(places: Iterable[Path]) -> str:
    """How much room the disks of some places have, be those there or not: each disk once, the fullest first.

    >>> room([Path("/nowhere/scores.csv"), Path("/elsewhere")]).partition(" are ")[2]
    'free at /.'
    """
    found: dict[int, tuple[int, str]] = {}
    for place in places:
        folder = _nearest(place.resolve())
        try:
            disk, device = shutil.disk_usage(folder), folder.stat().st_dev
        except OSError:
            continue
        said = f"{_megabytes(disk.free)} of {_megabytes(disk.total)} are free at {folder}"
        found.setdefault(device, (disk.free, said))
    if not found:
        return "How much room there is cannot be told."
    return "; ".join(said for _, said in sorted(found.values())) + "."


def is_short(place: Path) -> bool:
    """Whether the disk of a file or folder, be it there or not, has hardly any room."""
    try:
        disk = shutil.disk_usage(_nearest(place.resolve()))
    except OSError:
        return False
    return disk.free < min(LEAST_FREE, LEAST_SHARE * disk.total)


def _nearest(place: Path) -> Path:
    """The folder that is there, at or above a place."""
    while not place.is_dir() and place != place.parent:
        place = place.parent
    return place


def _why(error: OSError) -> str:
    if error.errno is None:
        return str(error)
    return FULL.get(error.errno, os.strerror(error.errno))


def _megabytes(size: int) -> str:
    """Whole megabytes, rounded down: what is nearly full is full.

    >>> _megabytes(999_999), _megabytes(24_000_000)
    ('0 MB', '24 MB')
    """
    return f"{size // 1_000_000:,} MB"
