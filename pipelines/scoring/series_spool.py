"""Rows of many series, which wait in files until all of a series are there, some series at a time."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil
from pathlib import Path

import numpy as np
import pandas as pd

from detector.cleaning.values import read_names
from detector.detectors.series.groups import ROWS_AT_ONCE
from pipelines.scoring.table import FrameFolder

UNKNOWN = 16
"""Groups where nobody can say how many rows there are."""


class SeriesSpool:
    """Takes rows in any order, and gives back whole series.

    - ``folder``: For the files.
    - ``entity``: Tells series apart; None if all rows are to be given back at once.
    - ``rows``: About how many rows there are, if that is known.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     spool = SeriesSpool(Path(folder), "pump", rows=200_000)
    ...     spool.add(pd.DataFrame({"pump": ["a", "b", "a"]}))
    ...     spool.add(pd.DataFrame({"pump": ["b"]}, index=[3]))
    ...     sorted(part.index.tolist() for part in spool.parts())
    [[0, 2], [1, 3]]
    """

    def __init__(self, folder: Path, entity: str | None, *, rows: int | None) -> None:
        self.entity = entity
        self.groups = 1 if entity is None else UNKNOWN if rows is None else max(1, ceil(rows / ROWS_AT_ONCE))
        self._files = FrameFolder(folder)
        self._held: list[pd.DataFrame] = []
        self._rows = 0

    def add(self, frame: pd.DataFrame) -> None:
        """Take some rows; their index goes on from those before."""
        self._held.append(frame)
        self._rows += len(frame)
        if self.groups > 1 and self._rows >= 4 * ROWS_AT_ONCE:
            self._put_away()

    def parts(self) -> Iterator[pd.DataFrame]:
        """All rows of some series, then of others; in a group in the order they came."""
        if self.groups > 1:
            self._put_away()
        for group in range(self.groups):
            names = sorted(name for name in self._files if name.startswith(f"{group}-"))
            parts = [self._files[name] for name in names] if self.groups > 1 else self._held
            if parts:
                yield pd.concat(parts)

    def _put_away(self) -> None:
        if not self._held:
            return
        rows, self._held, self._rows = pd.concat(self._held), [], 0
        codes, names = pd.factorize(read_names(rows[self.entity]))
        groups = pd.util.hash_array(names.astype(str).to_numpy(dtype=object)) % np.uint64(self.groups)
        group = np.append(groups, groups[:1] if len(groups) else 0)[codes]  # rows of nobody go with those of another
        for number in np.unique(group).tolist():
            self._files[f"{number}-{int(rows.index[0]):015d}"] = rows[group == number]
