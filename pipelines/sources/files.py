"""A file, a folder or a pattern of files as one table."""

from __future__ import annotations

import glob
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Self

import pyarrow as pa

from detector.errors import SourceError
from pipelines.config.data import FILENAME, SourceSection
from pipelines.row_files import (
    COMPRESSED,
    ROW_SUFFIXES,
    data_suffix,
    named_as_rows,
)
from pipelines.sources.csvfile import CsvOptions
from pipelines.sources.kinds import WANTED, Part, open_part
from pipelines.sources.shared_columns import shared_schema

MOST_NAMED = 3


class FileReader:
    """Files of rows, one after the other in the order of their names; of their columns those that all have.

    - ``path``: a file; a folder, whose files are read (not those of its subfolders); or a pattern, where
      ``**`` stands for subfolders.
    - ``without``: files that are left out.
    - ``options``: how CSV files are written.
    - ``names``: a column that is made of the name of each file, and how; see ``ColumnsSection.entity_from``.
    - ``needs``: whether a column of the first file must be in every other; all by default.

    Raises ``SourceError`` if there is no such file, it cannot be read, or a file lacks a column that is needed.
    """

    def __init__(
        self,
        path: str,
        *,
        options: CsvOptions,
        names: tuple[str, str] | None = None,
        without: Collection[Path] = (),
        needs: Callable[[str], bool] = lambda _: True,
    ) -> None:
        self.path = path
        self.rejected: list[str] = []
        self.parts: list[Part] = []
        skipped = {file.resolve() for file in without}
        for file in find_files(path):
            if skipped and file.resolve() in skipped:
                continue
            self.parts.append(open_part(file, options))
            self.parts[-1].rejected = self.rejected
        if not self.parts:
            raise SourceError(f"None of the files of {path} can be read: all were quarantined. Give good ones.")
        self.schema: pa.Schema = shared_schema(self.parts, needs)
        self._made: dict[Path, str] = {}
        if names is not None:
            self._name, pattern = names
            if self._name in self.schema.names:
                raise SourceError(
                    f"{self.parts[0].path} has a column {self._name!r} already. Leave `columns.entity_from` out, or "
                    f"give `columns.entity` another name."
                )
            self._made = {part.path: name_of(part.path, pattern) for part in self.parts}
            self.schema = self.schema.append(pa.field(self._name, pa.string()))

    @classmethod
    def of(cls, section: SourceSection, path: str, *, without: Collection[Path] = ()) -> Self:
        """Files that are written as a configuration says."""
        return cls(
            path,
            options=CsvOptions.of(section),
            names=section.names_of_files,
            without=without,
            needs=section.needs,
        )

    def describe(self) -> str:
        """The path, and how many files it stands for."""
        if len(self.parts) == 1:
            return str(self.parts[0].path)
        return f"{self.path} ({len(self.parts)} files)"

    def columns(self) -> list[str]:
        """The names of the columns, in the order of the first file."""
        return list(self.schema.names)

    def count(self) -> int | None:
        """The number of rows, if all files are Parquet."""
        rows = [part.rows for part in self.parts]
        return None if None in rows else sum(row for row in rows if row is not None)

    def estimate(self) -> int | None:
        """About how many rows; None if a file is compressed."""
        rows = [part.estimate() for part in self.parts]
        return None if None in rows else sum(row for row in rows if row is not None)

    def tables(self, columns: Sequence[str], *, size: int) -> Iterator[pa.Table]:
        """The rows of all files, in order."""
        schema = pa.schema([self.schema.field(name) for name in columns])
        if not self._made or self._name not in columns:
            for part in self.parts:
                yield from part.tables(schema, size=size)
            return
        at = schema.get_field_index(self._name)
        # a table without columns would not know how many rows it has
        read = schema.remove(at) if len(schema) > 1 else schema.append(self.schema.field(0)).remove(at)
        for part in self.parts:
            for table in part.tables(read, size=size):
                made = pa.array([self._made[part.path]] * table.num_rows, pa.string())
                yield table.add_column(at, schema.field(at), made).select(schema.names)


def find_files(path: str) -> list[Path]:
    """The files that a path stands for, in the order of their names.

    Raises ``SourceError`` if there are none, naming what is there instead.
    """
    place = Path(path)
    if place.is_file():
        return [place]
    if "://" in path:
        raise SourceError(
            f"{path} is an address, which this machine alone does not read. Add --engine spark, or copy it."
        )
    if place.is_dir():
        return _files_in(place)
    if glob.has_magic(path):
        found = sorted(Path(name) for name in glob.glob(path, recursive=True) if Path(name).is_file())  # noqa: PTH207
        if not found:
            raise SourceError(f"No file matches {path}. {_what_is_there(place)}")
        return found
    raise SourceError(f"There is no file or folder {path}. {_what_is_there(place)}")


def _files_in(folder: Path) -> list[Path]:
    try:
        files = sorted(f for f in folder.iterdir() if f.is_file() and not f.name.startswith((".", "_")))
    except PermissionError as error:
        raise SourceError(f"{folder} may not be read by this user. Change its permissions.") from error
    rows = [file for file in files if data_suffix(file) in ROW_SUFFIXES]
    if not rows:
        inside = next((file for suffix in ROW_SUFFIXES for file in folder.glob(f"**/*{suffix}")), None)
        hint = f" Its subfolders do: use {folder / '**' / ('*' + inside.suffix)}." if inside else ""
        raise SourceError(f"The folder {folder} holds no {WANTED} file.{hint}")
    _refuse_copies(folder, rows)
    return rows


def _refuse_copies(folder: Path, files: Sequence[Path]) -> None:
    """Raise ``SourceError`` if files of two kinds have one name: they will hold the same rows."""
    first: dict[str, Path] = {}
    for file in files:
        stem = file.name.lower().rpartition(data_suffix(file))[0]
        other = first.setdefault(stem, file)
        if data_suffix(other) != data_suffix(file):
            patterns = " or ".join(str(folder / f"*{data_suffix(each)}") for each in (other, file))
            raise SourceError(
                f"{folder} holds {other.name} and {file.name}, which are probably the same rows. Name the ones to read "
                f"with a pattern: {patterns}."
            )


def _what_is_there(place: Path) -> str:
    folder = place.parent
    while glob.has_magic(str(folder)) or not folder.exists():
        if not glob.has_magic(str(folder)) and folder != folder.parent and folder.parent.is_dir():
            return f"There is no folder {folder}. {_nearest_data(folder.name, folder.parent)}"
        folder = folder.parent
    if not folder.is_dir():
        return f"{folder} is a file, not a folder."
    return f"In {folder}: {_nearest_data(place.name, folder)}"


def _nearest_data(name: str, folder: Path) -> str:
    """The few files and folders of rows whose names are most alike; logs, reports and the like are of no help."""
    names = _names(folder)
    known = [each for each in names if named_as_rows(Path(each))]
    known += [each for each in names if (folder / each).is_dir()]
    if close := get_close_matches(name, known, n=1):
        return f"Did you mean {close[0]!r}?"
    if not known:
        return f"there is no {WANTED} file."
    alike = get_close_matches(name, sorted(known), n=MOST_NAMED, cutoff=0.0)
    return f"the nearest names are {', '.join(alike)}."


def _names(folder: Path) -> list[str]:
    try:
        return [entry.name for entry in folder.iterdir() if not entry.name.startswith(".")]
    except OSError:
        return []


def name_of(file: Path, pattern: str) -> str:
    """What the name of a file says of its rows: all of it without its ending, or the group of a pattern."""
    if pattern == FILENAME:
        name = file.name
        for _ in range(2):
            suffix = Path(name).suffix.lower()
            if suffix in (*COMPRESSED, *ROW_SUFFIXES):
                name = name[: -len(suffix)]
        return name
    found = re.search(pattern, file.name)
    if found is None or not found[1]:
        raise SourceError(
            f"The name of {file} does not fit the pattern of `columns.entity_from`, {pattern!r}. Rename or move the "
            f"file, or correct the pattern."
        )
    return found[1]
