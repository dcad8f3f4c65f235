"""What became of one sensor over an event: since when, how far, which way, and in a mechanic's words."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, Self

import numpy as np

from detector.arrays import Flags, Floats

Change = Literal["silent", "stuck", "up", "down", "rises", "falls", "apart", "restless", "untimely", "unlike"]

CLEARLY = 4.0
"""So many times the usual gap between a reading and what was expected is a deviation."""
BEGUN = 0.2
"""A deviation has begun where it is this part of the largest, and clear of the usual gap."""
HALF = 0.5
ONE_SIDED = 0.8
LEANING = 0.35
STEADY = 0.8
"""The least correlation with time that makes a deviation a rise or a fall."""
LEAST_ROWS = 5
LEAST_TIES, LOST_TIES = 0.7, 0.35
"""Correlations above which sensors are said to move together, and below which they no longer do."""
RESTLESS = 2.0
OUT_OF_RANGE = 0.05
"""So far outside the learnt range, in ranges, a reading is too high or too low whatever else it does."""


@dataclass(frozen=True)
class SensorBehaviour:
    """What one sensor did. Steps are counted from the first that was looked at.

    - ``change``: what it is in one word; "apart" if it no longer moves with ``partner``, "untimely" if it
      reads as at another time of the day or the week.
    - ``onset``, ``extreme``, ``end``: where it began, was farthest off, and was off for the last time.
    - ``side``: 1 if it read too high, -1 too low, 0 where neither can be said.
    - ``moved``: how far it went from ``onset`` to ``extreme``, in its own unit, if it rises or falls.
    - ``times``: how many times as restless as before, if it is.
    - ``partner``: the place of the sensor that it moved with.
    """

    change: Change
    onset: int
    extreme: int
    end: int
    side: int = 0
    moved: float = 0.0
    times: float = 0.0
    partner: int | None = None

    def after(self, steps: int) -> Self:
        """The same, counted from so many steps earlier."""
        return replace(self, onset=self.onset + steps, extreme=self.extreme + steps, end=self.end + steps)


@dataclass(frozen=True)
class EventReadings:
    """Readings of one sensor over an event and a little beyond, as what they are compared with knows them.

    - ``values``, (n_steps,): NaN where none came.
    - ``expected``, (n_steps,): what the others, and the time before and after, lead one to expect.
    - ``inside``, (n_steps,): the flagged steps.
    - ``before``: readings of the time before the event, as far as that was quiet.
    - ``gap``: how far readings usually are from what is expected.
    - ``beyond``, (n_steps,): how far readings are outside the learnt range, in ranges, signed; 0 within.
    - ``is_overdue``: whether the sensor was silent for longer than it ever was in training.
    - ``stuck``, (n_steps,): the flagged steps at which it had shown one value for longer, if that is the event.
    """

    values: Floats
    expected: Floats
    inside: Flags
    before: Floats
    gap: float
    beyond: Floats
    is_overdue: bool = False
    stuck: Flags | None = None


def behaviour_of(readings: EventReadings, partners: dict[int, tuple[Floats, float]]) -> SensorBehaviour:
    """Say what a sensor did over an event.

    ``partners`` are the readings of others in the same steps, each with the correlation that was learnt.

    >>> steps = np.arange(20.0)
    >>> readings = EventReadings(
    ...     10 + np.clip(steps - 5, 0, 10), np.full(20, 10.0), steps > 4, np.full(40, 10.0), 0.1, np.zeros(20)
    ... )
    >>> found = behaviour_of(readings, {})
    >>> found.change, found.onset, found.extreme, found.moved
    ('rises', 7, 15, 8.0)
    """
    deviation = np.nan_to_num(readings.values - readings.expected)
    seen = ~np.isnan(readings.values)
    if readings.is_overdue or not seen[readings.inside].any():
        gone = _longest_run(np.where(seen, np.nan, 0.0), readings.inside) or _bounds(readings.inside)
        return SensorBehaviour("silent", gone[0], gone[0], gone[1])
    if readings.stuck is not None:
        first, last = _bounds(readings.stuck)
        return SensorBehaviour("stuck", first, first, last)
    if (held := _stuck(readings)) is not None:
        return held
    largest = float(np.abs(deviation).max())
    share = deviation / largest if largest > 0 else deviation  # the square of a reading may be more than a float holds
    size = share * np.abs(share)
    total = float(np.abs(size).sum())
    leaning = float(size.sum()) / total if total > 0 else 0.0
    side, is_clear = (1 if leaning >= 0 else -1), largest > CLEARLY * readings.gap
    above, below = readings.beyond.max(initial=0.0), -readings.beyond.min(initial=0.0)
    if max(above, below) > OUT_OF_RANGE and min(above, below) < HALF * max(above, below):
        return _to_one_side(readings, deviation, 1 if above > below else -1)
    first, last = _bounds(readings.inside)
    farthest = int(np.argmax(np.abs(deviation)))
    if not (is_clear and abs(leaning) >= ONE_SIDED):
        if (partner := _lost_partner(readings, partners)) is not None:
            return SensorBehaviour("apart", first, farthest, last, partner=partner)
        if (times := _restless(readings)) >= RESTLESS:
            return SensorBehaviour("restless", first, farthest, last, times=times)
    if abs(leaning) < LEANING:
        return SensorBehaviour("unlike", first, farthest, last)
    return _to_one_side(readings, deviation, side)


def _to_one_side(readings: EventReadings, deviation: Floats, side: int) -> SensorBehaviour:
    """A sensor that reads too high, or too low: since when, until when, and whether it got there by and by."""
    lean = side * deviation
    most = float(lean.max())
    begun = np.flatnonzero(lean >= max(BEGUN * most, min(CLEARLY * readings.gap, HALF * most)))
    out = side * readings.beyond > OUT_OF_RANGE  # there a sensor is farthest off where it reads most, or least
    extreme = int(np.argmax(np.where(out, side * readings.beyond, 0.0) if out.any() else lean))
    onset, end = min(*begun[:1].tolist(), extreme, len(lean)), max(*begun[-1:].tolist(), extreme, 0)
    moved = float(readings.values[extreme] - readings.values[onset])
    if side * moved > HALF * most > 0 and _is_steady(lean[onset : extreme + 1]):
        return SensorBehaviour("rises" if side > 0 else "falls", onset, extreme, end, side, abs(moved))
    return SensorBehaviour("up" if side > 0 else "down", onset, extreme, end, side)


def _bounds(inside: Flags) -> tuple[int, int]:
    places = np.flatnonzero(inside)
    return int(places[0]), int(places[-1])


def _stuck(readings: EventReadings) -> SensorBehaviour | None:
    """The longest run of one value that an event touches, if it is longer than any before, of a sensor that moves."""
    run = _longest_run(readings.values, readings.inside)
    if run is None or run[1] - run[0] + 1 < LEAST_ROWS:
        return None
    rows = run[1] - run[0] + 1
    before = readings.before
    if run[0] == 0:  # the run may have begun long before, between events of its own
        begun = int(np.flatnonzero(before != readings.values[0])[-1:].max(initial=-1)) + 1
        before = before[:begun] if begun >= LEAST_ROWS else before
    usual = _longest_run(before, np.ones(len(before), dtype=bool))
    if usual is not None and rows <= 2 * (usual[1] - usual[0] + 1):
        return None
    return SensorBehaviour("stuck", run[0], run[0], run[1]) if 2 * rows >= readings.inside.sum() else None


def _longest_run(values: Floats, touched: Flags) -> tuple[int, int] | None:
    """The first and last place of the longest run of one value that touches some places."""
    best, first = None, 0
    for place in range(1, len(values) + 1):
        if place == len(values) or values[place] != values[place - 1]:
            is_longer = best is None or place - first > best[1] - best[0] + 1
            if not np.isnan(values[first]) and is_longer and touched[first:place].any():
                best = (first, place - 1)
            first = place
    return best


def _is_steady(lean: Floats) -> bool:
    """Whether a deviation grows evenly over at least so many steps."""
    if len(lean) < LEAST_ROWS or np.ptp(lean) == 0:
        return False
    return bool(np.corrcoef(np.arange(len(lean)), lean)[0, 1] >= STEADY)


def _lost_partner(readings: EventReadings, partners: dict[int, tuple[Floats, float]]) -> int | None:
    """The sensor that this one moved with most closely, if it no longer does though that one moves."""
    for partner, (values, learnt) in sorted(partners.items(), key=lambda each: -abs(each[1][1])):
        both = readings.inside & ~np.isnan(readings.values) & ~np.isnan(values)
        if abs(learnt) < LEAST_TIES or both.sum() < 2 * LEAST_ROWS or np.ptp(values[both]) == 0:
            continue
        if np.ptp(readings.values[both]) == 0:
            return partner
        now = float(np.corrcoef(readings.values[both], values[both])[0, 1])
        return partner if np.sign(learnt) * now < LOST_TIES else None
    return None


def _restless(readings: EventReadings) -> float:
    """How many times as large the steps from reading to reading are as before."""
    inside = readings.inside
    if inside.sum() < LEAST_ROWS or len(readings.before) < 2 * LEAST_ROWS:
        return 0.0
    now, usual = (np.abs(np.diff(values)) for values in (readings.values[inside], readings.before))
    usual_step = float(np.nanmean(usual)) if (~np.isnan(usual)).any() else 0.0
    return float(np.nanmean(now)) / usual_step if usual_step > 0 and (~np.isnan(now)).any() else 0.0
