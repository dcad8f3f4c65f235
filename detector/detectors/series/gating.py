"""Which flagged steps gates hold back, because without the sensors that are not to be told nothing is left to tell.

A sensor is shut at a step if it is off the wrong way, not far enough, or not for long enough. What counts then is the
risk without it: its own part is taken off, and of the others' parts as much as is no longer strange once it is put in
anew, for a fault makes healthy sensors look strange as well. A step is told if the policy flags what is left. All of
it hangs on so many rows around a step, so it is the same however a series is cut.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from detector.arrays import Counts, Flags, Floats
from detector.detectors.series.apart import EventWindows
from detector.detectors.series.model import ModelledSeries, SeriesModel
from detector.series.gates import Gates, SensorGate
from detector.series.segments import near, reach

AT_ONCE = 512
PAUSE = 5
"""Steps that a deviation may pause for and go on."""
HALF = 0.5
"""The part of a sensor's largest deviation from which on it counts as off, when it is asked for how long."""
OPEN, DIRECTION, DEVIATION, DURATION = range(4)
NAMES = ("", "direction", "least deviation", "duration")
MAINTENANCE = "maintenance"


@dataclass(frozen=True)
class Decision:
    """What is told, and what was held back.

    - ``flagged``, (n,): decisions.
    - ``held``, (n,): what the policy flags and a gate held back.
    - ``by_gate``: how many of these each gate held back, such as ``{"heat: direction": 3, "maintenance": 9}``.
    """

    flagged: Flags
    held: Flags
    by_gate: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Gating:
    """The gates of the sensors of one model.

    - ``seen``: the steps.
    - ``gates``: of each sensor, in the order of the columns.
    - ``seconds``: between two steps; 1 where there are no times.
    """

    seen: ModelledSeries
    gates: list[SensorGate]
    seconds: float

    @property
    def active(self) -> list[int]:
        """The sensors of which something may be held back."""
        known = self.seen.model.scaling.known
        return [sensor for sensor, gate in enumerate(self.gates) if gate.holds_back and known[sensor]]

    def shut(self, steps: Counts) -> Counts:
        """For each of these steps and sensors: 0 if it may be told, or the number of the gate that holds it back."""
        found = np.zeros((len(steps), len(self.gates)), dtype=np.int64)
        aside = aside_of(self.seen.model)
        for sensor in self.active:
            gate = self.gates[sensor]
            deviation, expected = self._farthest(sensor, steps, aside)
            far = np.abs(deviation)
            wrong = (gate.direction == "up") & (deviation <= 0) | (gate.direction == "down") & (deviation >= 0)
            small = (far < gate.least_deviation) | (far < gate.least_relative * np.abs(expected))
            short = np.zeros(len(steps), dtype=bool)
            if gate.least_seconds > 0:
                short = self._lasts(sensor, steps, aside) * self.seconds < gate.least_seconds
            codes = np.select([wrong, small, short], [DIRECTION, DEVIATION, DURATION], OPEN)
            found[:, sensor] = np.where(self.seen.overdue[steps, sensor], OPEN, codes)
        return found

    def left(self, steps: Counts, shut: Counts, parts: Floats, risk: Floats) -> Floats:
        """The risk of these steps without the sensors that are shut there; ``parts`` is what each adds to it."""
        model = self.seen.model
        moving = np.flatnonzero(model.scaling.moving)
        positive = np.maximum(parts, 0.0)
        is_shut, overdue = shut > OPEN, self.seen.overdue[steps]
        remains = np.ones(len(steps))
        patterns, which = np.unique(is_shut[:, moving], axis=0, return_inverse=True)
        for number, pattern in enumerate(patterns):
            if not pattern.any():
                continue
            for own in _chunks(np.flatnonzero(which.ravel() == number)):
                windows = EventWindows.around(self.seen, steps[own], aside_of(model))
                if windows is not None:
                    whole = np.maximum(windows.strangeness(windows.windows), np.finfo(float).tiny)
                    left = windows.strangeness(windows.without(np.flatnonzero(pattern)))
                    remains[own] = np.clip(left / whole, 0.0, 1.0)
        own_parts = np.where(is_shut, positive, 0.0).sum(axis=1)
        others = np.where(is_shut | overdue, 0.0, positive).sum(axis=1)
        return np.asarray(np.where(is_shut.any(axis=1), risk - own_parts - (1 - remains) * others, risk))

    def _farthest(self, sensor: int, steps: Counts, aside: int) -> tuple[Floats, Floats]:
        """How far a sensor is off at most near each step, signed, in its unit, and what it should have read there."""
        model, prepared = self.seen.model, self.seen.prepared
        span, low = float(model.scaling.span[sensor]), float(model.scaling.low[sensor])
        deviation, expected = np.zeros(len(steps)), np.zeros(len(steps))
        if not model.scaling.moving[sensor]:
            return np.asarray(prepared.scaled[steps, sensor] * span, dtype=np.float64), np.full(len(steps), low)
        place = int(model.scaling.moving[:sensor].sum())
        for own in _chunks(np.arange(len(steps))):
            windows = EventWindows.around(self.seen, steps[own], aside)
            assert windows is not None
            filled = windows.without(np.array([place]))[..., place]
            off = windows.windows[..., place] - filled
            weight = np.exp(-np.abs(windows.step - steps[own][:, None]) / max(model.smoothing, 1e-9))
            at = np.argmax(np.where(windows.inside, weight * off**2, -1.0), axis=1)
            lines = np.arange(len(own))
            deviation[own], expected[own] = off[lines, at] * span, filled[lines, at] * span + low
        return deviation, expected

    def _lasts(self, sensor: int, steps: Counts, aside: int) -> Counts:
        """For how many steps around each step a sensor is off, by at least half of the most near it."""
        model, segment = self.seen.model, self.seen.segment
        wide = around(self.gates[sensor], model, self.seconds)
        chosen = np.zeros(len(segment), dtype=bool)
        chosen[steps] = True
        looked = np.flatnonzero(near(chosen, segment, wide))
        off = np.zeros(len(segment))
        if model.scaling.moving[sensor]:
            place = int(model.scaling.moving[:sensor].sum())
            for own in _chunks(looked):
                windows = EventWindows.around(self.seen, own, aside)
                assert windows is not None
                gap = windows.windows[..., place] - windows.without(np.array([place]))[..., place]
                off[own] = np.abs(gap[windows.step == own[:, None]])
        else:
            off[looked] = np.abs(self.seen.prepared.scaled[looked, sensor])
        return np.array([self._stretch(off, int(step), wide, aside) for step in steps], dtype=np.int64)

    def _stretch(self, off: Floats, step: int, wide: int, aside: int) -> int:
        ahead = 0 if self.seen.model.recipe.trailing else 1
        first, end = max(step - wide, 0), min(step + ahead * wide + 1, len(off))
        inside = self.seen.segment[first:end] == self.seen.segment[step]
        values = np.where(inside, off[first:end], 0.0)
        at = step - first
        most = values[max(at - aside, 0) : at + ahead * aside + 1].max()
        rows = np.flatnonzero(values >= HALF * most) if most > 0 else np.empty(0, dtype=np.int64)
        if not len(rows):
            return 0
        parts = np.split(rows, np.flatnonzero(np.diff(rows) > PAUSE + 1) + 1)
        own = min(parts, key=lambda part: max(part[0] - at, at - part[-1], 0))
        return int(own[-1] - own[0] + 1)


def aside_of(model: SeriesModel) -> int:
    """How many steps to either side of a step are its own event, as far as its risk is smoothed."""
    return max(1, min(reach(model.smoothing), model.length // 2 - 1))


def around(gate: SensorGate, model: SeriesModel, seconds: float) -> int:
    """How many steps to either side say for how long a sensor is off."""
    return int(np.ceil(gate.least_seconds / seconds)) + aside_of(model) if gate.least_seconds > 0 else 0


def holding(gates: Gates, model: SeriesModel, sensors: tuple[str, ...], seconds: float) -> int:
    """How many more steps to either side the decision on a step hangs on, because gates ask for how long."""
    widest = max((around(gates.of(name), model, seconds) for name in sensors), default=0)
    return widest + model.length if widest else 0


def _chunks(places: Counts) -> list[Counts]:
    return [places[first : first + AT_ONCE] for first in range(0, len(places), AT_ONCE)]
