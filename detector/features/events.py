"""Events of the same entities side by side, each entity's in order of (time, key), and where windows begin."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from detector.arrays import Integers, Places, Times

Bounds = tuple[Integers, Integers]

SECOND = 1_000_000
NEVER = np.iinfo(np.int64).max
MOST = 1 << 62


@dataclass
class EventSequence:
    """The events of one way to group rows; entities lie one behind the other.

    - ``entity``, (n_events,): codes from 0, ascending.
    - ``time``, (n_events,): microseconds, ascending within an entity; ties are in order of the key.
    - ``at``, (n_rows,): ascending positions of the queried events; all in a batch, the new ones after a
      stored past.
    - ``most_events``: how many events of an entity a window holds at most: those just before the row.
    - ``columns``, (n_events,): what the events carry.
    """

    entity: Integers
    time: Times
    at: Integers
    most_events: int
    columns: dict[str, NDArray[Any]] = field(default_factory=dict)
    _cache: dict[Any, Any] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.time)

    def bounds(self, *, window: int, delay: int = 0, with_row: bool = False) -> Bounds:
        """For each queried row, the first event of its window and the one behind its last."""
        known = self._cache.get((window, delay, with_row))
        if known is None:
            left = self._left(window + delay)
            if delay:
                right = np.maximum(np.minimum(self.first_after(delay), self.at), left)
            else:
                right = self.at + 1 if with_row else self.at
            known = self._cache[window, delay, with_row] = (left, right)
        return known

    def _left(self, reach: int) -> Integers:
        known: Integers | None = self._cache.get(reach)
        if known is None:
            known = self._cache[reach] = np.maximum(self.first_after(reach), self.at - self.most_events)
        return known

    def first_after(self, age: int) -> Integers:
        """For each queried row, the first event of its entity that is younger than ``age``."""
        place = self._places()
        return place.positions(self.entity[self.at], self.time[self.at] - age, side="right")

    def rows_from(self, entity: Integers, time: Times) -> Integers:
        """Number of the first queried row of each entity at or after each time."""
        place = self._places()
        position = place.positions(entity, time, side="left")
        return np.searchsorted(self.at, position, side="left")

    def rows_beyond(self, positions: Integers) -> Integers:
        """Number of the first queried row whose own position is beyond each position."""
        return np.searchsorted(self.at, positions, side="right")

    def cached(self, name: Any, make: Any) -> Any:
        """What ``make`` returns, made once."""
        if name not in self._cache:
            self._cache[name] = make()
        return self._cache[name]

    def _places(self) -> _Places:
        known: _Places = self.cached("places", lambda: _Places.of(self.entity, self.time))
        return known


@dataclass(frozen=True)
class _Places:
    """Entity and time as one ascending number, so that one search finds a place in an entity's events.

    Whole seconds, or numbers of moments where microseconds would not fit beside the entity in 64 bits.
    """

    combined: Integers
    origin: int
    span: int
    unit: int
    moments: Integers | None

    @classmethod
    def of(cls, entity: Integers, time: Times) -> _Places:
        if not len(time):
            return cls(time, 0, 2, 1, None)
        origin, last = int(time.min()), int(time.max())
        entities = int(entity[-1]) + 1
        for unit in (1, SECOND):
            span = (last - origin) // unit + 2
            if span < MOST // entities and (unit == 1 or not np.any((time - origin) % SECOND)):
                return cls(entity * span + (time - origin) // unit + 1, origin, span, unit, None)
        moments, moment = np.unique(time, return_inverse=True)
        span = len(moments) + 1
        return cls(entity * span + moment + 1, origin, span, 1, moments)

    def positions(self, entity: Integers, time: Times, *, side: str) -> Integers:
        """The first position of each entity with an event after (``right``) or from (``left``) a time on."""
        if self.moments is not None:
            before = np.searchsorted(self.moments, time, side=side)  # type: ignore[call-overload]  # "left" or "right"
            return np.asarray(np.searchsorted(self.combined, entity * self.span + before, side="right"))
        since = time - self.origin
        # With whole seconds between all events, a time between two seconds comes before the later one.
        whole = since // self.unit if side == "right" else -(-since // self.unit) - 1
        wanted = entity * self.span + np.clip(whole + 1, 0, self.span - 1)
        return np.asarray(np.searchsorted(self.combined, wanted, side="right"))


HALF = 16


def by_entity(entity: Integers, order: Places) -> tuple[Places, Integers]:
    """Entity after entity, each in the order given, and how many rows each has; rows without one (-1) are left out.

    >>> by_entity(np.array([1, -1, 0, 1]), np.array([3, 2, 1, 0]))
    (array([2, 3, 0]), array([1, 2]))
    """
    if len(entity) and int(entity.min()) < 0:
        order = order[entity[order] >= 0]
    given = entity[order]
    return order[stable(given)], np.bincount(given)


def stable(entity: Integers) -> Places:
    """``argsort`` that keeps the order of equals, for codes from 0: by halves, as NumPy counts short integers.

    >>> stable(np.array([70_000, 1, 70_000, 0]))
    array([3, 1, 0, 2])
    """
    largest = int(entity.max(initial=0))
    if largest >= 1 << (2 * HALF):
        return np.argsort(entity, kind="stable")
    first = np.argsort((entity & 0xFFFF).astype(np.uint16), kind="stable")
    if largest < 1 << HALF:
        return first
    return first[np.argsort((entity[first] >> HALF).astype(np.uint16), kind="stable")]


def in_time(entity: Integers, time: Times) -> Places:
    """Entity after entity, each in order of time; equals stay as they are.

    >>> in_time(np.array([0, 0, 0]), np.array([2, 1, 2]))
    array([1, 0, 2])
    """
    order = stable(entity)
    back = (np.diff(time[order]) < 0) & (np.diff(entity[order]) == 0)
    return np.lexsort((time, entity)) if back.any() else order


def by_key(events: list[Any]) -> Places:
    """Positions in order of keys of any kind; None stays where it is.

    >>> by_key(["b", "a"])
    array([1, 0])
    """
    return np.argsort(pd.factorize(pd.Series(events, dtype=object), sort=True)[0], kind="stable")
