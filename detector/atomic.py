"""Files and folders that change in one step: a reader sees the old or the new, never half of either."""

from __future__ import annotations

import ctypes
import errno
import os
import tempfile
from pathlib import Path

_AT_FDCWD = -100
_EXCHANGE = 2
_UNSUPPORTED = (errno.ENOSYS, errno.EINVAL, errno.EPERM)


def write_whole(path: Path, text: str) -> None:
    """Replace a text file; after a power cut it is the old one or the new one.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "state.json"
    >>> write_whole(path, "{}")
    >>> path.read_text()
    '{}'
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


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
    aside = first.with_name(f"{first.name}-aside")
    second.replace(aside)
    first.replace(second)
    aside.replace(first)
