"""Whether a file is still the same, without reading all of a large one."""

from __future__ import annotations

import hashlib
from pathlib import Path

from detector.errors import SourceError

WHOLE = 64 << 20
BLOCK = 1 << 20
SPARSE_BLOCKS = 32


def fingerprint(path: Path, *, size: int) -> str:
    r"""A digest of the first ``size`` bytes: of all of them up to 64 MB, else of 32 blocks of 1 MB spread over them.

    The same bytes at the beginning of a longer file have the same fingerprint, so that an appended file can be told
    from a replaced one.

    Raises ``SourceError`` if the file cannot be read, or is shorter.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder) / "rows.csv"
    ...     _ = file.write_text("a,b\n1,2\n")
    ...     before = fingerprint(file, size=8)
    ...     _ = file.write_text("a,b\n1,2\n3,4\n")
    ...     fingerprint(file, size=8) == before
    True
    """
    digest = hashlib.blake2b(digest_size=16)
    try:
        with path.open("rb") as stream:
            if size <= WHOLE:
                starts = range(0, size, BLOCK)
            else:
                starts = range(0, size - BLOCK + 1, (size - BLOCK) // (SPARSE_BLOCKS - 1))
            for start in starts:
                stream.seek(start)
                wanted = min(BLOCK, size - start)
                block = stream.read(wanted)
                if len(block) < wanted:
                    raise SourceError(f"{path} became shorter while it was read. Write to another name, then rename.")
                digest.update(block)
    except OSError as error:
        if isinstance(error, SourceError):
            raise
        raise SourceError(f"{path} cannot be read: {error.strerror}.") from error
    return digest.hexdigest()


def ends_a_line(path: Path, *, size: int) -> bool:
    """Whether the byte before ``size`` ends a line; what is appended then begins a new one."""
    with path.open("rb") as stream:
        stream.seek(max(0, size - 1))
        return stream.read(1) in (b"\n", b"\r")
