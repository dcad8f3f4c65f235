"""Rows that were learnt from, and the risk each has for a detector that has not seen it.

A detector knows its training rows: nothing about them is novel, and they look more normal than they are. So each keeps
the risk that members gave it which had not learnt from it, and has that whenever it is scored again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from detector.arrays import Flags, Floats, Places
from detector.encoding.encoded import Encoded
from detector.schema import Schema

Marks = NDArray[np.uint64]
SPREAD = np.uint64(0x9E3779B97F4A7C15)
HALF = np.uint64(32)
NOT_A_NUMBER = np.uint64(0x7FF8000000000000)
BLOCK = 1024
SEVERAL = 0.5


@dataclass(frozen=True)
class LearntRows:
    """Training rows by all their values, and their key if they have one.

    - ``marks``, (n_rows,): a 64-bit hash of each, in order. That a new row has the mark of one of a million by chance
      has a probability of 1e-13.
    - ``risk``, (n_rows,): of each, out of fold.
    - ``apart``, (n_rows,): whether it lies in a group apart from all others, and counts as an anomaly.
    - ``alone``, (n_rows,): whether no other training row is like it. A new row may be like several training rows where
      columns are few and coarse, and is not one of them for that.
    """

    marks: Marks
    risk: Floats
    alone: Flags
    apart: Flags

    @classmethod
    def of(cls, encoded: Encoded, risk: Floats, apart: Flags, keys: NDArray[np.object_] | None = None) -> Self:
        """Rows, each with its risk; of rows that are alike, the least."""
        marks = marks_of(encoded, keys)
        order = np.lexsort((risk, marks))
        marks, risk, apart = marks[order], risk[order], apart[order]
        first = np.ones(len(marks), dtype=bool)
        first[1:] = marks[1:] != marks[:-1]
        places = np.flatnonzero(first)
        alone = np.diff(np.append(places, len(marks))) == 1
        return cls(marks[first], risk[first], alone, apart[first])

    def __len__(self) -> int:
        return len(self.marks)

    def recall(self, encoded: Encoded, risk: Floats, keys: NDArray[np.object_] | None = None) -> tuple[Floats, Floats]:
        """The risks, those of rows like one that was learnt from replaced by its own; and how surely each is that row.

        That is 1 where one training row is like it, one half where several are, and 0 else.
        """
        at, known = self._places(encoded, keys)
        sure = np.where(self.alone[at], 1.0, SEVERAL)
        return np.where(known, self.risk[at], risk), np.where(known, sure, 0.0)

    def lie_apart(self, encoded: Encoded, keys: NDArray[np.object_] | None = None) -> Flags:
        """Which rows are like one that counts as an anomaly."""
        at, known = self._places(encoded, keys)
        return np.asarray(known & self.apart[at])

    def _places(self, encoded: Encoded, keys: NDArray[np.object_] | None) -> tuple[Places, Flags]:
        """Where each row is, and whether it is there at all."""
        marks = marks_of(encoded, keys)
        at = np.minimum(np.searchsorted(self.marks, marks), len(self.marks) - 1)
        return at, self.marks[at] == marks

    def state(self) -> dict[str, NDArray[Any]]:
        """The arrays, for npz."""
        return {"marks": self.marks, "risk": self.risk, "alone": self.alone, "apart": self.apart}

    @classmethod
    def from_state(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """The inverse of ``state``."""
        return cls(arrays["marks"], arrays["risk"], arrays["alone"], arrays["apart"])


def keys_of(rows: pd.DataFrame, schema: Schema) -> NDArray[np.object_] | None:
    """The key of each row as text, by which equal rows are told apart; None if the rows have none."""
    if schema.key is None or schema.key not in rows:
        return None
    return np.asarray(rows[schema.key].astype(str), dtype=object)


def marks_of(encoded: Encoded, keys: NDArray[np.object_] | None = None) -> Marks:
    """A hash of each row, the same on every machine; -0 counts as 0, and all NaN are one.

    >>> rows = Encoded(np.array([[1.0, np.nan], [1.0, np.nan], [np.nan, 1.0]]), np.zeros((3, 0), np.int64))
    >>> first, second, third = marks_of(rows)
    >>> bool(first == second), bool(first == third)
    (True, False)
    """
    marks = np.zeros(len(encoded), dtype=np.uint64)
    for start in range(0, len(encoded), BLOCK):  # few rows at a time stay in the processor's cache
        block = slice(start, start + BLOCK)
        parts = [_bits(encoded.numeric[block]), encoded.codes[block].astype(np.uint64)]
        if encoded.window is not None:
            window = encoded.window[block]
            parts.append(_bits(window.reshape(len(window), -1)))
        mixed = _mixed(np.hstack(parts))
        mixed *= _mixed(np.arange(1, mixed.shape[1] + 1, dtype=np.uint64)) | np.uint64(1)
        marks[block] = mixed.sum(axis=1, dtype=np.uint64)
    if keys is not None:
        marks += pd.util.hash_array(keys, categorize=False)
    return _mixed(marks)


def _bits(numbers: NDArray[np.floating[Any]]) -> Marks:
    """The bits of numbers, of equal ones the same."""
    exact = np.asarray(numbers, dtype=np.float64) + 0.0  # of -0 it makes 0
    bits = exact.view(np.uint64)
    bits[np.isnan(exact)] = NOT_A_NUMBER
    return bits


def _mixed(values: Marks) -> Marks:
    """So that values which differ in few bits differ in all."""
    values = values * SPREAD
    values ^= values >> HALF
    values *= SPREAD
    values ^= values >> HALF
    return values
