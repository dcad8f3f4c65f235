"""One file with a JSON object a line: every value as text, every good line kept, every bad one reported."""

from __future__ import annotations

import io
import logging
import os
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from detector.errors import SourceError
from pipelines.row_files import COMPRESSED
from pipelines.sources.csvfile import FEW_BAD, CsvOptions, with_points
from pipelines.sources.dialect import open_bytes
from pipelines.sources.json_rows import as_text, row_of

log = logging.getLogger("detector.sources")

LOOKED_AT = 1_000
"""Lines from the first on that are read to learn the names of fields; and from the last, of a file that is plain."""
TAIL_BYTES = 1 << 20
LONGEST_LINE = 16 << 20
MOST_NAMED = 5


class JsonLinesFile:
    """A file of JSON lines that is read a part at a time.

    Its columns are the fields of its first and last lines; a field that a line does not have is missing there. Fields
    that only others have are not read, and named in the log. A line that is no object is left out, and ``rejected``
    says so.

    - ``path``: the file; .gz, .bz2 and .zst are decompressed.
    - ``options``: of these, ``decimal`` counts for numbers that are written as text.

    Raises ``SourceError`` if the file has no line with an object.
    """

    def __init__(self, path: Path, options: CsvOptions) -> None:
        self.path = path
        self.options = options
        self.rejected: list[str] = []
        names: dict[str, None] = {}
        first, seen, size = "", 0, 0
        for line in islice(lines_of(self.path), LOOKED_AT):
            event, reason = row_of(line)
            seen, size, first = seen + 1, size + len(line), first or reason
            names |= dict.fromkeys(event or ())
        if not seen:
            raise SourceError(f"{path} is empty: it has no lines. Check what was to fill it.")
        for line in self._last_lines():
            names |= dict.fromkeys(row_of(line)[0] or ())
        if not names:
            why = f"; its first line is {first}" if first else ""
            raise SourceError(f"{path} has no line with a JSON object that has fields{why}. Write one a line.")
        self._line_bytes = size / seen
        self.schema = pa.schema([(name, pa.string()) for name in names])

    @property
    def columns(self) -> list[str]:
        """The names of the columns, in order."""
        return list(self.schema.names)

    @property
    def rows(self) -> int | None:
        """Unknown without reading the file."""
        return None

    @property
    def is_empty(self) -> bool:
        """Never: there is a line with an object."""
        return False

    def estimate(self) -> int | None:
        """About how many rows, from the size of the file and its first lines."""
        if self.path.suffix in COMPRESSED:
            return None
        return max(1, round(self.path.stat().st_size / self._line_bytes))

    def tables(self, schema: pa.Schema, *, size: int) -> Iterator[pa.Table]:
        """The rows in order, as the columns of ``schema``, all text."""
        known = {*self.schema.names}
        rows: list[dict[str, Any]] = []
        unread: dict[str, int] = {}
        good = bad = 0
        for number, line in enumerate(lines_of(self.path), start=1):
            event, reason = row_of(line)
            if event is None:
                self.rejected.append(f"line {number:,}: {reason}")
                bad += 1
                if bad > max(1000, good):
                    raise self._mostly_bad(reason)
                continue
            if not event.keys() <= known:
                for name in event.keys() - known:
                    unread.setdefault(name, number)
            rows.append(event)
            good += 1
            if len(rows) >= size:
                yield self._table(rows, schema)
                rows = []
        if rows:
            yield self._table(rows, schema)
        if unread:
            named = ", ".join(f"{name!r} (line {line:,})" for name, line in list(unread.items())[:MOST_NAMED])
            more = f" and {len(unread) - MOST_NAMED:,} more" if len(unread) > MOST_NAMED else ""
            log.warning("fields that no first or last line of %s has are not read: %s%s", self.path, named, more)
        if bad and (not good or bad > max(FEW_BAD, good)):
            raise self._mostly_bad(self.rejected[-1].partition(": ")[2])

    def _table(self, rows: list[dict[str, Any]], schema: pa.Schema) -> pa.Table:
        columns = [pa.array([as_text(row.get(name)) for row in rows], pa.string()) for name in schema.names]
        return with_points(pa.Table.from_arrays(columns, schema=schema), self.options)

    def _last_lines(self) -> list[bytes]:
        """Whole lines of the end of a file that is not compressed."""
        if self.path.suffix in COMPRESSED:
            return []
        with self.path.open("rb") as stream:
            start = max(0, stream.seek(0, os.SEEK_END) - TAIL_BYTES)
            stream.seek(start)
            lines = re.split(rb"[\r\n]+", stream.read())
        return [line for line in lines[1 if start else 0 :] if line.strip()][-LOOKED_AT:]

    def _mostly_bad(self, reason: str) -> SourceError:
        return SourceError(f"Most lines of {self.path} are no JSON objects: {reason}. Write one object a line.")


def lines_of(path: Path) -> Iterator[bytes]:
    """The lines of a file that are not blank; of those that are, there is no row to miss.

    Raises ``SourceError`` if the file cannot be read, or a line has no end in sight.
    """
    try:
        with open_bytes(path) as stream, io.BufferedReader(stream) as lines:
            at = 0
            while line := lines.readline(LONGEST_LINE):
                at += 1
                if len(line) == LONGEST_LINE:
                    raise SourceError(
                        f"{path} line {at:,} is longer than {LONGEST_LINE >> 20} MB. Write one object a line."
                    )
                if not line.isspace():
                    yield line
    except (pa.ArrowException, OSError) as error:
        raise SourceError(f"{path} cannot be read to its end: {' '.join(str(error).split())}") from error
