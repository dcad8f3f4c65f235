"""What a window of a track holds: counts, exact sums, spread, largest value, different values, known fraud.

All numbers are whole (amounts in cents), so a prefix sum taken away from another is exact in any order and at any
length. Sums of squares may wrap around 64 bits on the way; taken about the window's own mean they fit again.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from detector.arrays import Floats, Integers
from detector.features.track import NEVER, Bounds, Track

MISSING = np.iinfo(np.int64).min
SAFE = 2.0**61
KNOWN_AT, CLEARED_AT, AGAIN_AT = TURNS = ("known_at", "cleared_at", "again_at")
"""When an event was known to be fraud, when that was taken back, and when it was said again, for good."""
EARTH_KM = 6371.0
CODES = 16  # so many numbers stand for names
DEGREE = 100_000  # places are kept in hundred-thousandths of a degree, about a metre


def known_counts(track: Track, column: str, bounds: Bounds) -> Integers:
    """How many events of each window have a value."""
    prefix = track.cached(("known", column), lambda: _prefix(track.columns[column] != MISSING))
    return _between(prefix, bounds)


def sums(track: Track, column: str, bounds: Bounds) -> Integers:
    """The sum of each window, in units."""
    return _between(track.cached(("sums", column), lambda: _prefix(_filled(track, column))), bounds)


def spreads(track: Track, column: str, bounds: Bounds) -> Floats:
    """The sample standard deviation of each window, in units; NaN below two values."""
    prefix = track.cached(("squares", column), lambda: _prefix(_filled(track, column) ** 2))
    rough = track.cached(("rough", column), lambda: _prefix(_filled(track, column).astype(np.float64) ** 2))
    count, total = known_counts(track, column, bounds), sums(track, column, bounds)
    several = np.maximum(count, 1)
    centre = total // several
    about = _between(prefix, bounds) - 2 * centre * total + several * centre * centre
    large = np.flatnonzero(_between(rough, bounds) - total.astype(np.float64) ** 2 / several > SAFE)
    about = about.astype(np.float64)
    for row in large:
        own = track.columns[column][bounds[0][row] : bounds[1][row]].tolist()
        about[row] = float(sum((value - int(centre[row])) ** 2 for value in own if value != MISSING))
    rest = (total - several * centre).astype(np.float64)
    variance = (about - rest * rest / several) / np.maximum(count - 1, 1)
    return np.where(count > 1, np.sqrt(np.maximum(variance, 0.0)), np.nan)


def largest(track: Track, column: str, bounds: Bounds) -> Integers:
    """The largest value of each window, in units; ``MISSING`` where there is none.

    Runs of 1, 2, 4, ... events are summed up one after the other; two of them cover a window.
    """
    left, right = bounds
    length = right - left
    level = np.frexp(np.maximum(length, 1))[1] - 1
    found = np.full(len(left), MISSING)
    runs, size = track.columns[column], 1
    for depth in range(int(level.max(initial=0)) + 1):
        rows = np.flatnonzero((level == depth) & (length > 0))
        found[rows] = np.maximum(runs[left[rows]], runs[right[rows] - size])
        runs, size = np.maximum(runs[:-size], runs[size:]), size * 2
    return found


def distinct(track: Track, column: str, bounds: Bounds) -> Integers:
    """How many different values each window holds.

    An event stands for its value in the windows that hold it and not the next event of the same value. Windows move
    on only forwards, so these are neighbouring rows: one step up and one down.
    """
    following = track.cached(("following", column), lambda: _neighbours(track, column)[1])
    left, right = bounds
    events = np.arange(len(track))
    first = np.searchsorted(right, events, side="right")
    last = np.minimum(np.searchsorted(right, following, side="right"), np.searchsorted(left, events, side="right"))
    first, last = _of_known(track, column, first, last)
    return _stacked(first, last, len(left))


def is_new(track: Track, column: str, bounds: Bounds) -> Floats:
    """1 if the row's own value is not in its window, 0 if it is; NaN without a value or without a past."""
    earlier = track.cached(("earlier", column), lambda: _neighbours(track, column)[0])[track.at]
    left, right = bounds
    unknown = (track.columns[column][track.at] == MISSING) | (left >= right)
    return np.where(unknown, np.nan, (earlier < left).astype(np.float64))


def since(track: Track, bounds: Bounds) -> Floats:
    """Minutes since the event before; NaN where the window has none."""
    left, right = bounds
    before = track.time[np.maximum(right - 1, 0)]
    return np.where(right > left, (track.time[track.at] - before) / 60e6, np.nan)


def earlier(track: Track, column: str, bounds: Bounds, *, back: int) -> Integers:
    """The value of one event before each row, 0 for the row itself; ``MISSING`` where the window does not reach."""
    place = track.at - back
    there = (place >= bounds[0]) | (back == 0)
    return np.where(there, track.columns[column][np.maximum(place, 0)], MISSING)


def gaps(track: Track, bounds: Bounds, *, back: int) -> Floats:
    """Minutes from one event before each row to the next; NaN where the window does not reach."""
    place = track.at - back
    between = track.time[np.maximum(place + 1, 0)] - track.time[np.maximum(place, 0)]
    return np.where(place >= bounds[0], between / 60e6, np.nan)


def moved(track: Track, latitude: str, longitude: str, bounds: Bounds) -> tuple[Floats, Floats]:
    """Kilometres from the last known place, and hours since, at least a minute; NaN where one is unknown."""
    place = track.columns[latitude] != MISSING
    place &= track.columns[longitude] != MISSING
    marked = np.where(place, np.arange(len(track)), -1)
    latest = np.concatenate([[-1], np.maximum.accumulate(marked)])[bounds[1]]
    known = (latest >= bounds[0]) & place[track.at]
    here, there = track.at, np.maximum(latest, 0)
    (lat, lon), (past_lat, past_lon) = (
        (track.columns[latitude][rows], track.columns[longitude][rows]) for rows in (here, there)
    )
    far = kilometres(lat, lon, past_lat, past_lon)
    hours = np.maximum(track.time[here] - track.time[there], 60_000_000) / 3600e6
    return np.where(known, far, np.nan), hours


def kilometres(latitude: Integers, longitude: Integers, past_latitude: Integers, past_longitude: Integers) -> Floats:
    """The great circle between places in hundred-thousandths of a degree."""
    lat, past = np.radians(latitude / DEGREE), np.radians(past_latitude / DEGREE)
    turn = np.radians((longitude - past_longitude) / DEGREE)
    half = np.sin((lat - past) / 2) ** 2 + np.cos(lat) * np.cos(past) * np.sin(turn / 2) ** 2
    found: Floats = 2 * EARTH_KM * np.arcsin(np.sqrt(np.clip(half, 0, 1)))
    return found


def frauds(track: Track, bounds: Bounds, *, delay: int) -> Integers:
    """How many events of each window were known to be fraud ``delay`` before the row."""
    known, cleared, again = (_turned(track, turn, bounds, delay=delay) for turn in TURNS)
    return known - cleared + again


def _turned(track: Track, turn: str, bounds: Bounds, *, delay: int) -> Integers:
    """How many events of each window had come to a turn ``delay`` before the row."""
    known = track.columns[turn]
    events = np.flatnonzero(known < NEVER - delay)
    when = np.maximum(known[events], track.time[events]) + delay
    first = np.maximum(track.rows_from(track.entity[events], when), track.rows_past(events))
    last = np.searchsorted(bounds[0], events, side="right")
    return _stacked(np.minimum(first, last), last, len(bounds[0]))


def _filled(track: Track, column: str) -> Integers:
    values = track.columns[column]
    return np.where(values == MISSING, 0, values)


def _prefix(values: NDArray[Any]) -> NDArray[Any]:
    total = np.zeros(len(values) + 1, dtype=np.int64 if values.dtype == bool else values.dtype)
    np.cumsum(values, out=total[1:])
    return total


def _between(prefix: NDArray[Any], bounds: Bounds) -> NDArray[Any]:
    result: NDArray[Any] = prefix.take(bounds[1]) - prefix.take(bounds[0])
    return result


def _neighbours(track: Track, column: str) -> tuple[Integers, Integers]:
    """For each event the last one before and the first one behind it of the same entity and value."""
    values = track.columns[column]
    order = np.lexsort((values, track.entity))
    same = (values[order][1:] == values[order][:-1]) & (track.entity[order][1:] == track.entity[order][:-1])
    earlier = np.full(len(track), -1)
    following = np.full(len(track), len(track))
    earlier[order[1:][same]] = order[:-1][same]
    following[order[:-1][same]] = order[1:][same]
    return earlier, following


def _of_known(track: Track, column: str, first: Integers, last: Integers) -> tuple[Integers, Integers]:
    known = track.columns[column] != MISSING
    return first[known], last[known]


def _stacked(first: Integers, last: Integers, rows: int) -> Integers:
    """How many of the stretches from ``first`` to before ``last`` lie over each row."""
    on = first < last
    steps = np.bincount(first[on], minlength=rows + 1) - np.bincount(last[on], minlength=rows + 1)
    result: Integers = np.cumsum(steps)[:rows]
    return result
