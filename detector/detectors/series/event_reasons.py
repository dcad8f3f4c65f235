"""Why a segment was flagged, as a mechanic would say it: the sensor at fault first, and what each did."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from detector.arrays import Counts, Flags, Floats
from detector.detectors.series.behaviour import OUT_OF_RANGE, EventReadings, SensorBehaviour, behaviour_of
from detector.detectors.series.blame import first_of, redealt, ties
from detector.detectors.series.event_windows import EventWindows
from detector.detectors.series.meters import is_meter, ran_backwards, stood_from
from detector.detectors.series.model import ModelledSeries
from detector.detectors.series.reasons import SensorReadings, duration, range_of, ranked, run_before, since
from detector.explain.reason import Reason, reading
from detector.series.flatline import MOST_STEPS
from detector.series.gates import Gates, SensorGate
from detector.series.rhythm import DAY
from detector.series.segments import reach

MOST_SUSPECTS = 12
"""Sensors, those that add most to the risk, of which it is found out what goes with them."""
BEFORE = 64
"""Steps before an event that say how far from what is expected a sensor usually is."""
LEAST_GAP = 0.01
"""The least that this counts, in ranges."""
LEAST_BEFORE = 8
VAGUE = ("unlike", "apart", "restless", "up", "down")
UNTIMELY = 3.0
"""So many usual distances from what is usual at its time, a reading is unlike its time."""
DIRECTIONS = {1: "up", -1: "down", 0: ""}


@dataclass(frozen=True)
class EventFacts:
    """What is said of an event.

    - ``reasons``: the sensors at fault, the most important first.
    - ``onset``, ``extreme``, ``end``: the steps at which the first of them began to be off, was farthest off, and was
      off for the last time.
    - ``change``: what that one did: "up", "rises", "stuck" and so on, see ``SensorBehaviour``.
    - ``direction``: "up", "down", or empty where it is neither.
    """

    reasons: list[Reason]
    onset: int
    extreme: int
    end: int
    change: str
    direction: str


@dataclass(frozen=True)
class EventReasons:
    """Events of the steps of one model.

    - ``readings``: of all series.
    - ``seen``, ``place``: the steps of the model, and their places among all.
    - ``flagged``: of all steps, so that time that was quiet is known.
    - ``gates``: units and limits of sensors.
    - ``outside``: of all steps, where a sensor reads beyond its limits.
    """

    readings: SensorReadings
    seen: ModelledSeries
    place: Counts
    flagged: Flags
    gates: Gates
    outside: Flags

    def of(self, steps: Counts, parts: Floats) -> EventFacts:
        """An event of these flagged steps; ``parts`` is what each sensor adds to the risk of every step."""
        moving, sticks = np.flatnonzero(self.seen.model.scaling.moving), self._sticks(steps, parts)
        blamed = self._without_healthy(self.readings.blamed(steps, parts), steps)
        own = np.zeros(len(self.place), dtype=bool)
        own[np.searchsorted(self.place, steps)] = True
        windows = EventWindows.over(self.seen, own)
        if windows is not None:
            by_itself = self.readings.overdue[steps].any(axis=0) | sticks  # a fault that others do not see
            speaking = moving[~by_itself[moving]]
            suspects = speaking[np.argsort(-blamed[speaking], kind="stable")[:MOST_SUSPECTS]]
            explained = windows.explained(np.searchsorted(moving, suspects))
            blamed = redealt(blamed, dict(zip(suspects.tolist(), explained.tolist(), strict=True)))
        blamed = first_of(blamed, np.asarray(self.outside[steps].any(axis=0)))
        found = [
            (sensor, share, *self._behaviour(sensor, steps, sticks=bool(sticks[sensor])))
            for sensor, share in ranked(blamed)
        ]
        reasons = [self._reason(*each, steps) for each in found]
        first = found[0][2]
        return EventFacts(reasons, first.onset, first.extreme, first.end, first.change, DIRECTIONS[first.side])

    def _sticks(self, steps: Counts, parts: Floats) -> Flags:
        """The sensors that add most of what they add where they show one value for too long."""
        stuck, own = self.readings.stuck[steps], np.maximum(parts[steps], 0.0)
        return np.asarray(stuck.any(axis=0) & (2 * np.where(stuck, own, 0.0).sum(axis=0) >= own.sum(axis=0)))

    def _without_healthy(self, blamed: Floats, steps: Counts) -> Floats:
        """No blame for a sensor that reads as expected all along, if there is another: its fault was elsewhere."""
        model, first, last = self.seen.model, int(steps[0]), int(steps[-1])
        aside = min(reach(model.smoothing), max(1, model.length // 4))
        begin, end = self._within(first, first - aside, last + (0 if model.recipe.trailing else aside))
        off = np.abs(self.readings.deviation[begin:end]).max(axis=0) > model.scaling.resolution
        off |= (self.readings.overdue[begin:end] | self.readings.stuck[begin:end]).any(axis=0)
        kept = np.where(off, blamed, 0.0)
        return kept if kept.any() else blamed

    def _behaviour(self, sensor: int, steps: Counts, *, sticks: bool) -> tuple[SensorBehaviour, float]:
        """What a sensor did, in steps of all series, and what it should have read where it was farthest off."""
        model, first, last = self.seen.model, int(steps[0]), int(steps[-1])
        aside = min(reach(model.smoothing), max(1, model.length // 4))
        begin, end = self._within(first, first - aside, last + (0 if model.recipe.trailing else aside))
        quiet = self._quiet(first, begin)
        values = self._values(begin, end, sensor)
        inside = np.zeros(end - begin, dtype=bool)
        inside[steps - begin] = True
        gap = LEAST_GAP * float(model.scaling.span[sensor] or 1.0)
        if len(quiet) >= LEAST_BEFORE:
            usual = np.abs(self._read(quiet, sensor) - self._expected(quiet, sensor))
            gap = max(gap, float(np.nanmedian(usual)) if (~np.isnan(usual)).any() else 0.0)
        expected = self._expected(np.arange(begin, end), sensor)
        overdue = bool(self.readings.overdue[steps, sensor].any())
        event_readings = EventReadings(
            values, expected, inside, self._read(quiet, sensor), gap, self._beyond(values, sensor), overdue
        )
        if sticks:
            event_readings = replace(event_readings, stuck=inside & self.readings.stuck[begin:end, sensor])
        partners = {other: (self._values(begin, end, other), tie) for other, tie in ties(model, sensor).items()}
        found = behaviour_of(event_readings, partners)
        timely = self._at_this_time(sensor, np.arange(begin, end))
        vague = found.change in VAGUE and abs(event_readings.beyond[found.extreme]) <= OUT_OF_RANGE
        if timely is not None and vague and _is_untimely(values, timely[0], timely[1], inside):
            expected = timely[0]
            found = replace(behaviour_of(replace(event_readings, expected=expected), {}), change="untimely")
        found = self._beyond_limits(found, sensor, begin, end)
        should = float(expected[found.extreme])
        found = self._from_its_begin(found.after(begin), sensor)
        return replace(found, onset=min(found.onset, self._stood_from(found, sensor) or found.onset)), should

    def _at_this_time(self, sensor: int, steps: Counts) -> tuple[Floats, Floats] | None:
        """What a sensor usually reads at the times of steps, and how far it usually is from that."""
        model, times = self.seen.model, self.readings.series.times
        if model.phase is None or times is None or not model.scaling.moving[sensor]:
            return None
        part, place = model.phase.rhythm.of(times[steps]), int(model.scaling.moving[:sensor].sum())
        span, low = float(model.scaling.span[sensor]), float(model.scaling.low[sensor])
        return model.phase.middle[part, place] * span + low, model.phase.scale[part, place] * span

    def _beyond_limits(self, behaviour: SensorBehaviour, sensor: int, begin: int, end: int) -> SensorBehaviour:
        """A sensor that reads beyond its limits is farthest off where it is farthest beyond them."""
        if not self.outside[begin:end, sensor].any():
            return behaviour
        gate, values = self.gates.of(self.readings.series.sensors[sensor]), self._values(begin, end, sensor)
        beyond = np.nan_to_num(np.maximum(values - gate.high, gate.low - values), nan=-np.inf)
        extreme, places = int(np.argmax(beyond)), np.flatnonzero(self.outside[begin:end, sensor])
        side = 1 if values[extreme] > gate.high else -1
        if behaviour.side == side:
            onset, end = min(behaviour.onset, extreme), max(behaviour.end, extreme)
            return replace(behaviour, extreme=extreme, onset=onset, end=end)
        return SensorBehaviour("up" if side > 0 else "down", int(places[0]), extreme, int(places[-1]), side)

    def _from_its_begin(self, behaviour: SensorBehaviour, sensor: int) -> SensorBehaviour:
        """Of silence and of one value, the onset is where it began, before the event: it is flagged once it lasts."""
        if behaviour.change not in ("silent", "stuck"):
            return behaviour
        begin, _ = self._within(behaviour.onset, 0, behaviour.onset)
        before = self._values(begin, behaviour.onset, sensor)
        if behaviour.change == "stuck":
            read = np.append(np.flatnonzero(~np.isnan(before)), len(before))
            values = self._values(begin, behaviour.onset + 1, sensor)[read]
            onset = begin + int(read[run_before(values)])
        else:
            read = np.flatnonzero(~np.isnan(before))
            onset = begin + int(read[-1]) + 1 if len(read) else begin
        return replace(behaviour, onset=onset, extreme=onset)

    def _stood_from(self, behaviour: SensorBehaviour, sensor: int) -> int | None:
        """Since which step a meter had stood still that then counted at once what it had missed."""
        step, series = behaviour.extreme, self.readings.series
        if behaviour.change in ("silent", "stuck") or not is_meter(series, sensor):
            return None
        begin, _ = self._within(step, step - MOST_STEPS, step)
        return stood_from(series, sensor, step, self._expected(np.arange(begin, step + 1), sensor))

    def _is_first(self, behaviour: SensorBehaviour) -> bool:
        """Whether a sensor sticks since the first row that is known, of a file or of what a service keeps."""
        codes = self.readings.series.codes
        begins = behaviour.onset == 0 or codes[behaviour.onset - 1] != codes[behaviour.onset]
        return bool(behaviour.change == "stuck" and begins)

    def _within(self, step: int, first: int, end: int) -> tuple[int, int]:
        """The steps from one to another that are of the segment of a step; the step after the last."""
        segment = self.readings.series.segment
        first, end = max(first, 0), min(end + 1, len(segment))
        same = np.flatnonzero(segment[first:end] == segment[step])
        return first + int(same[0]), first + int(same[-1]) + 1

    def _quiet(self, step: int, begin: int) -> Counts:
        """Up to so many steps before an event that were not flagged."""
        steps = np.arange(max(begin - 2 * BEFORE, 0), begin)
        segment = self.readings.series.segment
        return np.asarray(steps[(segment[steps] == segment[step]) & ~self.flagged[steps]][-BEFORE:])

    def _values(self, begin: int, end: int, sensor: int) -> Floats:
        return self._read(np.arange(begin, end), sensor)

    def _read(self, steps: Counts | list[int], sensor: int) -> Floats:
        series = self.readings.series
        return np.asarray(np.where(series.observed[steps, sensor], series.values[steps, sensor], np.nan))

    def _expected(self, steps: Counts, sensor: int) -> Floats:
        """What a sensor should have read, by the others and by the time around, within the range of training."""
        model = self.seen.model
        rebuilt = self.readings.expected[steps, sensor]
        if not model.scaling.moving[sensor]:
            return np.asarray(rebuilt)
        own = np.zeros(len(self.place), dtype=bool)
        own[np.searchsorted(self.place, steps)] = True
        windows = EventWindows.over(self.seen, own)
        if windows is None:
            return np.asarray(rebuilt)
        place = int(model.scaling.moving[:sensor].sum())
        scaled = windows.expected(place, len(self.place))[np.searchsorted(self.place, steps)]
        low, high = (float(each[sensor]) for each in range_of(model))
        found = np.clip(scaled * model.scaling.span[sensor] + model.scaling.low[sensor], low, high)
        return np.asarray(np.where(np.isnan(found), rebuilt, found))

    def _reason(self, sensor: int, share: float, behaviour: SensorBehaviour, expected: float, steps: Counts) -> Reason:
        series, first = self.readings.series, int(steps[0])
        name, begun = series.sensors[sensor], since(series, behaviour.onset, first, at_least=self._is_first(behaviour))
        value = self._number(series.values[behaviour.extreme, sensor], name)
        match behaviour.change:
            case _ if as_meter := self._as_meter(behaviour, sensor, begun):
                said = as_meter
            case "silent":
                said = f"no reading {begun}"
            case "stuck":
                said = f"stuck at {value} {begun}"
            case "rises" | "falls":
                moved, long = self._number(behaviour.moved, name), self._long(behaviour.extreme - behaviour.onset)
                said = f"{behaviour.change} {moved} in {long}, to {value}"
            case "up" | "down":
                said = f"{behaviour.change} to {value}"
            case "apart":
                partner = series.sensors[behaviour.partner or 0]
                said = f"no longer moves with {self.gates.names.get(partner, partner)}, {value} at worst"
            case "untimely":
                said = f"{value} at worst, unlike {self._time_of(behaviour.extreme)}"
            case "restless":
                said = f"{behaviour.times:.2g} times as restless as before, {value} at worst"
            case _:
                said = f"{value} at worst"
        value_there = float(series.values[behaviour.extreme, sensor])
        if self.outside[behaviour.onset : behaviour.end + 1, sensor].any() and (
            limit := beyond_limit(self.gates.of(name), value_there)
        ):
            said = f"{said}, {limit}"
        if behaviour.change not in ("silent", "stuck") and (elsewhere := self.readings.beyond_nearby(steps, sensor)):
            said = f"{said} ({elsewhere})"
        return Reason(name, said, self._said(sensor, expected), share, is_phrase=" " in said)

    def _as_meter(self, behaviour: SensorBehaviour, sensor: int, begun: str) -> str:
        """What a meter did, where it stood still or ran backwards; empty where it did not, or is none."""
        series, name = self.readings.series, self.readings.series.sensors[sensor]
        if (backwards := ran_backwards(series, sensor, behaviour.onset, behaviour.end)) is not None:
            return f"ran backwards {begun}, from {' to '.join(self._number(level, name) for level in backwards)}"
        if (stood := self._stood_from(behaviour, sensor)) is not None:
            value = self._number(series.values[behaviour.extreme, sensor], name)
            return f"stood still for {self._long(behaviour.extreme - stood)}, then counted {value} at once"
        if behaviour.change == "stuck" and is_meter(series, sensor):
            return f"stands still at {self._number(series.levels[behaviour.extreme, sensor], name)} {begun}"
        return ""

    def _said(self, sensor: int, expected: float) -> str:
        """What was expected, and the range that was learnt."""
        if np.isnan(expected):
            return ""
        low, high = (float(each[sensor]) for each in range_of(self.seen.model))
        said = f"about {self._number(expected, self.readings.series.sensors[sensor])}"
        return f"{said} (learnt range {reading(low)} to {reading(high)})" if low < high else said

    def _beyond(self, values: Floats, sensor: int) -> Floats:
        """How far readings are outside the learnt range, in ranges, signed."""
        low, high = (float(each[sensor]) for each in range_of(self.seen.model))
        span = float(self.seen.model.scaling.span[sensor]) or 1.0
        return np.asarray(np.nan_to_num(np.maximum(values - high, 0.0) - np.maximum(low - values, 0.0)) / span)

    def _number(self, value: float, sensor: str) -> str:
        unit = self.gates.units.get(sensor, "")
        return f"{reading(value)} {unit}".rstrip()

    def _time_of(self, step: int) -> str:
        """Which time a reading is unlike: of a weekday, or of another period."""
        phase, times = self.seen.model.phase, self.readings.series.times
        if phase is None or times is None or phase.rhythm.seconds != DAY:
            return "this part of its period"
        local = pd.Timestamp(times[step]).tz_localize("UTC").tz_convert(phase.rhythm.zone)
        clock = f"{local:%H:%M}" if phase.rhythm.zone == "UTC" else f"{local:%H:%M %Z}"  # all other times are in UTC
        return f"a {local:%A}, {clock}" if max(phase.rhythm.days) else f"other days at {clock}"

    def _long(self, steps: int) -> str:
        every = self.readings.series.every
        return f"{steps} steps" if every is None else duration(steps * every)


def _is_untimely(values: Floats, usual: Floats, scale: Floats, inside: Flags) -> bool:
    """Whether most readings of an event are far from what is usual at their time."""
    away = np.abs(values - usual)[inside] / scale[inside]
    return bool(np.nan_to_num(np.nanmedian(away)) > UNTIMELY) if (~np.isnan(away)).any() else False


def beyond_limit(gate: SensorGate, value: float) -> str:
    """Which limit a reading is beyond, in words; empty if it is within.

    >>> beyond_limit(SensorGate(low=0.0, high=80.0), 88.6)
    'above its limit of 80'
    """
    if value > gate.high:
        return f"above its limit of {reading(gate.high)}"
    return f"below its limit of {reading(gate.low)}" if value < gate.low else ""
