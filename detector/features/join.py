"""All features of many rows: events grouped by entity, measured piece by piece on two cores.

A piece is as many whole entities as fit a processor's cache; no array but the columns is as long as the table.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from detector.arrays import Flags, Floats, Integers, Places, Times
from detector.cleaning.text import listed
from detector.features import integers
from detector.features.calendar import calendar
from detector.features.entities import many_of
from detector.features.events import EventSequence, by_key, in_time
from detector.features.feature import Feature
from detector.features.layout import EMPTY, Layout, wide
from detector.features.measures import column_keys, measure

SEPARATOR = "\x1f"
PIECE = 1 << 14
WORKERS = 2

Keys = tuple[Any, ...]


@dataclass(frozen=True)
class GroupedEvents:
    """Events by entity, each entity's in order of (time, key).

    - ``order``, (n_grouped,): their positions in the columns: entity after entity.
    - ``counts``, (n_entities,): how many events each entity has.
    - ``time``, (n_events,): microseconds.
    - ``columns``, (n_events,): what the events carry.
    - ``rows``, (n_events,): the row each event answers for, -1 where it is of the past; the event's own position if not
      given.
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


class FeatureColumns:
    """The features of rows, in the making.

    - ``names``: all features, in the order of the columns.
    - ``time``, (n_rows,): microseconds since 1970.
    - ``most_events``, ``scale``, ``clock``: ``most_events``, ``scale`` and ``calendar`` of the feature set.
    """

    def __init__(
        self, names: Sequence[str], time: Times, *, most_events: int, scale: int, clock: tuple[str, ...]
    ) -> None:
        self.place = {name: number for number, name in enumerate(names)}
        self.most_events, self.scale = most_events, scale
        self.values: Floats = np.full((len(self.place), len(time)), np.nan)
        for name in clock:
            self.values[self.place[name]] = calendar(time, name)

    def add(self, features: Sequence[Feature], events: GroupedEvents) -> None:
        """Measure the features of one way to group rows."""
        keys = tuple(dict.fromkeys(key for feature in features for key in column_keys(feature)))
        pieces = list(events.pieces())

        def measure_piece(piece: tuple[int, int, int, int]) -> None:
            first, last, begin, end = piece
            part = events.order[begin:end]
            rows = part if events.rows is None else events.rows[part]
            at = np.flatnonzero(rows >= 0)
            if not len(at):
                return
            sequence = EventSequence(
                np.repeat(np.arange(last - first), events.counts[first:last]),
                events.time[part],
                at,
                self.most_events,
                {key: events.columns[key][part] for key in keys},
            )
            queried = rows[at]
            for feature in features:
                self.values[self.place[feature.name]][queried] = measure(feature, sequence, scale=self.scale)

        if len(pieces) < WORKERS:
            for piece in pieces:
                measure_piece(piece)
            return
        with ThreadPoolExecutor(WORKERS) as pool:
            list(pool.map(measure_piece, pieces))


def with_columns(rows: pd.DataFrame, names: Sequence[str], values: Floats) -> pd.DataFrame:
    """The rows with one float64 column more for each name; ``values``, (n_names, n_rows)."""
    added = pd.DataFrame(values.T, index=rows.index, columns=list(names), copy=False)
    return pd.concat([rows, added], axis="columns")


@dataclass(frozen=True)
class Joined:
    """The past of some entities and new rows, in order of (time, key).

    - ``names``: the entities.
    - ``stored``, (n_entities,): how many events of each come from the past; they are the first events, entity after
      entity.
    - ``new``, (n_new,): the rows behind the other events.
    - ``events``: all of them.
    """

    names: list[str]
    stored: Integers
    new: Integers
    events: GroupedEvents

    @classmethod
    def of(
        cls,
        rows: pd.DataFrame,
        read: integers.Table,
        *,
        by: tuple[str, ...],
        key: str | None,
        layout: Layout,
        entities: Mapping[str, bytes],
        tails: Mapping[str, Keys],
    ) -> Self:
        """Join rows, read with lasting codes, with what is stored of their entities."""
        codes = integers.groups(rows, by)
        new = read.order[codes[read.order] >= 0]
        backwards = new[::-1]
        first = np.zeros(int(codes.max(initial=-1)) + 1, dtype=np.intp)
        first[codes[backwards]] = backwards
        names = entity_names(rows, by, first)
        packed = many_of(entities, names, EMPTY)
        stored = np.fromiter(map(len, packed), np.int64, len(packed)) // layout.size
        past = layout.events(b"".join(packed))
        entity = np.concatenate([np.repeat(np.arange(len(names)), stored), codes[new]])
        time = np.concatenate([past["time"], read.time[new]])
        columns = {name: np.concatenate([wide(past[name]), read.columns[name][new]]) for name in layout.keys}
        order = in_time(entity, time)
        counts = np.bincount(entity, minlength=len(names))
        joined = cls(
            names,
            stored,
            new,
            GroupedEvents(order, counts, time, columns, np.concatenate([np.full(len(past), -1), new])),
        )
        if key is not None and len(past):
            joined._order_ties(entity, rows[key], tails)
        return joined

    def to_store(self, layout: Layout, *, open_from: int, most_events: int) -> dict[str, bytes]:
        """What is stored of each entity from now on."""
        order, counts = self.events.order, self.events.counts
        packed = layout.pack({"time": self.events.time[order], **{k: v[order] for k, v in self.events.columns.items()}})
        ends = np.cumsum(counts)
        begins = ends - counts + stored_from(self.events.time[order], counts, layout, open_from, most_events)
        size = layout.size
        cuts = zip((begins * size).tolist(), (ends * size).tolist(), strict=True)
        return dict(zip(self.names, (packed[begin:end] for begin, end in cuts), strict=True))

    def open_keys(self, keys: pd.Series, tails: Mapping[str, Keys], *, open_from: int) -> dict[str, Keys]:
        """The keys of the events that a later row may still tie with."""
        order = self.events.order
        still = np.flatnonzero(self.events.time[order] >= open_from)
        entity = np.repeat(np.arange(len(self.names)), self.events.counts)[still]
        found: dict[str, list[Any]] = {}
        for whose, key in zip(entity.tolist(), self._keys(order[still], entity, keys, tails), strict=True):
            found.setdefault(self.names[whose], []).append(key)
        return {name: tuple(each) for name, each in found.items()}

    def _order_ties(self, entity: Integers, keys: pd.Series, tails: Mapping[str, Keys]) -> None:
        """Order events of the same moment by key where stored and new ones meet."""
        order = self.events.order
        grouped, time = entity[order], self.events.time[order]
        tied = (np.diff(grouped) == 0) & (np.diff(time) == 0)
        old = order < len(order) - len(self.new)
        meet = tied & (old[1:] != old[:-1])
        if not meet.any():
            return
        run = np.concatenate([[0], np.cumsum(~tied)])
        for number in np.unique(run[1:][meet]):
            at = slice(*np.searchsorted(run, [number, number + 1]))
            order[at] = order[at][by_key(self._keys(order[at], grouped[at], keys, tails))]

    def _keys(self, events: Places, entity: Integers, keys: pd.Series, tails: Mapping[str, Keys]) -> list[Any]:
        """The key of each event; None where it is no longer kept, as no row can tie with it."""
        n_stored = int(self.stored.sum())
        ends = np.cumsum(self.stored)
        given = keys.iloc[self.new[np.maximum(events - n_stored, 0)]].tolist()
        past = [self.names[whose] for whose in np.unique(entity[events < n_stored]).tolist()]
        kept = dict(zip(past, many_of(tails, past, ()), strict=True))
        found = []
        for event, whose, key in zip(events.tolist(), entity.tolist(), given, strict=True):
            if event >= n_stored:
                found.append(key)
                continue
            tail, behind = kept[self.names[whose]], int(ends[whose]) - event
            found.append(tail[-behind] if behind <= len(tail) else None)
        return found


def stored_from(time: Times, counts: Integers, layout: Layout, open_from: int, most_events: int) -> Integers:
    """How many of each entity's grouped events no feature will look at again; the latest always stays."""
    old = _each(time <= open_from - layout.reach, counts)
    enough = _each(time < open_from, counts) - most_events
    found: Integers = np.maximum(np.minimum(old, counts - 1), np.maximum(enough, 0))
    return found


def entity_names(rows: pd.DataFrame, by: tuple[str, ...], at: Places) -> list[str]:
    """The name of the entity of the rows at some places; no part of it is missing."""
    parts = [texts(rows[name].take(at)) for name in by]
    return parts[0] if len(parts) == 1 else [SEPARATOR.join(each) for each in zip(*parts, strict=True)]


def texts(column: pd.Series) -> list[Any]:
    """Names as text; None where one is missing.

    >>> texts(pd.Series([7.0, None])), texts(pd.Series(["a", None], dtype="str"))
    (['7', None], ['a', None])
    """
    if isinstance(column.dtype, pd.StringDtype):
        return listed(column)
    numbers, names = pd.factorize(column)
    known = [*map(integers.text, names), None]  # the last for a missing one, whose number is -1
    return [known[number] for number in numbers.tolist()]


def _each(marked: Flags, counts: Integers) -> Integers:
    """How many of each entity's events are marked."""
    total = np.concatenate([[0], np.cumsum(marked)])
    ends = np.cumsum(counts)
    found: Integers = total[ends] - total[ends - counts]
    return found
