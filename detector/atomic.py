"""Files and folders that change in one step: a reader sees the old or the new, never half of either."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

_AT_FDCWD = -100
_EXCHANGE = 2
_UNSUPPORTED = (errno.ENOSYS, errno.EINVAL, errno.EPERM)


@contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """A file to write, which takes the place of another at the end; should anything fail, the other stays.

    Whoever could read the other can read this one; a new one can be read by all.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "state.json"
    >>> with whole_file(path) as file:
    ...     _ = file.write(b"{}")
    >>> path.read_text()
    '{}'
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}-", suffix=".part", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(path.stat().st_mode & 0o777 if path.exists() else 0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def write_whole(path: Path, text: str) -> None:
    """Replace a text file; after a power cut it is the old one or the new one.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "state.json"
    >>> write_whole(path, "{}")
    >>> path.read_text()
    '{}'
    """
    with whole_file(path) as file:
        file.write(text.encode())


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A folder to fill, which takes the place of another at the end; should anything fail, the other stays.

    The folder above must exist.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp()) / "bundle"
    >>> for content in "ab":
    ...     with whole_folder(folder) as building:
    ...         _ = (building / content).write_text(content)
    >>> [path.name for path in folder.iterdir()]
    ['b']
    """
    building = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        yield building
        for path in building.rglob("*"):
            if path.is_file():
                with path.open("rb") as file:
                    os.fsync(file.fileno())
        building.chmod(0o755)
        if folder.exists():
            exchange(building, folder)
        else:
            building.replace(folder)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def exchange(first: Path, second: Path) -> None:
    """Let two paths change places, as one step where the system can.

    Linux can since 3.15, on nearly every file system. Elsewhere ``second`` is gone for the moment between two moves.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> (folder / "a").mkdir(), (folder / "b").write_text("b")
    (None, 1)
    >>> exchange(folder / "a", folder / "b")
    >>> (folder / "a").is_file(), (folder / "b").is_dir()
    (True, True)
    """
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        rename = None
    if rename is not None:
        done = rename(_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _EXCHANGE)
        if done == 0:
            return
        code = ctypes.get_errno()
        if code not in _UNSUPPORTED:
            raise OSError(code, os.strerror(code), str(second))
    parked = first.with_name(f"{first.name}-parked")
    second.replace(parked)
    try:
        first.replace(second)
    except OSError:
        parked.replace(second)
        raise
    parked.replace(first)
