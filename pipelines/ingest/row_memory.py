"""The rows of a source that came before, by the marks of their keys: what a batch adds commits with the batch.

Marks lie in the service's state as sorted runs. Each batch adds one, and runs of about equal size are joined, so that
there are few; the same key in a later run counts. A run is cut by the first bits of the hashes into parts that are read
as far as they are needed, so that a small batch costs little beside a long memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray
from sqlalchemy.orm import Session

from pipelines.ingest.row_marks import DAY, HIGH, VALUES, Marks, found_in, in_order
from pipelines.store import KnownRows, Store

MOST_ROWS = 32_768
"""Of a part."""
PARTS_AT_ONCE = 32
MOST_CACHED = 512_000_000
"""Bytes of parts that one batch keeps in memory; it reads those beyond as often as it needs them."""
JOINED = 2
"""A run is joined with later ones unless it has more than so many times their rows."""

REFRESHED = 3
"""A row that comes again is written down anew once a day is this part of the days behind for which it is kept."""

_RUNS = (
    sa.select(KnownRows.run, KnownRows.parts, KnownRows.columns, sa.func.sum(KnownRows.rows))
    .group_by(KnownRows.run, KnownRows.parts, KnownRows.columns)
    .order_by(KnownRows.run.desc())
)


@dataclass(frozen=True)
class _Run:
    number: int
    parts: int
    columns: str
    rows: int

    def part_of(self, high: NDArray[np.uint64]) -> NDArray[np.int64]:
        """The part that each hash belongs to."""
        bits = self.parts.bit_length() - 1
        return np.asarray(high >> np.uint64(64 - bits) if bits else np.zeros_like(high)).astype(np.int64)


class RowMemory:
    """What is known of the rows of one source.

    - ``columns``: names the columns whose values are compared. Of rows whose other columns were hashed, before the
      detector had learnt from these, only the key counts.
    """

    def __init__(self, store: Store, source: str, *, columns: str = "") -> None:
        self.store = store
        self.source = source
        self.columns = columns
        self._runs: list[_Run] | None = None
        self._parts: dict[tuple[int, int], Marks] = {}
        self._cached = 0

    @property
    def is_empty(self) -> bool:
        """Whether nothing is known."""
        return not self._known()

    def look_up(self, marks: Marks) -> tuple[NDArray[np.bool_], NDArray[np.uint64]]:
        """Which keys are known, and what is known of their values."""
        known = np.zeros(marks.shape[1], dtype=bool)
        values = np.zeros(marks.shape[1], dtype=np.uint64)
        order = np.argsort(marks[HIGH])
        for run in self._known():
            left = order[~known[order]]
            if not len(left):
                break
            where = run.part_of(marks[HIGH, left])
            numbers, starts = np.unique(where, return_index=True)
            ends = [*starts[1:].tolist(), len(left)]
            for part, start, end in zip(self._read(run, numbers.tolist()), starts.tolist(), ends, strict=True):
                rows = left[start:end]
                found, before = found_in(part, marks[:, rows])
                known[rows] = found
                values[rows] = before if run.columns == self.columns else before & DAY
        return known, values

    def add(self, session: Session, marks: Marks, *, since: int) -> None:
        """Remember rows, in the transaction that keeps their scores; those that came last before ``since`` are let go.

        - ``since``: the number of a day.
        """
        self._runs = None
        self._parts.clear()
        self._cached = 0
        if not marks.shape[1]:
            return
        runs = self._runs_in(session)
        number = 1 + max((run.number for run in runs), default=0)
        new = in_order(marks)
        older: list[_Run] = []
        rows = new.shape[1]
        for run in runs:
            if run.rows > JOINED * rows:
                break
            older.append(run)
            rows += run.rows
        parts = max([1 << ((rows - 1) // MOST_ROWS).bit_length(), *(run.parts for run in older)])
        run = _Run(number, parts, self.columns, rows)
        for part, found in enumerate(self._joined(session, new, older, run)):
            kept = found[:, (found[VALUES] & DAY) >= np.uint64(max(since, 0))]
            if kept.shape[1]:
                values = {"run": number, "part": part, "parts": parts, "columns": self.columns, **_encoded(kept)}
                session.execute(sa.insert(KnownRows).values(source=self.source, **values))
        gone = [each.number for each in older]
        session.execute(sa.delete(KnownRows).where(KnownRows.source == self.source, KnownRows.run.in_(gone)))

    def forget_all(self) -> None:
        """Let all go, if there is something."""
        if not self.is_empty:
            with self.store.write() as session:
                session.execute(sa.delete(KnownRows).where(KnownRows.source == self.source))
            self._runs = None

    def forget(self, marks: Marks, *, dry: bool) -> int:
        """Let some keys go; how many were known."""
        wanted = in_order(marks)
        return self._drop(lambda part: found_in(wanted, part)[0], dry=dry)

    def let_go(self, *, since: int, slack: int) -> int:
        """Let those go that came last before ``since``, wherever one did by more than ``slack`` days; how many."""
        where = KnownRows.oldest < since - slack
        return self._drop(lambda part: (part[VALUES] & DAY) < np.uint64(max(since, 0)), where, dry=False)

    def _known(self) -> list[_Run]:
        if self._runs is None:
            with self.store.read() as session:
                self._runs = self._runs_in(session)
        return self._runs

    def _runs_in(self, session: Session) -> list[_Run]:
        found = session.execute(_RUNS.where(KnownRows.source == self.source))
        return [_Run(number, parts, columns, int(rows)) for number, parts, columns, rows in found]

    def _read(self, run: _Run, parts: list[int]) -> Iterator[Marks]:
        for start in range(0, len(parts), PARTS_AT_ONCE):
            some = parts[start : start + PARTS_AT_ONCE]
            missing = [part for part in some if (run.number, part) not in self._parts]
            read: dict[int, Marks] = {}
            if missing:
                with self.store.read() as session:
                    read = self._of(session, run, missing)
            for part in some:
                marks = read[part] if part in read else self._parts.get((run.number, part), _NONE)
                if part in read and self._cached < MOST_CACHED:
                    self._parts[run.number, part] = marks
                    self._cached += marks.nbytes
                yield marks

    def _of(self, session: Session, run: _Run, parts: list[int]) -> dict[int, Marks]:
        found = sa.select(KnownRows.part, KnownRows.marks).where(
            KnownRows.source == self.source, KnownRows.run == run.number, KnownRows.part.in_(parts)
        )
        return {part: _decoded(data) for part, data in session.execute(found)}

    def _joined(self, session: Session, new: Marks, older: list[_Run], like: _Run) -> Iterator[Marks]:
        """The parts of a run of all; no run is in memory as a whole but the new one."""
        held: dict[int, tuple[int, Marks]] = {}
        ends = np.searchsorted(like.part_of(new[HIGH]), np.arange(like.parts + 1))
        for part in range(like.parts):
            found = [new[:, ends[part] : ends[part + 1]]]
            for run in older:
                own = part * run.parts // like.parts
                if held.get(run.number, (-1, _NONE))[0] != own:
                    held[run.number] = own, self._of(session, run, [own]).get(own, _NONE)
                marks = held[run.number][1]
                marks = marks[:, like.part_of(marks[HIGH]) == part]
                found.append(marks if run.columns == like.columns else _without_values(marks))
            yield in_order(np.hstack(found))

    def _drop(self, which: Callable[[Marks], NDArray[np.bool_]], *where: sa.ColumnElement[bool], dry: bool) -> int:
        """Take rows out of the parts for which something holds, each part in a transaction of its own; how many."""
        with self.store.read() as session:
            ids = list(session.scalars(sa.select(KnownRows.id).where(KnownRows.source == self.source, *where)))
        dropped = 0
        for number in ids:
            with self.store.write() as session:
                part = session.get(KnownRows, number)
                gone = np.zeros(0, dtype=bool) if part is None else which(marks := _decoded(part.marks))
                dropped += int(gone.sum())
                if part is None or dry or not gone.any():
                    continue
                if gone.all():
                    session.delete(part)
                else:
                    for name, value in _encoded(marks[:, ~gone]).items():
                        setattr(part, name, value)
        return dropped


def oldest_day(day: int, days: int) -> int:
    """The day from which on marks are kept; a row may have come later by a part of the days than its mark says.

    >>> oldest_day(1_000, 90)
    880
    """
    return day - days - days // REFRESHED


_NONE: Marks = np.zeros((3, 0), dtype=np.uint64)


def _without_values(marks: Marks) -> Marks:
    return np.vstack([marks[:VALUES], marks[VALUES] & DAY])


def _encoded(marks: Marks) -> dict[str, Any]:
    oldest = int((marks[VALUES] & DAY).min())
    return {"rows": marks.shape[1], "oldest": oldest, "marks": marks.astype("<u8").tobytes()}


def _decoded(data: bytes) -> Marks:
    return np.frombuffer(data, dtype="<u8").reshape(3, -1).astype(np.uint64, copy=False)
