"""What a window of a sequence holds: counts, exact sums, spread, largest value, different values, known fraud.

All numbers are whole (amounts in cents), so a prefix sum taken away from another is exact in any order and at any
length. Sums of squares may wrap around 64 bits on the way; taken about the window's own mean they fit again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detector.arrays import Floats, Integers
from detector.features.events import NEVER, Bounds, EventSequence
from detector.features.feature import OF_ANY, OF_LABEL, OF_PLACE, Feature

MISSING = np.iinfo(np.int64).min
SAFE = 2.0**61
KNOWN_AT, CLEARED_AT, AGAIN_AT = TURNS = ("known_at", "cleared_at", "again_at")
"""When an event was known to be fraud, when that was taken back, and when it was said again, for good."""
EARTH_KM = 6371.0
LEAST_SPREAD = 0.1
CODES = 16  # so many numbers stand for names
DEGREE = 100_000  # places are kept in hundred-thousandths of a degree, about a metre


def known_counts(sequence: EventSequence, column: str, bounds: Bounds) -> Integers:
    """How many events of each window have a value."""
    prefix = sequence.cached(("known", column), lambda: _prefix(sequence.columns[column] != MISSING))
    return _between(prefix, bounds)


def sums(sequence: EventSequence, column: str, bounds: Bounds) -> Integers:
    """The sum of each window, in units."""
    return _between(sequence.cached(("sums", column), lambda: _prefix(_filled(sequence, column))), bounds)


def spreads(sequence: EventSequence, column: str, bounds: Bounds) -> Floats:
    """The sample standard deviation of each window, in units; NaN below two values."""
    prefix = sequence.cached(("squares", column), lambda: _prefix(_filled(sequence, column) ** 2))
    rough = sequence.cached(("rough", column), lambda: _prefix(_filled(sequence, column).astype(np.float64) ** 2))
    count, total = known_counts(sequence, column, bounds), sums(sequence, column, bounds)
    several = np.maximum(count, 1)
    centre = total // several
    about = _between(prefix, bounds) - 2 * centre * total + several * centre * centre
    large = np.flatnonzero(_between(rough, bounds) - total.astype(np.float64) ** 2 / several > SAFE)
    about = about.astype(np.float64)
    for row in large:
        own = sequence.columns[column][bounds[0][row] : bounds[1][row]].tolist()
        about[row] = float(sum((value - int(centre[row])) ** 2 for value in own if value != MISSING))
    rest = (total - several * centre).astype(np.float64)
    variance = (about - rest * rest / several) / np.maximum(count - 1, 1)
    return np.where(count > 1, np.sqrt(np.maximum(variance, 0.0)), np.nan)


def largest(sequence: EventSequence, column: str, bounds: Bounds) -> Integers:
    """The largest value of each window, in units; ``MISSING`` where there is none.

    Runs of 1, 2, 4, ... events are summed up one after the other; two of them cover a window.
    """
    left, right = bounds
    length = right - left
    level = np.frexp(np.maximum(length, 1))[1] - 1
    found = np.full(len(left), MISSING)
    runs, size = sequence.columns[column], 1
    for depth in range(int(level.max(initial=0)) + 1):
        rows = np.flatnonzero((level == depth) & (length > 0))
        found[rows] = np.maximum(runs[left[rows]], runs[right[rows] - size])
        runs, size = np.maximum(runs[:-size], runs[size:]), size * 2
    return found


def distinct(sequence: EventSequence, column: str, bounds: Bounds) -> Integers:
    """How many different values each window holds.

    An event stands for its value in the windows that hold it and not the next event of the same value. Windows move
    on only forwards, so these are neighbouring rows: one step up and one down.
    """
    following = sequence.cached(("following", column), lambda: _neighbours(sequence, column)[1])
    left, right = bounds
    events = np.arange(len(sequence))
    first = np.searchsorted(right, events, side="right")
    last = np.minimum(np.searchsorted(right, following, side="right"), np.searchsorted(left, events, side="right"))
    first, last = _of_known(sequence, column, first, last)
    return _stacked(first, last, len(left))


def is_new(sequence: EventSequence, column: str, bounds: Bounds) -> Floats:
    """1 if the row's own value is not in its window, 0 if it is; NaN without a value or without a past."""
    earlier = sequence.cached(("earlier", column), lambda: _neighbours(sequence, column)[0])[sequence.at]
    left, right = bounds
    unknown = (sequence.columns[column][sequence.at] == MISSING) | (left >= right)
    return np.where(unknown, np.nan, (earlier < left).astype(np.float64))


def since(sequence: EventSequence, bounds: Bounds) -> Floats:
    """Minutes since the event before; NaN where the window has none."""
    left, right = bounds
    before = sequence.time[np.maximum(right - 1, 0)]
    return np.where(right > left, (sequence.time[sequence.at] - before) / 60e6, np.nan)


def earlier(sequence: EventSequence, column: str, bounds: Bounds, *, back: int) -> Integers:
    """The value of one event before each row, 0 for the row itself; ``MISSING`` where the window does not reach."""
    place = sequence.at - back
    there = (place >= bounds[0]) | (back == 0)
    return np.where(there, sequence.columns[column][np.maximum(place, 0)], MISSING)


def gaps(sequence: EventSequence, bounds: Bounds, *, back: int) -> Floats:
    """Minutes from one event before each row to the next; NaN where the window does not reach."""
    place = sequence.at - back
    between = sequence.time[np.maximum(place + 1, 0)] - sequence.time[np.maximum(place, 0)]
    return np.where(place >= bounds[0], between / 60e6, np.nan)


def moved(sequence: EventSequence, place_columns: tuple[str, ...], bounds: Bounds) -> tuple[Floats, Floats]:
    """Kilometres from the last known place, and hours since, at least a minute; NaN where one is unknown."""
    latitude, longitude = place_columns
    place = sequence.columns[latitude] != MISSING
    place &= sequence.columns[longitude] != MISSING
    marked = np.where(place, np.arange(len(sequence)), -1)
    latest = np.concatenate([[-1], np.maximum.accumulate(marked)])[bounds[1]]
    known = (latest >= bounds[0]) & place[sequence.at]
    here, there = sequence.at, np.maximum(latest, 0)
    (lat, lon), (past_lat, past_lon) = (
        (sequence.columns[latitude][rows], sequence.columns[longitude][rows]) for rows in (here, there)
    )
    far = kilometres(lat, lon, past_lat, past_lon)
    hours = np.maximum(sequence.time[here] - sequence.time[there], 60_000_000) / 3600e6
    return np.where(known, far, np.nan), hours


def kilometres(latitude: Integers, longitude: Integers, past_latitude: Integers, past_longitude: Integers) -> Floats:
    """The great circle between places in hundred-thousandths of a degree."""
    lat, past = np.radians(latitude / DEGREE), np.radians(past_latitude / DEGREE)
    turn = np.radians((longitude - past_longitude) / DEGREE)
    half = np.sin((lat - past) / 2) ** 2 + np.cos(lat) * np.cos(past) * np.sin(turn / 2) ** 2
    found: Floats = 2 * EARTH_KM * np.arcsin(np.sqrt(np.clip(half, 0, 1)))
    return found


def frauds(sequence: EventSequence, bounds: Bounds, *, delay: int) -> Integers:
    """How many events of each window were known to be fraud ``delay`` before the row."""
    known, cleared, again = (_turned(sequence, turn, bounds, delay=delay) for turn in TURNS)
    return known - cleared + again


def _turned(sequence: EventSequence, turn: str, bounds: Bounds, *, delay: int) -> Integers:
    """How many events of each window had come to a turn ``delay`` before the row."""
    known = sequence.columns[turn]
    events = np.flatnonzero(known < NEVER - delay)
    when = np.maximum(known[events], sequence.time[events]) + delay
    first = np.maximum(sequence.rows_from(sequence.entity[events], when), sequence.rows_beyond(events))
    last = np.searchsorted(bounds[0], events, side="right")
    return _stacked(np.minimum(first, last), last, len(bounds[0]))


def _filled(sequence: EventSequence, column: str) -> Integers:
    values = sequence.columns[column]
    return np.where(values == MISSING, 0, values)


def _prefix(values: NDArray[Any]) -> NDArray[Any]:
    total = np.zeros(len(values) + 1, dtype=np.int64 if values.dtype == bool else values.dtype)
    np.cumsum(values, out=total[1:])
    return total


def _between(prefix: NDArray[Any], bounds: Bounds) -> NDArray[Any]:
    result: NDArray[Any] = prefix.take(bounds[1]) - prefix.take(bounds[0])
    return result


def _neighbours(sequence: EventSequence, column: str) -> tuple[Integers, Integers]:
    """For each event the last one before and the first one behind it of the same entity and value."""
    values = sequence.columns[column]
    order = np.lexsort((values, sequence.entity))
    same = (values[order][1:] == values[order][:-1]) & (sequence.entity[order][1:] == sequence.entity[order][:-1])
    earlier = np.full(len(sequence), -1)
    following = np.full(len(sequence), len(sequence))
    earlier[order[1:][same]] = order[:-1][same]
    following[order[:-1][same]] = order[1:][same]
    return earlier, following


def _of_known(sequence: EventSequence, column: str, first: Integers, last: Integers) -> tuple[Integers, Integers]:
    known = sequence.columns[column] != MISSING
    return first[known], last[known]


def _stacked(first: Integers, last: Integers, rows: int) -> Integers:
    """How many of the ranges from ``first`` to before ``last`` lie over each row."""
    on = first < last
    steps = np.bincount(first[on], minlength=rows + 1) - np.bincount(last[on], minlength=rows + 1)
    result: Integers = np.cumsum(steps)[:rows]
    return result


def column_keys(feature: Feature) -> tuple[str, ...]:
    """What an event sequence must carry for a feature.

    >>> column_keys(Feature("mean", by=("card",), of=("amount",), window=1))
    ('number:amount',)
    """
    kind = "place" if feature.measure in OF_PLACE else "name" if feature.measure in OF_ANY else "number"
    return TURNS if feature.measure in OF_LABEL else tuple(f"{kind}:{name}" for name in feature.of)


def measure(feature: Feature, sequence: EventSequence, *, scale: int) -> Floats:
    """The feature of each queried row, in the units of the table.

    Integers are 0 where a window is empty; everything else is NaN where it is not defined: a mean without a value, a
    deviation of fewer than two, a ratio to a mean that is not positive.
    """
    bounds = sequence.bounds(window=feature.window, delay=feature.delay, with_row=feature.with_row)
    return _MEASURES[feature.measure](_Query(feature, sequence, bounds, scale, column_keys(feature)))


@dataclass(frozen=True)
class _Query:
    """A feature, the events it is measured of, and the window of each row."""

    feature: Feature
    events: EventSequence
    bounds: Bounds
    scale: int
    keys: tuple[str, ...]

    @property
    def where(self) -> tuple[EventSequence, str, Bounds]:
        """Events, the one column that is measured, and windows."""
        return self.events, self.keys[0], self.bounds

    def in_units(self, values: Integers) -> Floats:
        """Whole numbers in the units of the table; NaN where missing."""
        return np.where(values == MISSING, np.nan, values / self.scale)


def _count(query: _Query) -> Floats:
    return (query.bounds[1] - query.bounds[0]).astype(np.float64)


def _mean(query: _Query) -> Floats:
    count, total = known_counts(*query.where), sums(*query.where)
    return np.where(count > 0, total / (np.maximum(count, 1) * query.scale), np.nan)


def _ratio(query: _Query) -> Floats:
    own, mean = _own(query), _mean(query)
    positive = mean > 0
    return np.where(positive, own / np.where(positive, mean, 1.0), np.nan)


def _zscore(query: _Query) -> Floats:
    """Deviations from the mean; a deviation counts as at least a tenth of the mean, and as one unit."""
    mean, spread = _mean(query), spreads(*query.where) / query.scale
    least = np.maximum(LEAST_SPREAD * np.abs(mean), 1 / query.scale)
    return (_own(query) - mean) / np.maximum(spread, least)


def _own(query: _Query) -> Floats:
    return query.in_units(query.events.columns[query.keys[0]][query.events.at])


def _speed(query: _Query) -> Floats:
    far, hours = moved(query.events, query.keys, query.bounds)
    return far / hours


def _frauds(query: _Query) -> Floats:
    return frauds(query.events, query.bounds, delay=query.feature.delay).astype(np.float64)


def _risk(query: _Query) -> Floats:
    count = query.bounds[1] - query.bounds[0]
    return np.where(count > 0, _frauds(query) / np.maximum(count, 1), np.nan)


def _code(query: _Query) -> Floats:
    found = earlier(*query.where, back=query.feature.back)
    return np.where(found == MISSING, np.nan, (found % CODES).astype(np.float64))


_MEASURES: dict[str, Callable[[_Query], Floats]] = {
    "count": _count,
    "sum": lambda query: sums(*query.where) / query.scale,
    "mean": _mean,
    "std": lambda query: spreads(*query.where) / query.scale,
    "max": lambda query: query.in_units(largest(*query.where)),
    "ratio": _ratio,
    "zscore": _zscore,
    "distinct": lambda query: distinct(*query.where).astype(np.float64),
    "new": lambda query: is_new(*query.where),
    "since": lambda query: since(query.events, query.bounds),
    "distance": lambda query: moved(query.events, query.keys, query.bounds)[0],
    "speed": _speed,
    "frauds": _frauds,
    "risk": _risk,
    "last": lambda query: query.in_units(earlier(*query.where, back=query.feature.back)),
    "gap": lambda query: gaps(query.events, query.bounds, back=query.feature.back),
    "code": _code,
}
