"""New rows among the stored past of their entities: lined up, and what of it is kept afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import repeat
from typing import Any, Self

import numpy as np
import pandas as pd

from detector.arrays import Flags, Integers, Places, Times
from detector.features import integers as reading
from detector.features.answers import Lined
from detector.features.one_row import SEPARATOR
from detector.features.ordering import by_key, in_time
from detector.features.record import EMPTY, Layout, wide

Keys = tuple[Any, ...]


@dataclass(frozen=True)
class Joined:
    """The past of some entities and new rows, in order of (time, key).

    Parameters
    ----------
    names : list of str
        The entities.
    stored : array of shape (n_entities,)
        How many events of each come from the past; they are the first events, entity after entity.
    new : array of shape (n_new,)
        The rows behind the other events.
    lined : Lined
        All of them.
    """

    names: list[str]
    stored: Integers
    new: Integers
    lined: Lined

    @classmethod
    def of(
        cls,
        rows: pd.DataFrame,
        read: reading.Table,
        *,
        by: tuple[str, ...],
        key: str | None,
        layout: Layout,
        entities: Mapping[str, bytes],
        tails: Mapping[str, Keys],
    ) -> Self:
        """Line up rows, read with lasting codes, with what is stored of their entities."""
        codes = reading.groups(rows, by)
        new = read.order[codes[read.order] >= 0]
        backwards = new[::-1]
        first = np.zeros(int(codes.max(initial=-1)) + 1, dtype=np.intp)
        first[codes[backwards]] = backwards
        names = entity_names(rows.iloc[first], by)
        packed = list(map(entities.get, names, repeat(EMPTY)))
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
            Lined(order, counts, time, columns, np.concatenate([np.full(len(past), -1), new])),
        )
        if key is not None and len(past):
            joined._settle(entity, rows[key], tails)
        return joined

    def kept(self, layout: Layout, *, open_from: int, most_events: int) -> dict[str, bytes]:
        """What is stored of each entity from now on."""
        order, counts = self.lined.order, self.lined.counts
        packed = layout.pack({"time": self.lined.time[order], **{k: v[order] for k, v in self.lined.columns.items()}})
        ends = np.cumsum(counts)
        begins = ends - counts + kept_from(self.lined.time[order], counts, layout, open_from, most_events)
        size = layout.size
        cuts = zip((begins * size).tolist(), (ends * size).tolist(), strict=True)
        return dict(zip(self.names, (packed[begin:end] for begin, end in cuts), strict=True))

    def open_keys(self, keys: pd.Series, tails: Mapping[str, Keys], *, open_from: int) -> dict[str, Keys]:
        """The keys of the events that a later row may still tie with."""
        order = self.lined.order
        still = np.flatnonzero(self.lined.time[order] >= open_from)
        entity = np.repeat(np.arange(len(self.names)), self.lined.counts)[still]
        found: dict[str, list[Any]] = {}
        for whose, key in zip(entity.tolist(), self._keys(order[still], entity, keys, tails), strict=True):
            found.setdefault(self.names[whose], []).append(key)
        return {name: tuple(each) for name, each in found.items()}

    def _settle(self, entity: Integers, keys: pd.Series, tails: Mapping[str, Keys]) -> None:
        """Order events of the same moment by key where stored and new ones meet."""
        order = self.lined.order
        lined, time = entity[order], self.lined.time[order]
        tied = (np.diff(lined) == 0) & (np.diff(time) == 0)
        old = order < len(order) - len(self.new)
        meet = tied & (old[1:] != old[:-1])
        if not meet.any():
            return
        run = np.concatenate([[0], np.cumsum(~tied)])
        for number in np.unique(run[1:][meet]):
            at = slice(*np.searchsorted(run, [number, number + 1]))
            order[at] = order[at][by_key(self._keys(order[at], lined[at], keys, tails))]

    def _keys(self, events: Places, entity: Integers, keys: pd.Series, tails: Mapping[str, Keys]) -> list[Any]:
        """The key of each event; None where it is no longer kept, as no row can tie with it."""
        n_stored = int(self.stored.sum())
        ends = np.cumsum(self.stored)
        given = keys.iloc[self.new[np.maximum(events - n_stored, 0)]].tolist()
        found = []
        for event, whose, key in zip(events.tolist(), entity.tolist(), given, strict=True):
            if event >= n_stored:
                found.append(key)
                continue
            tail, behind = tails.get(self.names[whose], ()), int(ends[whose]) - event
            found.append(tail[-behind] if behind <= len(tail) else None)
        return found


def kept_from(time: Times, counts: Integers, layout: Layout, open_from: int, most_events: int) -> Integers:
    """How many of each entity's events, lined up, no feature will look at again; the latest always stays."""
    old = _each(time <= open_from - layout.reach, counts)
    enough = _each(time < open_from, counts) - most_events
    found: Integers = np.maximum(np.minimum(old, counts - 1), np.maximum(enough, 0))
    return found


def entity_names(rows: pd.DataFrame, by: tuple[str, ...]) -> list[str]:
    """The name of each row's entity; no part of it is missing."""
    parts = [_texts(rows[name]) for name in by]
    return parts[0] if len(parts) == 1 else [SEPARATOR.join(each) for each in zip(*parts, strict=True)]


def _texts(column: pd.Series) -> list[str]:
    values = column.tolist()
    if pd.api.types.is_integer_dtype(column):
        return list(map(str, values))
    return values if isinstance(column.dtype, pd.StringDtype) else list(map(reading.text, values))


def _each(marked: Flags, counts: Integers) -> Integers:
    """How many of each entity's events are marked."""
    total = np.concatenate([[0], np.cumsum(marked)])
    ends = np.cumsum(counts)
    found: Integers = total[ends] - total[ends - counts]
    return found
