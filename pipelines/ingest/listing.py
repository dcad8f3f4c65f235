"""Which files of a folder that grows are there, and which of them are whole."""

from __future__ import annotations

import glob
import os
from dataclasses import dataclass
from pathlib import Path

from detector.errors import SourceError
from pipelines.row_files import COMPRESSED, CSV_SUFFIXES, JSON_SUFFIXES, PARQUET_SUFFIXES, named_as_rows
from pipelines.sources.files import find_files
from pipelines.sources.parquet import ParquetFile

UNENDED = 10
"""A CSV file whose last line has no end is waited for so many times longer: it may be half a line."""


@dataclass(frozen=True)
class FileStat:
    """A file as the file system shows it."""

    name: str
    path: Path
    size: int
    changed_ns: int

    def age(self, now: float) -> float:
        """Seconds since it was last written to; negative if it seems to come from the future.

        In whole microseconds, which is what clocks tell: as floats, a file of this moment could be of the next one.

        >>> FileStat("a.csv", Path("a.csv"), 1, 1_796_025_308_250_399_112).age(1_796_025_308.250399)
        0.0
        """
        return (round(now * 1e6) - self.changed_ns // 1_000) / 1e6


def base_of(path: str) -> Path:
    """The folder that names of files start from.

    >>> base_of("data/2026-*/rows.csv").as_posix(), base_of("data/rows.csv").as_posix()
    ('data', 'data')
    """
    place = Path(path)
    if place.is_dir():
        return place
    base = place.parent
    while glob.has_magic(str(base)):
        base = base.parent
    return base


def list_files(path: str) -> dict[str, FileStat]:
    """The CSV and Parquet files of a folder, a pattern or a single path, by name; an empty folder has none.

    Raises ``SourceError`` if there is no such folder, or it cannot be read.
    """
    place, base = Path(path), base_of(path)
    try:
        if place.is_dir():
            found = [file for file in place.iterdir() if named_as_rows(file)]
        elif glob.has_magic(path) and base.is_dir():
            os.scandir(base).close()  # a pattern in a folder that may not be read matches nothing
            found = [Path(name) for name in glob.glob(path, recursive=True)]  # noqa: PTH207
        else:
            found = find_files(path)
    except OSError as error:
        if isinstance(error, SourceError):
            raise
        raise SourceError(
            f"The folder {error.filename or base} cannot be read: {error.strerror}. Let this user read it, or correct "
            f"`source.path`; what is in it is scored then."
        ) from error
    stats: dict[str, FileStat] = {}
    for file in sorted(found):
        try:
            state = file.stat()
        except FileNotFoundError:
            continue  # it was there a moment ago
        if file.is_file() and not file.name.startswith((".", "_")):
            name = file.relative_to(base).as_posix()
            stats[name] = FileStat(name, file, state.st_size, state.st_mtime_ns)
    return stats


def unreadable(path: Path) -> str:
    """Why the system does not let a file be read, as while its permissions are wrong; empty if it does, or it is gone.

    >>> unreadable(Path("no such file"))
    ''
    """
    try:
        with path.open("rb") as stream:
            stream.read(1)
    except FileNotFoundError:
        return ""
    except OSError as error:
        return f"{path} cannot be read: {error.strerror}. It is scored once this user may read it."
    return ""


def unfinished(stat: FileStat, *, age: float, settle: float) -> str:
    """Why a file that has settled still looks as if it were being written; empty if it is whole."""
    if not stat.size:
        return "it is empty"
    if stat.path.suffix.lower() in PARQUET_SUFFIXES:
        try:
            ParquetFile(stat.path)
        except SourceError as error:
            return str(error)
        return ""
    if stat.path.suffix in COMPRESSED or age >= settle * UNENDED:
        return ""
    from pipelines.ingest.fingerprint import ends_a_line

    return "" if ends_a_line(stat.path, size=stat.size) else "its last line has no end"


def can_grow(path: Path) -> bool:
    """Whether rows can be appended to such a file."""
    return path.suffix.lower() in CSV_SUFFIXES + JSON_SUFFIXES
