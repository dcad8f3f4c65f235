"""What rows are told by that came before: a hash of the key, one of the values, and the day on which it came last."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from detector.cleaning.values import naive_utc, read_booleans, read_categories, read_dates, read_names, read_numbers
from detector.schema import Schema

Marks = NDArray[np.uint64]
"""Of shape (3, rows): the first half of the key's hash, by which marks are sorted, the second half, and a hash of the
values in 48 bits before the number of the day in 16."""

HIGH, LOW, VALUES = range(3)
DAY = np.uint64(0xFFFF)
UNKNOWN = np.uint64(0)
"""In place of the hash of values: whatever they were, they count as the same."""
_ABSENT = np.uint64(0x9E3779B97F4A7C15)
_VERSION = "1"


class RowMarker:
    """Makes the marks of rows.

    The values are those that scoring looks at, as it reads them: ``1.50`` and ``1.5`` are the same, and so are an empty
    value and a column that is not there. Labels are no part of them: they come later, and change no score.

    - ``schema``: Names the key, and what is scored.
    - ``also``: Columns beside it that change what is said of a row.
    """

    def __init__(self, schema: Schema, *, key: str, also: Iterable[str] = ()) -> None:
        self.key = key
        named = {role: name for role, name in schema.roles.items() if role not in ("key", "label")}
        read: dict[str, Callable[[pd.Series], Any]] = dict.fromkeys((*also, *named.values()), read_categories)
        for name in schema.features:
            read[name] = _READERS.get(schema.kind_of(name), read_categories)
        if schema.time is not None:
            read[schema.time] = read_dates
        read.pop(key, None)
        read.pop(str(schema.label), None)
        self._read: Mapping[str, Callable[[pd.Series], Any]] = dict(sorted(read.items()))

    @cached_property
    def columns(self) -> str:
        """Names the columns and how each is read: hashes of other columns cannot be compared."""
        said = [f"{name}:{read.__name__}" for name, read in self._read.items()]
        return hashlib.blake2b("\n".join([_VERSION, *said]).encode(), digest_size=8).hexdigest()

    def marks(self, frame: pd.DataFrame, *, day: int) -> tuple[Marks, NDArray[np.bool_]]:
        """The marks of the rows that have a key, in their order, and which those are."""
        names = read_names(frame[self.key])
        has_key = names.notna().to_numpy(dtype=bool)
        frame = frame if has_key.all() else frame[has_key]
        values = np.zeros(len(frame), dtype=np.uint64)
        for name, read in self._read.items():
            words = _words(read(frame[name])) if name in frame else _ABSENT
            values = _mixed(values ^ words)
        values &= ~DAY
        values[values == UNKNOWN] = ~DAY
        return np.vstack([_of_keys(_listed(names[has_key].astype(str))), values | np.uint64(day)]), has_key


_READERS: dict[str, Callable[[pd.Series], Any]] = {
    "numeric": read_numbers,
    "boolean": read_booleans,
    "datetime": read_dates,
}


def day_of(now: datetime) -> int:
    """The number of the day since 1970.

    >>> day_of(datetime(1970, 1, 3))  # noqa: DTZ001
    2
    """
    return int((naive_utc(now) - pd.Timestamp(0)).days)


def marks_of_keys(keys: Iterable[str], *, day: int) -> Marks:
    """The marks of rows of which only the key is known, as text."""
    hashes = _of_keys(keys)
    return np.vstack([hashes, np.full(hashes.shape[1], day, dtype=np.uint64)])


def in_order(marks: Marks) -> Marks:
    """Sorted by the hash of the key; of several rows with one key, the first."""
    order = np.argsort(marks[HIGH], kind="stable")
    ranked = marks[:, order]
    is_first = np.ones(len(order), dtype=bool)
    is_first[1:] = ranked[HIGH, 1:] != ranked[HIGH, :-1]
    return ranked if is_first.all() else ranked[:, is_first]


def found_in(known: Marks, marks: Marks) -> tuple[NDArray[np.bool_], NDArray[np.uint64]]:
    """Which keys are among those of ``known``, which are in order, and what is known of their values.

    Of two keys with the same first half, one is not found: its row is scored again, and none is lost.
    """
    if not known.shape[1]:
        return np.zeros(marks.shape[1], dtype=bool), np.zeros(marks.shape[1], dtype=np.uint64)
    at = np.minimum(np.searchsorted(known[HIGH], marks[HIGH]), known.shape[1] - 1)
    return (known[HIGH, at] == marks[HIGH]) & (known[LOW, at] == marks[LOW]), known[VALUES, at]


def differ(known: NDArray[np.uint64], values: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Where the values of a row are not those that were known."""
    before = known & ~DAY
    return np.asarray((before != UNKNOWN) & (before != values & ~DAY))


def _of_keys(keys: Iterable[str]) -> Marks:
    return np.ascontiguousarray(_hashed(keys, size=16).reshape(-1, 2).T)


def _hashed(texts: Iterable[str], *, size: int) -> NDArray[np.uint64]:
    """Hashes of so many bytes each, which nobody can make two texts for."""
    blake2b = hashlib.blake2b
    joined = b"".join([blake2b(text.encode("utf-8", "surrogatepass"), digest_size=size).digest() for text in texts])
    return np.frombuffer(joined, dtype="<u8").astype(np.uint64, copy=False)


def _listed(texts: pd.Series | pd.Index) -> list[str]:
    return list(texts.to_numpy(dtype=object))


def _words(read: Any) -> NDArray[np.uint64]:
    """The values of a column, 64 bits each: numbers and times as they are, text as a hash."""
    column: pd.Series = read[0] if isinstance(read, tuple) else read
    absent = column.isna().to_numpy(dtype=bool)
    if column.dtype.kind == "f":
        words = (column.to_numpy(dtype=np.float64) + 0.0).view(np.uint64)  # -0.0 is 0.0
    elif column.dtype.kind == "M":
        words = column.to_numpy(dtype="datetime64[us]").view(np.uint64)
    else:
        codes, different = pd.factorize(column)
        words = np.append(_hashed(_listed(different), size=8), _ABSENT)[codes]
    return np.where(absent, _ABSENT, words)


def _mixed(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Each bit hangs on all bits: the finalizer of SplitMix64 (Steele, Lea, Flood 2014)."""
    words = words + _ABSENT
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(words ^ (words >> np.uint64(31)))
