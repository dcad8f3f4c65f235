"""The same measures as in ``measure``, of one event among those of its entity: no array longer than it has to be.

A number is whole until the last division, so both ways agree to the last bit; a test holds them to it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import nan, sqrt
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from detector.arrays import Integers, Times
from detector.features.feature import Feature
from detector.features.layout import wide
from detector.features.measures import CODES, LEAST_SPREAD, MISSING, TURNS, column_keys, kilometres

MOST_SQUARES = 2.0**62


@dataclass(frozen=True)
class Query:
    """A feature with all that can be known of it beforehand."""

    name: str
    answer: Callable[[EntityEvents, Query], float]
    keys: tuple[str, ...]
    window: tuple[int, int, bool]
    back: int

    @classmethod
    def of(cls, feature: Feature) -> Self:
        """Prepare a feature."""
        window = (feature.reach, feature.delay, feature.with_row)
        return cls(feature.name, _ANSWERS[feature.measure], column_keys(feature), window, feature.back)


class EntityEvents:
    """The events of one entity, seen from one of them.

    - ``events``, (n_events,): as a layout stores them, in order, the queried one among them.
    - ``at``: which that is.
    - ``most_events``: see ``FeatureSet``.
    - ``scale``: units to one.
    """

    def __init__(self, events: NDArray[Any], at: int, *, most_events: int, scale: int) -> None:
        self.events, self.at, self.scale = events, at, scale
        self.first = max(0, at - most_events)
        self.time: Times = np.ascontiguousarray(events["time"])
        self.now = int(self.time[at])
        self._windows: dict[tuple[int, int, bool], tuple[int, int]] = {}
        self._columns: dict[str, tuple[Integers, Integers | None, Integers]] = {}

    def bounds(self, query: Query) -> tuple[int, int]:
        """The first event of the window, and the one behind its last."""
        found = self._windows.get(query.window)
        if found is None:
            reach, delay, with_row = query.window
            left = max(int(self.time.searchsorted(self.now - reach, "right")), self.first)
            if delay:
                right = max(min(int(self.time.searchsorted(self.now - delay, "right")), self.at), left)
            else:
                right = self.at + with_row
            found = self._windows[query.window] = (left, right)
        return found

    def own(self, key: str) -> int:
        """The value of the event itself."""
        return int(self.column(key)[0][self.at])

    def column(self, key: str) -> tuple[Integers, Integers | None, Integers]:
        """Values, how many are known up to each (None if all are), and sums up to each."""
        found = self._columns.get(key)
        if found is None:
            values = wide(self.events[key])
            known, filled = None, values
            if key.startswith("number:") and int(values.min()) == MISSING:
                there = values != MISSING
                known, filled = there.cumsum(), np.where(there, values, 0)
            found = self._columns[key] = (values, known, filled.cumsum())
        return found

    def known(self, query: Query) -> int:
        """How many events of the window have a value."""
        left, right = self.bounds(query)
        known = self.column(query.keys[0])[1]
        return right - left if known is None else _between(known, left, right)

    def total(self, query: Query) -> int:
        """The sum of the window, in units."""
        return _between(self.column(query.keys[0])[2], *self.bounds(query))

    def cut(self, query: Query) -> Integers:
        """The values of the window."""
        left, right = self.bounds(query)
        return self.column(query.keys[0])[0][left:right]


def _between(sums: Integers, left: int, right: int) -> int:
    if left >= right:
        return 0
    return int(sums[right - 1]) - (int(sums[left - 1]) if left else 0)


def _count(seen: EntityEvents, query: Query) -> float:
    left, right = seen.bounds(query)
    return float(right - left)


def _mean(seen: EntityEvents, query: Query) -> float:
    count = seen.known(query)
    return float(seen.total(query)) / float(count * seen.scale) if count else nan


def _std(seen: EntityEvents, query: Query) -> float:
    count, total = seen.known(query), seen.total(query)
    if count < 2:
        return nan
    centre = total // count
    values = seen.cut(query)
    apart = (values if count == len(values) else values[values != MISSING]) - centre
    top = max(float(apart.max()), -float(apart.min()))
    exact = top * top * count < MOST_SQUARES
    about = float(int(apart.dot(apart)) if exact else sum(value * value for value in apart.tolist()))
    rest = float(total - count * centre)
    variance = (about - rest * rest / count) / (count - 1)
    return sqrt(max(variance, 0.0)) / seen.scale


def _max(seen: EntityEvents, query: Query) -> float:
    values = seen.cut(query)
    largest = int(values.max()) if len(values) else MISSING
    return nan if largest == MISSING else float(largest) / seen.scale


def _ratio(seen: EntityEvents, query: Query) -> float:
    mean = _mean(seen, query)
    return _own(seen, query) / mean if mean > 0 else nan


def _zscore(seen: EntityEvents, query: Query) -> float:
    mean, spread = _mean(seen, query), _std(seen, query)
    if spread != spread:
        return nan
    return (_own(seen, query) - mean) / max(spread, LEAST_SPREAD * abs(mean), 1 / seen.scale)


def _own(seen: EntityEvents, query: Query) -> float:
    own = seen.own(query.keys[0])
    return nan if own == MISSING else float(own) / seen.scale


def _distinct(seen: EntityEvents, query: Query) -> float:
    values = set(seen.cut(query).tolist())
    return float(len(values) - (MISSING in values))


def _new(seen: EntityEvents, query: Query) -> float:
    values, own = seen.cut(query), seen.own(query.keys[0])
    return nan if own == MISSING or not len(values) else float(not (values == own).any())


def _since(seen: EntityEvents, query: Query) -> float:
    left, right = seen.bounds(query)
    return float(seen.now - int(seen.time[right - 1])) / 60e6 if right > left else nan


def _speed(seen: EntityEvents, query: Query) -> float:
    far, hours = _moved(seen, query)
    return far / hours


def _moved(seen: EntityEvents, query: Query) -> tuple[float, float]:
    left, right = seen.bounds(query)
    latitude, longitude = (seen.column(key)[0] for key in query.keys)
    here = slice(seen.at, seen.at + 1)
    places = np.flatnonzero((latitude[left:right] != MISSING) & (longitude[left:right] != MISSING))
    if not len(places) or latitude[seen.at] == MISSING or longitude[seen.at] == MISSING:
        return nan, 1.0
    there = slice(last := left + int(places[-1]), last + 1)
    far = kilometres(latitude[here], longitude[here], latitude[there], longitude[there])
    return float(far[0]), float(max(seen.now - int(seen.time[last]), 60_000_000)) / 3600e6


def _frauds(seen: EntityEvents, query: Query) -> float:
    left, right = seen.bounds(query)
    until = seen.now - query.window[1]
    known, cleared, again = (np.count_nonzero(seen.events[turn][left:right] <= until) for turn in TURNS)
    return float(known - cleared + again)


def _risk(seen: EntityEvents, query: Query) -> float:
    left, right = seen.bounds(query)
    return _frauds(seen, query) / float(right - left) if right > left else nan


def _last(seen: EntityEvents, query: Query) -> float:
    found = _earlier(seen, query)
    return nan if found == MISSING else float(found) / seen.scale


def _gap(seen: EntityEvents, query: Query) -> float:
    place = seen.at - query.back
    return float(int(seen.time[place + 1]) - int(seen.time[place])) / 60e6 if place >= seen.bounds(query)[0] else nan


def _code(seen: EntityEvents, query: Query) -> float:
    found = _earlier(seen, query)
    return nan if found == MISSING else float(found % CODES)


def _earlier(seen: EntityEvents, query: Query) -> int:
    place = seen.at - query.back
    there = not query.back or place >= seen.bounds(query)[0]
    return int(seen.column(query.keys[0])[0][place]) if there else MISSING


_ANSWERS: dict[str, Callable[[EntityEvents, Query], float]] = {
    "count": _count,
    "sum": lambda seen, query: float(seen.total(query)) / seen.scale,
    "mean": _mean,
    "std": _std,
    "max": _max,
    "ratio": _ratio,
    "zscore": _zscore,
    "distinct": _distinct,
    "new": _new,
    "since": _since,
    "distance": lambda seen, query: _moved(seen, query)[0],
    "speed": _speed,
    "frauds": _frauds,
    "risk": _risk,
    "last": _last,
    "gap": _gap,
    "code": _code,
}
