"""Rows of a batch that came before as they are: in an earlier batch, or in another file of this one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sqlalchemy.orm import Session

from pipelines.ingest.batch import InputBatch, ReadFacts
from pipelines.ingest.row_marks import DAY, VALUES, Marks, RowMarker, differ, found_in, in_order
from pipelines.ingest.row_memory import REFRESHED, RowMemory, oldest_day


class RepeatedRows:
    """Takes the rows out of a batch that came before with the same values, and notes which rows are to be remembered.

    A row that came before with other values stays: it is a correction. So does one whose key comes twice within one
    file, which scoring quarantines.

    - ``marker``: Tells rows apart.
    - ``memory``: What is known of earlier batches.
    - ``looks_back``: Whether rows of earlier batches are taken out, too.
    - ``day``, ``days``: Today's number, and for how many days a row is remembered.
    """

    def __init__(self, marker: RowMarker, memory: RowMemory, *, looks_back: bool, day: int, days: int) -> None:
        self.marker = marker
        self.memory = memory
        self.looks_back = looks_back
        self.day = day
        self.days = days
        self.skipped = 0
        """Rows that were taken out."""
        self._rows: list[tuple[NDArray[np.int64], Marks, NDArray[np.bool_]]] = []
        """By part that was read: the labels of the rows that stay, their marks, and which are corrections."""
        self._again: list[Marks] = []
        """Of rows that were taken out and are to be remembered anew."""
        self._earlier: list[Marks] = []
        self._file = (-1, list[Marks]())

    def without(self, batch: InputBatch) -> InputBatch:
        """The batch without rows that came before."""

        def read(facts: ReadFacts) -> Iterator[pd.DataFrame]:
            for frame in batch.read(facts):
                if len(kept := self._new_of(frame, len(facts.spans))):
                    yield kept

        return replace(batch, read=read)

    def corrected(self, quarantined: NDArray[np.int64]) -> int:
        """How many rows came with other values than before, and were not quarantined."""
        return sum(int((changed & ~np.isin(labels, quarantined)).sum()) for labels, _, changed in self._rows)

    def keep(self, session: Session, quarantined: NDArray[np.int64]) -> None:
        """Remember the rows, in the transaction that keeps their scores; not those that were quarantined.

        A correction that was quarantined is remembered all the same: it is told once, and not with every export. To be
        called once, as the last thing.
        """
        self._earlier, self._file = [], (-1, [])
        kept = self._again
        while self._rows:  # what was used is let go: a batch may have many rows
            labels, marks, changed = self._rows.pop()
            stays = changed | ~np.isin(labels, quarantined)
            kept.append(marks if stays.all() else marks[:, stays])
        if kept:
            joined = np.hstack(kept[::-1])
            kept.clear()
            self.memory.add(session, joined, since=oldest_day(self.day, self.days))

    def _new_of(self, frame: pd.DataFrame, file: int) -> pd.DataFrame:
        marks, has_key = self.marker.marks(frame, day=self.day)
        again = self._in_other_files(marks, file)
        changed = np.zeros(len(again), dtype=bool)
        if self.looks_back:
            known, values = self.memory.look_up(marks)
            changed = known & differ(values, marks[VALUES]) & ~again
            known &= ~changed & ~again
            old = (values & DAY).astype(np.int64) <= self.day - self.days // REFRESHED
            self._again.append(marks[:, known & (old | (values == values & DAY))])
            again |= known
        self.skipped += int(again.sum())
        labels = frame.index.to_numpy(dtype=np.int64)[has_key]
        if not again.any():
            self._rows.append((labels, marks, changed))
            return frame
        self._rows.append((labels[~again], marks[:, ~again], changed[~again]))
        stays = np.ones(len(frame), dtype=bool)
        stays[has_key] = ~again
        return frame[stays]

    def _in_other_files(self, marks: Marks, file: int) -> NDArray[np.bool_]:
        """Which rows another file of this batch held before."""
        if self._file[0] != file:
            self._earlier = _with_run(self._earlier, self._file[1])
            self._file = (file, [])
        again = np.zeros(marks.shape[1], dtype=bool)
        for run in self._earlier:
            found, values = found_in(run, marks)
            again |= found & ~differ(values, marks[VALUES])
        self._file[1].append(marks)
        return again


def _with_run(runs: Sequence[Marks], parts: Sequence[Marks]) -> list[Marks]:
    """One run more, joined with those that are not larger."""
    found = [*runs, in_order(np.hstack(parts))] if parts else list(runs)
    while len(found) > 1 and found[-1].shape[1] >= found[-2].shape[1]:
        found[-2:] = [in_order(np.hstack([found[-1], found[-2]]))]
    return found
