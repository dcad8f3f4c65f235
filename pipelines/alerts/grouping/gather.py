"""What alerts need of a batch, gathered while its scores pass on their way to the sink."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipelines.config import Config

MOST_ROWS = 200_000


class Gathered:
    """Keeps flagged and sampled rows; of the others all of a small batch, and of a large one the last of each key.

    >>> gathered = Gathered(Config.model_validate({"source": {"path": "a.csv"}, "columns": {"entity": "card"}}))
    >>> frames = [pd.DataFrame({"card": ["a", "b"], "flagged": [True, False]})]
    >>> len(list(gathered.watch(frames))), len(gathered.scores())
    (1, 2)
    """

    def __init__(self, config: Config, *, most_rows: int = MOST_ROWS) -> None:
        self._by = list(config.alerts.group_by(config.columns))
        self._most = most_rows
        self._flagged: list[pd.DataFrame] = []
        self._others: list[tuple[pd.DataFrame, NDArray[np.bool_]]] = []  # frames as they passed, and which rows count
        self._rows = 0

    def watch(self, frames: Iterable[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        """The same frames, in the same order."""
        for frame in frames:
            flags = frame["flagged"].to_numpy(dtype=bool)
            if "explored" in frame:
                flags = flags | frame["explored"].to_numpy(dtype=bool)
            if flags.any():
                self._flagged.append(frame[flags])
            if not flags.all():
                self._others.append((frame, ~flags))
                self._rows += len(flags)
            if self._rows > self._most:
                self._thin()
            yield frame

    def scores(self) -> pd.DataFrame:
        """The rows that were kept, for ``enqueue``."""
        kept = [*self._flagged, *(frame[others] for frame, others in self._others)]
        return pd.concat(kept, ignore_index=True) if kept else pd.DataFrame(columns=["flagged"])

    def _thin(self) -> None:
        """Of all but the flagged rows, keep the last of each key; no row is copied that goes."""
        joined = pd.concat([frame.iloc[self._last(frame, others)] for frame, others in self._others])
        joined = joined.iloc[self._last(joined, np.ones(len(joined), dtype=bool))]
        self._others, self._rows = [(joined, np.ones(len(joined), dtype=bool))], 0

    def _last(self, frame: pd.DataFrame, others: NDArray[np.bool_]) -> NDArray[np.intp]:
        positions = np.flatnonzero(others)
        if not self._by:
            return positions[-1:]
        last = ~frame[self._by].iloc[positions].duplicated(keep="last")
        chosen: NDArray[np.intp] = positions[last.to_numpy(dtype=bool)]
        return chosen
