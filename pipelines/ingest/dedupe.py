"""Keys already seen in a stream of batches, in 8 bytes each."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from numpy.typing import NDArray

KnownKeys = Callable[[pd.Series], NDArray[np.bool_]]
"""Which keys have scores from another batch."""


class KeyLedger:
    """Remembers keys and says which of the next batch it has met before.

    Integers are kept as they are, other keys as a 64-bit hash. They lie in sorted runs of doubling length, so that a
    lookup costs a few binary searches; keys that only grow, as most do, cost one comparison.
    """

    def __init__(self) -> None:
        self._runs: list[NDArray[np.uint64]] = []
        self._largest: np.uint64 | None = None

    def repeats(self, keys: pd.Series) -> NDArray[np.bool_]:
        """Whether each key, all different, came in an earlier batch; those that did not are remembered.

        >>> ledger = KeyLedger()
        >>> ledger.repeats(pd.Series([1, 2])), ledger.repeats(pd.Series([3, 2]))
        (array([False, False]), array([False,  True]))
        """
        marks = _marks(keys)
        if not len(marks):
            return np.zeros(0, dtype=bool)
        order = np.argsort(marks)
        ranked = marks[order]
        known = np.zeros(len(ranked), dtype=bool)
        if self._largest is not None and ranked[0] <= self._largest:
            for run in self._runs:
                at = np.minimum(np.searchsorted(run, ranked), len(run) - 1)
                known |= run[at] == ranked
        self._remember(ranked[~known])
        repeats = np.zeros(len(ranked), dtype=bool)
        repeats[order] = known
        return repeats

    def _remember(self, ranked: NDArray[np.uint64]) -> None:
        if not len(ranked):
            return
        self._largest = ranked[-1] if self._largest is None else max(self._largest, ranked[-1])
        self._runs.append(ranked)
        while len(self._runs) > 1 and len(self._runs[-1]) >= len(self._runs[-2]):
            self._runs[-2:] = [np.sort(np.concatenate(self._runs[-2:]), kind="stable")]


def _marks(keys: pd.Series) -> NDArray[np.uint64]:
    if keys.dtype.kind in "iu":
        signed = keys.to_numpy().astype(np.int64)
        return np.asarray(signed.view(np.uint64) ^ np.uint64(1 << 63))
    return np.asarray(pd.util.hash_array(keys.astype(str).to_numpy(dtype=object)), dtype=np.uint64)
