"""How the past of one entity is kept: a few bytes an event, and the keys of the events another may still tie with."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from detector.features.feature import Feature
from detector.features.measure import column_keys
from detector.features.track import Ints
from detector.features.windowed import MISSING

GAP = np.iinfo(np.int32).min
Past = dict[str, Ints]
Stored = tuple[bytes, tuple[Any, ...]]
"""The events of an entity, packed, and the keys of the last ones."""

EMPTY: Stored = (b"", ())


@dataclass(frozen=True)
class Layout:
    """What is kept of each event of one way to group rows.

    Parameters
    ----------
    keys : tuple of str
        The columns of a track.
    dtype : dtype
        Time in 8 bytes, numbers and places in 4, names and report times in 8.
    reach : int
        How far back a feature looks, in microseconds.
    """

    keys: tuple[str, ...]
    dtype: np.dtype[Any]
    reach: int

    @classmethod
    def of(cls, features: Iterable[Feature]) -> Self:
        """What these features need.

        >>> Layout.of([Feature("mean", by=("card",), of=("amount",), window=1)]).dtype.itemsize
        12
        """
        features = list(features)
        keys = tuple(dict.fromkeys(key for feature in features for key in column_keys(feature)))
        sizes = [(key, "<i4" if key.startswith(("number:", "place:")) else "<i8") for key in keys]
        return cls(keys, np.dtype([("time", "<i8"), *sizes]), max(feature.reach for feature in features))

    def read(self, packed: bytes) -> Past:
        """The events as whole numbers."""
        events = np.frombuffer(packed, dtype=self.dtype)
        return {name: _wide(events[name]) for name in self.dtype.names or ()}

    def write(self, past: Past) -> bytes:
        """The inverse of ``read``."""
        return self.pack(past).tobytes()

    def pack(self, past: Past) -> NDArray[Any]:
        """Events side by side, as they are stored."""
        events = np.empty(len(past["time"]), dtype=self.dtype)
        for name in self.dtype.names or ():
            values = past[name]
            narrow = self.dtype[name].itemsize == 4
            events[name] = np.where(values == MISSING, GAP, values) if narrow else values
        return events


def _wide(values: NDArray[Any]) -> Ints:
    if values.dtype.itemsize == 8:
        return np.asarray(values, dtype=np.int64)
    return np.where(values == GAP, MISSING, values.astype(np.int64))
