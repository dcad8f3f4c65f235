"""Where results go: Parquet and CSV files, SQL tables, and the quarantine file.

Each is written batch by batch inside a ``with`` block, and is there only if the block ends well. A file grows
under a temporary name beside its own and then takes its place, so that a reader sees the old file or the new
one, never a half; an older file is replaced. A database table is appended to in one transaction, and created
when missing. If the block fails, nothing of it stays.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import pandas as pd
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from detector.errors import SettingError, SinkError
from pipelines.config.data import OutputSection
from pipelines.disk import unwritten

CSV_SUFFIXES = (".csv", ".tsv")
PARQUET_SUFFIXES = (".parquet", ".pq")


class Sink(AbstractContextManager["Sink"], Protocol):
    """A place that takes frames of the same columns, one after the other."""

    rows: int
    """Rows taken so far."""

    def describe(self) -> str:
        """Where they go, without passwords."""
        ...

    def write(self, frame: pd.DataFrame) -> None:
        """Take some rows; their index is left out."""
        ...


def open_sink(section: OutputSection) -> Sink:
    """Open what a configuration names; use it as ``with open_sink(section) as sink``.

    - ``section``: ``section.at(path)`` names another file.

    Raises ``SettingError`` if the file is neither .parquet nor .csv; ``SinkError`` if the place cannot be written to.
    """
    if section.path is not None:
        return FileSink(Path(section.path))
    from pipelines.sinks.sql import SqlSink

    return SqlSink(str(section.url), table=str(section.table))


class FileSink:
    """A Parquet or a CSV file, by its suffix.

    - ``path``: The file. Missing folders above it are created.
    - ``repeated``: Columns beside text with few values, which Parquet then writes as a dictionary: that is faster, and
      smaller.

    Raises ``SettingError`` if the suffix is neither .parquet nor .csv (.tsv for tabs); ``SinkError`` if the file cannot
    be written, or a column cannot keep the type it began with.
    """

    def __init__(self, path: Path, *, repeated: Sequence[str] = ()) -> None:
        if path.suffix.lower() not in CSV_SUFFIXES + PARQUET_SUFFIXES:
            raise SettingError(f"Results go to a .parquet or a .csv file, received {str(path)!r}. Rename it.")
        if path.is_dir():
            raise SinkError(f"{path} is a folder. Name a file in it, such as {path / 'scores.parquet'}.")
        self.path = path
        self.repeated = frozenset(repeated)
        self.rows = 0
        self._temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.part")
        self._writer: pq.ParquetWriter | pa_csv.CSVWriter | None = None
        self._schema: pa.Schema | None = None

    def describe(self) -> str:
        """The path."""
        return str(self.path)

    def __enter__(self) -> Self:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._temporary.touch()
        except FileExistsError:
            raise SinkError(
                f"{self.path} cannot be written: {self.path.parent} is a file. Choose another place."
            ) from None
        except OSError as error:
            raise SinkError(f"{unwritten(self.path, error)} Choose another place, or make room.") from error
        return self

    def write(self, frame: pd.DataFrame) -> None:
        """Take some rows; the first frame decides the columns and their types."""
        table = self._table(frame)
        try:
            if self._writer is None:
                self._writer = self._open(table.schema)
            self._writer.write_table(table)
        except OSError as error:
            raise SinkError(unwritten(self.path, error)) from error
        self.rows += len(frame)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._writer is not None:
                self._writer.close()
                if kind is None:
                    self._temporary.replace(self.path)
        except OSError as failure:
            raise SinkError(unwritten(self.path, failure)) from failure
        finally:
            self._temporary.unlink(missing_ok=True)
        if self._writer is None and kind is None:
            raise SinkError(f"Nothing was written to {self.path}: no rows, and so no columns, were given.")

    def _table(self, frame: pd.DataFrame) -> pa.Table:
        try:
            table = pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(None)
        except pa.ArrowException as error:
            raise SinkError(
                f"A column for {self.path} holds values of several types: {error}. Give it one type."
            ) from error
        if self._schema is None:
            self._schema = pa.schema([(field.name, _lasting(field.type)) for field in table.schema])
        if table.column_names != self._schema.names:
            raise SinkError(
                f"All batches for {self.path} need the same columns. "
                f"Expected {self._schema.names}, received {table.column_names}."
            )
        try:
            return table.cast(self._schema)
        except pa.ArrowException as error:
            raise SinkError(
                f"A column of {self.path} changed its type between batches: {error}. Give it one type."
            ) from error

    def _open(self, schema: pa.Schema) -> pq.ParquetWriter | pa_csv.CSVWriter:
        if self.path.suffix.lower() in PARQUET_SUFFIXES:
            repeated = [f.name for f in schema if pa.types.is_string(f.type) or f.name in self.repeated]
            return pq.ParquetWriter(self._temporary, schema, compression="zstd", use_dictionary=repeated)
        delimiter = "\t" if self.path.suffix.lower() == ".tsv" else ","
        return pa_csv.CSVWriter(self._temporary, schema, write_options=pa_csv.WriteOptions(delimiter=delimiter))


def _lasting(kind: pa.DataType) -> pa.DataType:
    """A type that later batches fit too: a column that is all missing at first may turn out to be text."""
    if pa.types.is_null(kind):
        return pa.string()
    return pa.string() if pa.types.is_large_string(kind) else kind
