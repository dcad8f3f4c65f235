"""CSV lines that do not fit: report the bad ones, and save the good ones that a quote swallowed."""

from __future__ import annotations

import csv
import io
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from pipelines.sources.dialect import Dialect, open_bytes

SHOWN = 120


@dataclass(frozen=True)
class BadLine:
    """One line that was left out.

    - ``fields``: how many fields it has; zero if a quote in it is not closed.
    """

    text: str
    fields: int


class Salvage:
    """The bad lines of one file, and the good lines that were taken for a part of them.

    A quote that is opened and not closed turns all lines up to the next quote into one value. Two such cases
    are mended. Either the record that results has a wrong number of fields; then its lines are read one by
    one. Or the number fits by chance; then the value holds line ends, its first and last line have just the
    separators that the rest of a record would have, and it ends in a quote.
    """

    def __init__(self, path: Path, dialect: Dialect) -> None:
        self.path = path
        self.dialect = dialect
        self.bad: list[BadLine] = []
        self._saved: list[list[str]] = []

    def on_bad_record(self, record: pa_csv.InvalidRow) -> str:
        """Take note of a record with a wrong number of fields; the reader is to skip it."""
        lines = record.text.splitlines()
        if len(lines) == 1:
            self.bad.append(BadLine(lines[0], record.actual_columns))
        else:
            self._sort_out(lines)
        return "skip"

    def mend(self, table: pa.Table) -> pa.Table:
        """The rows of one block without those that swallowed others, and with the saved ones at its end."""
        suspects = [
            (position, number) for number, column in enumerate(table.columns) for position in _broken_off(column)
        ]
        swallowed = [position for position, number in suspects if self._take_apart(table, position, number)]
        if swallowed:
            table = table.filter(pa.array([n not in set(swallowed) for n in range(table.num_rows)]))
        if self._saved:
            columns = zip(*self._saved, strict=True)
            arrays = [pa.array([value or None for value in column], pa.string()) for column in columns]
            table = pa.concat_tables([table, pa.Table.from_arrays(arrays, schema=table.schema)])
            self._saved = []
        return table

    def report(self) -> list[str]:
        """Say for each bad line where it is and what is wrong with it."""
        if not self.bad:
            return []
        lines: dict[str, deque[int]] = {bad.text: deque() for bad in self.bad}
        with open_bytes(self.path) as stream:
            text = io.TextIOWrapper(stream, encoding=self.dialect.encoding, errors="replace", newline="")
            for number, line in enumerate(text, start=1):
                if (found := lines.get(line.rstrip("\r\n"))) is not None:
                    found.append(number)
        return [self._reason(bad, lines[bad.text]) for bad in self.bad]

    def _reason(self, bad: BadLine, lines: deque[int]) -> str:
        where = f"{self.path.name} line {lines.popleft()}" if lines else self.path.name
        fields = f"{bad.fields} field{'' if bad.fields == 1 else 's'}"
        fault = (
            f"{fields} where the header has {len(self.dialect.columns)}"
            if bad.fields
            else "a quote is opened and not closed"
        )
        shown = bad.text if len(bad.text) <= SHOWN else f"{bad.text[:SHOWN]}…"
        return f"{where}: {fault}: {shown}"

    def _sort_out(self, lines: Sequence[str]) -> None:
        for line in lines:
            fields = self._fields(line)
            if len(fields) == len(self.dialect.columns):
                self._saved.append(fields)
            elif line:
                self.bad.append(BadLine(line, len(fields)))

    def _fields(self, line: str) -> list[str]:
        try:
            return next(csv.reader([line], delimiter=self.dialect.separator, strict=True), [])
        except csv.Error:
            return []

    def _take_apart(self, table: pa.Table, position: int, number: int) -> bool:
        """Whether a value holds the end of its own record, whole records, and the start of another."""
        separator, last = self.dialect.separator, table.num_columns - 1
        first, *inner, end = table.column(number)[position].as_py().splitlines()
        counts = [line.count(separator) for line in (first, *inner, end)]
        if counts != [last - number, *[last] * len(inner), number]:
            return False
        row = [column[position].as_py() or "" for column in table.columns]
        self.bad.append(BadLine(separator.join([*row[:number], f'"{first}']), 0))
        self._sort_out(inner)
        self._saved.append([*end.rstrip('"').split(separator), *row[number + 1 :]])
        return True


def unclosed_quote(path: Path, dialect: Dialect) -> int:
    """The line in which a value begins that is too long to be meant."""
    line = 1
    with open_bytes(path) as stream:
        text = io.TextIOWrapper(stream, encoding=dialect.encoding, errors="replace", newline="")
        records = csv.reader(text, delimiter=dialect.separator)
        with suppress(csv.Error):
            for _ in records:
                line = records.line_num + 1
    return line


def _broken_off(column: pa.ChunkedArray) -> list[int]:
    """Where a value holds a line end and ends in a quote."""
    quoted = pc.ends_with(column, '"')
    if not pc.any(quoted).as_py():
        return []
    broken = pc.fill_null(pc.and_(quoted, pc.match_substring_regex(column, "[\r\n]")), False)
    positions: list[int] = np.flatnonzero(broken.to_numpy()).tolist()
    return positions
