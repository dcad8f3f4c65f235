"""CSV files and JSON lines, each read whole in one task by the reader that ``detector score`` has: same bad lines.

Spark's own reader sees other lines as broken, and takes columns by their place in files whose headers differ.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pyarrow as pa

from detector.errors import DetectorError, SourceError
from pipelines.config.data import SourceSection
from pipelines.sources.csvfile import CsvOptions
from pipelines.sources.kinds import Part, open_part
from pipelines.spark.rows import SourceColumns

if TYPE_CHECKING:
    from pyspark.sql import SparkSession
    from pyspark.sql.types import StructType

HEAD_BYTES = 1 << 20
ROWS_A_TABLE = 65_536


@dataclass(frozen=True)
class TextRows:
    """Reads files in executors: path and content → rows as text with their place, and why others are bad.

    - ``names``: The columns that are wanted.
    - ``columns``: Those that every file must have, in any order; others are passed over.
    - ``options``: How the files are written.
    """

    names: tuple[str, ...]
    columns: tuple[str, ...]
    options: CsvOptions

    @classmethod
    def of(cls, section: SourceSection, names: tuple[str, ...], columns: tuple[str, ...]) -> Self:
        """Files written as a configuration says."""
        return cls(names, columns, CsvOptions.of(section))

    @property
    def schema(self) -> pa.Schema:
        """What it yields."""
        text = [(name, pa.string()) for name in SourceColumns(self.names).columns]
        return pa.schema([("file", pa.string()), ("at", pa.int64()), ("reason", pa.string()), *text])

    def types(self) -> StructType:
        """The same, as Spark says it."""
        from pyspark.sql.pandas.types import from_arrow_schema

        return from_arrow_schema(self.schema)

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """The rows of some files."""
        for batch in batches:
            for path, content in zip(batch.column("path"), batch.column("content"), strict=True):
                yield from self._rows(path.as_py(), content.as_buffer())

    def _rows(self, path: str, content: pa.Buffer) -> Iterator[pa.RecordBatch]:
        with _on_disk(path, content) as (file, told):
            try:
                part = self._open(file, path)
                start, schema = 0, pa.schema([(name, pa.string()) for name in self.names])
                for table in part.tables(schema, size=ROWS_A_TABLE):
                    yield from self._batches(table, path, start)
                    start += table.num_rows
            except DetectorError as error:
                raise type(error)(told(str(error))) from None
            reasons = [told(each) for each in part.rejected]
        if reasons:
            missing = [pa.nulls(len(reasons), field.type) for field in self.schema]
            missing[0], missing[2] = pa.array([path] * len(reasons), pa.string()), pa.array(reasons, pa.string())
            yield from pa.Table.from_arrays(missing, schema=self.schema).to_batches()

    def _open(self, file: Path, path: str) -> Part:
        part = open_part(file, self.options)
        if missing := [name for name in self.columns if name not in part.columns]:
            raise SourceError(
                f"The files have different columns: {path} lacks {', '.join(map(repr, missing))}. Move it away, name "
                f"the files to read with a pattern, or list what nobody needs under `columns.ignore`."
            )
        return part

    def _batches(self, table: pa.Table, path: str, start: int) -> Iterator[pa.RecordBatch]:
        rows = table.num_rows
        arrays: list[Any] = [
            pa.array([path] * rows, pa.string()),
            pa.array(range(start, start + rows), pa.int64()),
            pa.nulls(rows, pa.string()),
            *(table.column(name) for name in self.names),
        ]
        yield from pa.Table.from_arrays(arrays, schema=self.schema).to_batches(max_chunksize=ROWS_A_TABLE)


def text_columns(spark: SparkSession, path: str, section: SourceSection) -> list[str]:
    """The columns of the first file, from its beginning."""
    from pyspark.sql import functions as f

    files = spark.read.format("binaryFile").load(path).orderBy("path")
    row = files.select("path", f.substring("content", 1, HEAD_BYTES).alias("head")).head(1)
    if not row:
        raise SourceError(f"{path} holds no files.")
    with _on_disk(row[0]["path"], pa.py_buffer(bytes(row[0]["head"]))) as (file, told):
        try:
            return open_part(file, CsvOptions.of(section)).columns
        except DetectorError as error:
            raise type(error)(told(str(error))) from None


class _on_disk:  # noqa: N801 - a context manager
    """A file's content in a temporary file of the same name, and what puts the right path into messages."""

    def __init__(self, path: str, content: pa.Buffer) -> None:
        self._path, self._content = path, content
        self._folder = tempfile.TemporaryDirectory(prefix="detector-text-")

    def __enter__(self) -> tuple[Path, Any]:
        file = Path(self._folder.name) / Path(self._path).name
        file.write_bytes(self._content)
        shown = self._path.removeprefix("file:")
        return file, lambda text: text.replace(str(file), shown)

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()
