"""What kind of file rows are in, by its name and its first bytes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal, Protocol

import pyarrow as pa

from detector.errors import SourceError
from pipelines.row_files import JSON_SUFFIXES, PARQUET_SUFFIXES, data_suffix
from pipelines.sources.csvfile import CsvFile, CsvOptions
from pipelines.sources.json_rows import row_of
from pipelines.sources.jsonlines import JsonLinesFile, lines_of
from pipelines.sources.parquet import MAGIC, ParquetFile

WANTED = "CSV, Parquet or JSON lines"

_FOREIGN = {
    b"PK\x03\x04": "a zip or an Excel file",
    b"\xd0\xcf\x11\xe0": "an old Excel file",
    b"ARROW1": "an Arrow file",
    b"SQLite format 3": "an SQLite database: give `source.url: sqlite:///FILE` and `source.table`",
}

Kind = Literal["csv", "parquet", "json"]


class Part(Protocol):
    """A file of rows."""

    path: Path
    rejected: list[str]
    """Why lines were left out, filled while reading."""
    schema: pa.Schema

    @property
    def columns(self) -> list[str]:
        """The names of the columns, in order."""
        ...

    @property
    def rows(self) -> int | None:
        """The exact number of rows, or None if only reading would tell."""
        ...

    @property
    def is_empty(self) -> bool:
        """Whether it has columns and nothing else."""
        ...

    def estimate(self) -> int | None:
        """About how many rows, or None if there is no cheap guess."""
        ...

    def tables(self, schema: pa.Schema, *, size: int) -> Iterator[pa.Table]:
        """The rows in order, as the columns and types of ``schema``."""
        ...


def open_part(file: Path, options: CsvOptions) -> Part:
    """A file of rows of whatever kind it is.

    Raises ``SourceError`` if it is of no kind that is read, or cannot be read.
    """
    kind = kind_of(file)
    if kind == "parquet":
        return ParquetFile(file)
    return CsvFile(file, options) if kind == "csv" else JsonLinesFile(file, options)


def kind_of(file: Path) -> Kind:
    """The kind of a file, by its first bytes or its name; what tells of none is CSV.

    Raises ``SourceError`` if it is empty, or of a kind that is not read.
    """
    try:
        with file.open("rb") as stream:
            head = stream.read(16)
    except OSError as error:
        raise SourceError(f"{file} cannot be read: {error.strerror}.") from error
    if not head:
        raise SourceError(f"{file} is empty: it has no bytes at all. Check what was to fill it.")
    if head.startswith(MAGIC):
        return "parquet"
    for mark, kind in _FOREIGN.items():
        if head.startswith(mark):
            raise SourceError(f"{file} is {kind}. Expected {WANTED}; save it as one of these.")
    suffix = data_suffix(file)
    if suffix in JSON_SUFFIXES or (suffix == ".json" and _is_lines(file)):
        return "json"
    if suffix == ".json":
        raise SourceError(
            f"{file} is JSON whose first line is no object. Expected {WANTED}; save it as one of these, with Python: "
            f"`pd.json_normalize(json.load(open({file.name!r}))).to_parquet({file.stem + '.parquet'!r})`."
        )
    if suffix in (".xml", ".html"):
        raise SourceError(f"{file} is {suffix[1:].upper()}. Expected {WANTED}; save it as one of these.")
    return "parquet" if suffix in PARQUET_SUFFIXES else "csv"


def _is_lines(file: Path) -> bool:
    """Whether the first line of a file of JSON is an object."""
    return row_of(next(lines_of(file), b""))[0] is not None
