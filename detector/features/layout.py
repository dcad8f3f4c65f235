"""How the past of one entity is kept: a few bytes an event, side by side."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from struct import Struct
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from detector.arrays import Integers
from detector.features.feature import Feature
from detector.features.measures import MISSING, column_keys

GAP = np.iinfo(np.int32).min
NARROW = ("number:", "place:")
LAST = Struct("<q")
EMPTY = b""


@dataclass(frozen=True)
class Layout:
    """What is kept of each event of one way to group rows.

    - ``keys``: the columns of a sequence.
    - ``dtype``: time in 8 bytes, numbers and places in 4, names and report times in 8.
    - ``reach``: how far back a feature looks, in microseconds.
    """

    keys: tuple[str, ...]
    dtype: np.dtype[Any]
    reach: int
    row: Struct = field(init=False, repr=False, compare=False)
    size: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        codes = ("i" if key.startswith(NARROW) else "q" for key in self.keys)
        object.__setattr__(self, "row", Struct(f"<q{''.join(codes)}"))
        object.__setattr__(self, "size", self.row.size)

    @classmethod
    def of(cls, features: Iterable[Feature]) -> Self:
        """What these features need.

        >>> Layout.of([Feature("mean", by=("card",), of=("amount",), window=1)]).dtype.itemsize
        12
        """
        features = list(features)
        keys = tuple(dict.fromkeys(key for feature in features for key in column_keys(feature)))
        sizes = [(key, "<i4" if key.startswith(NARROW) else "<i8") for key in keys]
        return cls(keys, np.dtype([("time", "<i8"), *sizes]), max(feature.reach for feature in features))

    def events(self, packed: bytes) -> NDArray[Any]:
        """The events as they are stored."""
        return np.frombuffer(packed, dtype=self.dtype)

    def pack_one(self, values: Mapping[str, int]) -> bytes:
        """One event as it is stored."""
        kept = [GAP if (value := values[key]) == MISSING and key.startswith(NARROW) else value for key in self.keys]
        return self.row.pack(values["time"], *kept)

    def pack(self, past: Mapping[str, Integers]) -> bytes:
        """Events side by side, as they are stored."""
        events = np.empty(len(past["time"]), dtype=self.dtype)
        for name in self.dtype.names or ():
            values = past[name]
            events[name] = np.where(values == MISSING, GAP, values) if name.startswith(NARROW) else values
        return events.tobytes()

    def last_time(self, packed: bytes) -> int:
        """When the latest event was."""
        time: int = LAST.unpack_from(packed, len(packed) - self.size)[0]
        return time


def wide(values: NDArray[Any]) -> Integers:
    """A stored column as whole numbers of 8 bytes."""
    if values.dtype.itemsize == 8:
        return np.ascontiguousarray(values, dtype=np.int64)
    known = values.astype(np.int64)
    gaps = known == GAP
    if gaps.any():
        known[gaps] = MISSING
    return known
