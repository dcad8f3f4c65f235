"""All features of many rows: events lined up by entity, measured piece by piece on two cores.

A piece is as many whole entities as fit a processor's cache; no array but the answers is as long as the table.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from detector.arrays import Integers, Places, Times
from detector.features.calendar import calendar
from detector.features.feature import Feature
from detector.features.measure import column_keys, measure
from detector.features.track import Track

PIECE = 1 << 14
WORKERS = 2


@dataclass(frozen=True)
class Lined:
    """Events by entity, each entity's in order of (time, key).

    Parameters
    ----------
    order : array of shape (n_lined,)
        Their positions in the columns: entity after entity.
    counts : array of shape (n_entities,)
        How many events each entity has.
    time : array of shape (n_events,)
        Microseconds.
    columns : mapping of str to array of shape (n_events,)
        What the events carry.
    rows : array of shape (n_events,), optional
        The row each event answers for, -1 where it is of the past; the event's own position if not given.
    """

    order: Places
    counts: Integers
    time: Times
    columns: Mapping[str, NDArray[Any]]
    rows: Integers | None = None

    def pieces(self) -> Iterator[tuple[int, int, int, int]]:
        """First and last entity, first and last event of pieces that hold whole entities."""
        ends = np.concatenate([[0], np.cumsum(self.counts)])
        first = 0
        while first < len(self.counts):
            last = max(first + 1, int(np.searchsorted(ends, ends[first] + PIECE, side="right")) - 1)
            yield first, last, int(ends[first]), int(ends[last])
            first = last


class Answers:
    """The features of rows, in the making.

    Parameters
    ----------
    names : sequence of str
        All features, in the order of the columns.
    time : array of shape (n_rows,)
        Microseconds since 1970.
    most_events, scale, clock : int, int, tuple of str
        ``most_events``, ``scale`` and ``calendar`` of the feature set.
    """

    def __init__(
        self, names: Sequence[str], time: Times, *, most_events: int, scale: int, clock: tuple[str, ...]
    ) -> None:
        self.place = {name: number for number, name in enumerate(names)}
        self.most_events, self.scale = most_events, scale
        self.values = np.full((len(self.place), len(time)), np.nan)
        for name in clock:
            self.values[self.place[name]] = calendar(time, name)

    def add(self, features: Sequence[Feature], lined: Lined) -> None:
        """Measure the features of one way to group rows."""
        keys = tuple(dict.fromkeys(key for feature in features for key in column_keys(feature)))
        pieces = list(lined.pieces())

        def answer(piece: tuple[int, int, int, int]) -> None:
            first, last, begin, end = piece
            part = lined.order[begin:end]
            rows = part if lined.rows is None else lined.rows[part]
            at = np.flatnonzero(rows >= 0)
            if not len(at):
                return
            track = Track(
                np.repeat(np.arange(last - first), lined.counts[first:last]),
                lined.time[part],
                at,
                self.most_events,
                {key: lined.columns[key][part] for key in keys},
            )
            asked = rows[at]
            for feature in features:
                self.values[self.place[feature.name]][asked] = measure(feature, track, scale=self.scale)

        if len(pieces) < WORKERS:
            for piece in pieces:
                answer(piece)
            return
        with ThreadPoolExecutor(WORKERS) as pool:
            list(pool.map(answer, pieces))

    def beside(self, rows: pd.DataFrame) -> pd.DataFrame:
        """The rows with one float64 column more for each feature."""
        added = pd.DataFrame(self.values.T, index=rows.index, columns=list(self.place), copy=False)
        return pd.concat([rows, added], axis="columns")
