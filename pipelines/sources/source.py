"""What every source can do, given something that yields Arrow tables."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np
import pandas as pd
import pyarrow as pa

from detector.cleaning.values import read_names
from detector.errors import SchemaError, SourceError, nearest
from pipelines.config.formats import FormatSection
from pipelines.sources.arrow import join_tables, rebatch, to_frame
from pipelines.sources.formats import with_formats

ROWS_A_READ = 65_536

Advance = Callable[[int], object]


class Reader(Protocol):
    """One kind of place that rows come from."""

    rejected: list[str]
    """Why lines were left out, filled while reading."""

    def describe(self) -> str:
        """Where the rows come from, without passwords."""
        ...

    def columns(self) -> list[str]:
        """The names of the columns, in order."""
        ...

    def count(self) -> int | None:
        """The exact number of rows, or None if only reading would tell."""
        ...

    def estimate(self) -> int | None:
        """About how many rows, or None if there is no cheap guess."""
        ...

    def tables(self, columns: Sequence[str], *, size: int) -> Iterator[pa.Table]:
        """The rows in order, in tables of about ``size`` rows."""
        ...


class NoRowsError(SourceError):
    """A place has columns but no rows."""


class _Chosen:
    """Some of the rows of another reader, see ``Source.only``."""

    def __init__(self, reader: Reader, column: str, names: frozenset[str]) -> None:
        self.reader, self.column, self.names = reader, column, names
        self.rejected = reader.rejected

    def describe(self) -> str:
        """As the other."""
        return self.reader.describe()

    def columns(self) -> list[str]:
        """As the other."""
        return self.reader.columns()

    def count(self) -> int | None:
        """Only reading would tell."""
        return None

    def estimate(self) -> int | None:
        """Only reading would tell."""
        return None

    def tables(self, columns: Sequence[str], *, size: int) -> Iterator[pa.Table]:
        """The rows in order, in tables of at most about ``size`` rows."""
        for table in self.reader.tables(list(dict.fromkeys([*columns, self.column])), size=size):
            names = read_names(table[self.column].to_pandas()).astype(str)
            yield table.filter(pa.array(names.isin(self.names).to_numpy(dtype=bool))).select(list(columns))


class Source:
    """Rows of one place, as pandas frames whose index is the row's position in the place.

    - ``formats``: how the values of some columns are written; see ``SourceSection``.
    """

    def __init__(self, reader: Reader, formats: Mapping[str, FormatSection] | None = None) -> None:
        self._reader = reader
        self._formats = formats or {}

    def __repr__(self) -> str:
        return f"Source({self.describe()})"

    def only(self, column: str, names: Collection[str]) -> Source:
        """The rows whose value of a column is one of these, as text."""
        return Source(_Chosen(self._reader, column, frozenset(names)), self._formats)

    def describe(self) -> str:
        """Where the rows come from, without passwords."""
        return self._reader.describe()

    def columns(self) -> list[str]:
        """The names of the columns, in order."""
        return list(self._reader.columns())

    def count(self) -> int | None:
        """The exact number of rows, or None if only reading would tell."""
        return self._reader.count()

    @property
    def files(self) -> int:
        """How many files it stands for; none for a database."""
        return len(getattr(self._reader, "parts", ()))

    def estimate(self) -> int | None:
        """About how many rows, for a progress bar; None if there is no cheap guess."""
        return self._reader.estimate()

    @property
    def rejected(self) -> pd.DataFrame:
        """The lines that the last read left out, ready for a quarantine: ``row`` (unknown) and ``reason``.

        Of CSV, those whose number of fields differs from the header's; of JSON lines, those that are no object.
        """
        reasons = pd.Series(self._reader.rejected, dtype="str")
        return pd.DataFrame({"row": pd.Series(pd.NA, index=reasons.index, dtype="Int64"), "reason": reasons})

    def batches(
        self, size: int = ROWS_A_READ, *, columns: Sequence[str] | None = None, numeric: Iterable[str] = ()
    ) -> Iterator[pd.DataFrame]:
        """Yield the rows in order, ``size`` at a time, in bounded memory.

        - ``size``: rows a batch; the last may be shorter.
        - ``columns``: the columns to read; all by default.
        - ``numeric``: columns that will be taken as numbers. Text in them is parsed here, which is faster, where all
          values of a batch are numbers; otherwise it stays text, so that nothing is lost.

        Raises ``SourceError`` if the place cannot be read, or holds no rows; ``SchemaError`` if a column is not there.
        """
        start = 0
        numbers = frozenset(numeric)
        for table in rebatch(self._tables(columns, size=size), size):
            yield to_frame(table, pd.RangeIndex(start, start + table.num_rows), numbers)
            start += table.num_rows

    def read(
        self,
        *,
        columns: Sequence[str] | None = None,
        limit: int | None = None,
        numeric: Iterable[str] = (),
        advance: Advance | None = None,
    ) -> pd.DataFrame:
        """Read all rows, or the first ``limit``, as one frame; see ``batches`` for the rest.

        - ``columns``, ``numeric``: as in ``batches``.
        - ``limit``: most rows to read.
        - ``advance``: called with the number of rows after each step, for a progress bar.
        """
        tables: list[pa.Table] = []
        held = 0
        for table in self._tables(columns, size=ROWS_A_READ if limit is None else min(limit, ROWS_A_READ)):
            tables.append(table if limit is None else table.slice(0, limit - held))
            held += tables[-1].num_rows
            if advance is not None:
                advance(tables[-1].num_rows)
            if limit is not None and held >= limit:
                break
        return to_frame(join_tables(tables), pd.RangeIndex(held), frozenset(numeric))

    def sample(
        self,
        rows: int,
        *,
        random_state: int = 0,
        advance: Advance | None = None,
    ) -> pd.DataFrame:
        """Draw rows at random, each with the same chance, and keep their order.

        It reads the place once, and holds about twice the rows it draws.

        - ``rows``: how many to draw; all if there are fewer.
        - ``random_state``: the seed. The draw depends on it and on the rows' order only.
        - ``advance``: as in ``read``.
        """
        generator = np.random.default_rng(random_state)
        tables: list[pa.Table] = []
        lots, positions = np.empty(0), np.empty(0, dtype=np.int64)
        start, limit = 0, 1.0
        for table in self._tables(None, size=ROWS_A_READ):
            sampled = generator.random(table.num_rows)
            chosen = np.flatnonzero(sampled < limit)
            tables.append(table.take(pa.array(chosen)))
            lots = np.concatenate([lots, sampled[chosen]])
            positions = np.concatenate([positions, start + chosen])
            start += table.num_rows
            if advance is not None:
                advance(table.num_rows)
            if len(lots) > 2 * rows:
                best = np.sort(np.argpartition(lots, rows)[:rows])
                tables, lots, positions = (
                    [join_tables(tables).take(pa.array(best))],
                    lots[best],
                    positions[best],
                )
                limit = float(lots.max())
        best = np.sort(np.argsort(lots, kind="stable")[:rows])
        return to_frame(join_tables(tables).take(pa.array(best)), pd.Index(positions[best]), frozenset())

    def _tables(self, columns: Sequence[str] | None, *, size: int) -> Iterator[pa.Table]:
        if size < 1:
            raise SourceError(f"A batch needs at least one row, received size={size}.")
        known = self._reader.columns()
        wanted = known if columns is None else list(dict.fromkeys(columns))
        for name in wanted:
            if name not in known:
                raise SchemaError(f"Column {name!r} is not in {self.describe()}. {nearest(name, known)}")
        rows = 0
        self._reader.rejected.clear()
        for table in self._reader.tables(wanted, size=size):
            rows += table.num_rows
            if table.num_rows:
                yield with_formats(table, self._formats)
        if not rows:
            raise NoRowsError(f"{self.describe()} has columns but no rows. Check what was to fill it.")
