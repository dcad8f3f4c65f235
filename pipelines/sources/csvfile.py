"""One CSV file: every value as text, every good row kept, every bad line reported."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from detector.errors import SourceError
from pipelines.config.data import SourceSection
from pipelines.row_files import COMPRESSED
from pipelines.sources.dialect import open_bytes, read_dialect, undecodable
from pipelines.sources.salvage import Salvage, unclosed_quote

FEW_BAD = 10
BLOCK_BYTES = 1 << 20  # skipping bad lines takes time that grows with the square of it
_DECIMAL_COMMA = r"^\s*([+-]?\d*),(\d+(?:[eE][+-]?\d+)?)\s*$"


@dataclass(frozen=True)
class CsvOptions:
    """What a configuration says of CSV files.

    - ``separator``: what separates the fields, or None to find out.
    - ``encoding``, ``decimal``: how characters are written, and what separates whole numbers from fractions.
    - ``header``: the line that names the columns, counted from 1; by default the first that is not empty.
    - ``formatted``: columns to which ``decimal`` does not apply, as they have a form of their own.
    """

    separator: str | None = None
    encoding: str = "utf-8"
    decimal: str = "."
    header: int | None = None
    formatted: tuple[str, ...] = ()

    @classmethod
    def of(cls, section: SourceSection) -> Self:
        """The dialect that a configuration declares."""
        return cls(section.separator, section.encoding, section.decimal, section.header, _formatted(section))


def _formatted(section: SourceSection) -> tuple[str, ...]:
    return tuple(name for name, form in section.formats.items() if not form.is_plain)


class CsvFile:
    """A CSV file that is read a block at a time.

    A line whose number of fields differs from the header's is left out, and ``rejected`` says so. Lines that
    a stray quote swallowed are kept, at the end of their block, unless they are more than a block; that is an
    error, with the line.

    - ``path``: the file; .gz, .bz2 and .zst are decompressed.

    Raises ``SourceError`` if the file is empty, not text, or has no header.
    """

    def __init__(self, path: Path, options: CsvOptions) -> None:
        self.path = path
        self.options = options
        self.dialect = read_dialect(path, separator=options.separator, encoding=options.encoding, header=options.header)
        self.schema = pa.schema([(name, pa.string()) for name in self.dialect.columns])
        self.rejected: list[str] = []

    @property
    def columns(self) -> list[str]:
        """The names of the columns, in order."""
        return list(self.dialect.columns)

    @property
    def rows(self) -> int | None:
        """Unknown without reading the file."""
        return None

    @property
    def is_empty(self) -> bool:
        """Whether it has a header and nothing else."""
        return not self.dialect.record_bytes

    def estimate(self) -> int | None:
        """About how many rows, from the size of the file and its first records."""
        if self.path.suffix in COMPRESSED or not self.dialect.record_bytes:
            return None
        return max(1, round(self.path.stat().st_size / self.dialect.record_bytes) - 1)

    def tables(self, schema: pa.Schema, *, size: int) -> Iterator[pa.Table]:
        """The rows in order, as the columns of ``schema``, all text."""
        del size  # blocks are cut by bytes
        if not self.dialect.record_bytes:
            return
        salvage = Salvage(self.path, self.dialect)
        rows = 0
        try:
            with open_bytes(self.path) as stream:
                for batch in self._reader(stream, salvage):
                    table = salvage.mend(pa.Table.from_batches([batch]))
                    rows += table.num_rows
                    if len(salvage.bad) > max(1000, rows):
                        raise self._mostly_bad(salvage)
                    yield with_points(table, self.options).select(schema.names)
        except (pa.ArrowException, OSError, UnicodeError) as error:
            raise self._failure(error) from error
        finally:
            self.rejected.extend(salvage.report())
        if salvage.bad and (not rows or len(salvage.bad) > max(FEW_BAD, rows)):
            raise self._mostly_bad(salvage)

    def _reader(self, stream: pa.NativeFile, salvage: Salvage) -> Iterable[pa.RecordBatch]:
        reader: Iterable[pa.RecordBatch] = pa_csv.open_csv(
            stream,
            read_options=pa_csv.ReadOptions(
                use_threads=False,  # or the handler is called from other threads
                block_size=BLOCK_BYTES,
                column_names=self.dialect.columns,
                skip_rows=self.dialect.lines_above,
                skip_rows_after_names=1,
                encoding=self.dialect.encoding,
            ),
            parse_options=pa_csv.ParseOptions(
                delimiter=self.dialect.separator,
                newlines_in_values=True,
                invalid_row_handler=salvage.on_bad_record,
            ),
            convert_options=pa_csv.ConvertOptions(
                column_types=self.schema,
                null_values=[""],
                strings_can_be_null=True,
                quoted_strings_can_be_null=True,
            ),
        )
        return reader

    def _mostly_bad(self, salvage: Salvage) -> SourceError:
        return SourceError(
            f"Most lines of {self.path} do not have the {len(self.dialect.columns)} fields of its header. "
            f"The first of them: {salvage.bad[0].text[:120]!r}. "
            f"Check the header, say in `source.header` which line it is if others stand above it, and set "
            f"`source.separator` if it is not {self.dialect.separator!r}."
        )

    def _failure(self, error: Exception) -> Exception:
        text = " ".join(str(error).split())
        if isinstance(error, SourceError):
            return error
        if isinstance(error, UnicodeError) or "invalid UTF8" in text:
            return undecodable(self.path, self.dialect.encoding)
        if "straddl" in text:
            line = unclosed_quote(self.path, self.dialect)
            return SourceError(
                f"{self.path} line {line}: a value is longer than {BLOCK_BYTES / 1e6:.0f} MB, or a quote is opened and "
                f"not closed. Shorten the value, or close the quote or remove it."
            )
        return SourceError(f"{self.path} cannot be read to its end: {text}")


def with_points(table: pa.Table, options: CsvOptions) -> pa.Table:
    """Columns of text with a point in their decimal numbers."""
    if options.decimal == ".":
        return table
    columns = [
        table.column(name)
        if name in options.formatted
        else pc.replace_substring_regex(table.column(name), pattern=_DECIMAL_COMMA, replacement=r"\1.\2")
        for name in table.column_names
    ]
    return pa.Table.from_arrays(columns, schema=table.schema)
