"""Which flagged steps gates hold back: those that would not be flagged without the sensors that are shut there.

A sensor is shut at a step if it is off the wrong way, not far enough, or not for long enough. What counts then is the
risk without it: its own part is taken off, and of the others' parts as much as is no longer strange once it is put in
anew, for a fault makes healthy sensors look strange as well. The step stays flagged if the policy flags what is left.
All of it depends on a known number of rows around a step, so it is the same however a series is cut.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from detector.arrays import Counts, Flags, Floats
from detector.detectors.series.event_windows import EventWindows
from detector.detectors.series.model import ModelledSeries, SeriesModel
from detector.series.gates import Gates, SensorGate
from detector.series.segments import near, reach

AT_ONCE = 512
STRANGE = 3.0
"""So many times the usual spread of squared residuals, a window is strange whatever else is nearby."""
PAUSE = 5
"""Steps that a deviation may pause for and go on."""
FORETOLD = 0.25
"""The share of a sensor's variance that others leave unknown, up to which they foretell it."""
HALF = 0.5
"""The part of a sensor's largest deviation from which on it counts as off, when it is asked for how long."""
OPEN, DIRECTION, DEVIATION, DURATION = range(4)
NAMES = ("", "direction", "least deviation", "duration")
MAINTENANCE = "maintenance"
ECHO = "echo"
"""What holds back a step that is flagged only for what others near by add to its risk."""


@dataclass(frozen=True)
class GatedDecision:
    """What is flagged, and what was held back.

    - ``flagged``, (n,): decisions.
    - ``held``, (n,): what the policy flags and a gate held back.
    - ``echoes``, (n,): those of ``held`` that are flagged for what is beside them alone.
    - ``by_gate``: how many of these each gate held back, such as ``{"heat: direction": 3, "maintenance": 9}``.
    """

    flagged: Flags
    held: Flags
    echoes: Flags
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
        """For each of these steps and sensors: 0 if it is open, or the number of the gate that shuts it."""
        found = np.zeros((len(steps), len(self.gates)), dtype=np.int64)
        for sensor in self.active:
            gate = self.gates[sensor]
            off, expected = self._off(sensor, steps)
            farthest = self._farthest(off, steps)
            far = np.abs(off[farthest])
            wrong = (gate.direction == "up") & (off[farthest] <= 0) | (gate.direction == "down") & (off[farthest] >= 0)
            small = (far < gate.least_deviation) | (far < gate.least_relative * np.abs(expected[farthest]))
            short = np.zeros(len(steps), dtype=bool)
            if gate.least_seconds > 0:
                where, back = np.unique(farthest, return_inverse=True)
                short = self._lasts(sensor, np.abs(off), where)[back] * self.seconds < gate.least_seconds
                held = (self.seen.stuck[:, sensor] > 0).astype(np.float64)
                short &= self._lasts(sensor, held, steps) * self.seconds < gate.least_seconds
            codes = np.select([wrong, small, short], [DIRECTION, DEVIATION, DURATION], OPEN)
            found[:, sensor] = np.where(self.seen.overdue[steps, sensor], OPEN, codes)
        return found

    def left(self, steps: Counts, shut: Counts, parts: Floats, risk: Floats) -> Floats:
        """The risk of these steps without the sensors that are shut there; ``parts`` is what each adds to it."""
        moving = np.flatnonzero(self.seen.model.scaling.moving)
        positive = np.maximum(parts, 0.0)
        is_shut, alone = shut > OPEN, self.seen.overdue[steps] | (self.seen.stuck[steps] > 0)
        remains = np.ones(len(steps))
        patterns, which = np.unique(is_shut[:, moving], axis=0, return_inverse=True)
        for number, pattern in enumerate(patterns):
            own = np.flatnonzero(which.ravel() == number)
            if pattern.any():
                remains[own] = self._remains(steps[own], np.flatnonzero(pattern))
        own_parts = np.where(is_shut, positive, 0.0).sum(axis=1)
        others = np.where(is_shut | alone, 0.0, positive).sum(axis=1)
        return np.asarray(np.where(is_shut.any(axis=1), risk - own_parts - (1 - remains) * others, risk))

    def _remains(self, steps: Counts, places: Counts) -> Floats:
        """The share of what is strange, at each step and where it is strangest nearby, that is so without sensors.

        All of it, where a step is strange by itself without them.
        """
        looked = self._looked(steps)
        whole, left = np.zeros(len(self.seen.segment)), np.zeros(len(self.seen.segment))
        for own in _chunks(looked):
            windows = EventWindows.around(self.seen, own, self.seen.model.length)
            if windows is None:
                return np.ones(len(steps))
            whole[own], left[own] = windows.strangeness(windows.windows), windows.strangeness(windows.without(places))
        strangest = self._farthest(whole, steps)
        share = (left[steps] + left[strangest]) / np.maximum(whole[steps] + whole[strangest], np.finfo(float).tiny)
        return np.asarray(np.where(left[steps] > STRANGE, 1.0, np.clip(share, 0.0, 1.0)))

    def _looked(self, steps: Counts) -> Counts:
        """The steps that bear on the risk of these."""
        chosen = np.zeros(len(self.seen.segment), dtype=bool)
        chosen[steps] = True
        back, ahead = wide_of(self.seen.model)
        return np.flatnonzero(near(chosen, self.seen.segment, max(back, ahead)))

    def _off(self, sensor: int, steps: Counts) -> tuple[Floats, Floats]:
        """How far a sensor is off near these steps, signed, in its unit, and what it should have read; of all steps."""
        model, prepared = self.seen.model, self.seen.prepared
        span, low = float(model.scaling.span[sensor]), float(model.scaling.low[sensor])
        off, expected = np.zeros(len(prepared.scaled)), np.full(len(prepared.scaled), low)
        looked = self._looked(steps)
        if self.gates[sensor].least_seconds > 0:
            chosen = np.zeros(len(off), dtype=bool)
            chosen[looked] = True
            wide = around(self.gates[sensor], self.seconds)
            looked = np.flatnonzero(near(chosen, self.seen.segment, wide))
        if not model.scaling.moving[sensor]:
            off[looked] = prepared.scaled[looked, sensor] * span
            return off, expected
        place = int(model.scaling.moving[:sensor].sum())
        for own in _chunks(looked):
            windows = EventWindows.around(self.seen, own, hidden_of(model, place))
            assert windows is not None
            is_own = windows.step == own[:, None]
            filled = windows.without(np.array([place]))[..., place][is_own]
            off[own] = (windows.windows[..., place][is_own] - filled) * span
            expected[own] = filled * span + low
        return off, expected

    def _farthest(self, off: Floats, steps: Counts) -> Counts:
        """Of the steps that bear on the risk of each step, the one where a sensor is farthest off."""
        back, ahead = wide_of(self.seen.model)
        found = np.empty(len(steps), dtype=np.int64)
        for line, (first, values) in enumerate(self._parts(np.abs(off), steps, back, ahead)):
            found[line] = first + int(np.argmax(values))
        return found

    def _lasts(self, sensor: int, off: Floats, steps: Counts) -> Counts:
        """For how many steps around each step a sensor is off, by at least half of what it is there."""
        wide = around(self.gates[sensor], self.seconds)
        ahead = 0 if self.seen.model.recipe.trailing else wide
        found = np.zeros(len(steps), dtype=np.int64)
        for line, (first, values) in enumerate(self._parts(off, steps, wide, ahead)):
            at = int(steps[line]) - first
            rows = np.flatnonzero(values >= HALF * values[at]) if values[at] > 0 else np.empty(0, dtype=np.int64)
            for part in np.split(rows, np.flatnonzero(np.diff(rows) > PAUSE + 1) + 1):
                if len(part) and part[0] <= at <= part[-1]:
                    found[line] = part[-1] - part[0] + 1
        return found

    def _parts(self, values: Floats, steps: Counts, back: int, ahead: int) -> Iterator[tuple[int, Floats]]:
        """Values around each step, those of other segments 0, and where they begin."""
        for step in steps.tolist():
            first, end = max(step - back, 0), min(step + ahead + 1, len(values))
            inside = self.seen.segment[first:end] == self.seen.segment[step]
            yield first, np.where(inside, values[first:end], 0.0)


def hidden_of(model: SeriesModel, place: int) -> int:
    """How many steps to either side of a step a sensor is hidden to say what it should have read.

    All of the window where the others foretell it, for then nothing of a fault is left in it; else what is its own
    event, so that the time before and after speaks.
    """
    assert model.pca is not None
    directions = model.pca.directions.astype(np.float64).reshape(model.length, -1, model.pca.code)[:, place]
    left = np.diag(1.0 + model.pca.noise / model.pca.variances) - directions.T @ directions
    unknown = model.pca.noise * np.linalg.inv(left)
    given = np.einsum("lk,kj,lj->", directions, unknown, directions) + model.length * model.pca.noise
    alone = ((directions**2) @ model.pca.variances).sum() + model.length * model.pca.noise
    return model.length if given <= FORETOLD * alone else aside_of(model)


def aside_of(model: SeriesModel) -> int:
    """How many steps to either side of a step are its own event, as far as its risk is smoothed."""
    return max(1, min(reach(model.smoothing), model.length // 2 - 1))


def wide_of(model: SeriesModel) -> tuple[int, int]:
    """How many steps before and after a flagged one the reading may be that it is flagged for."""
    return model.memory, model.ahead


def around(gate: SensorGate, seconds: float) -> int:
    """How many steps to either side say for how long a sensor is off; 0 if nobody asks."""
    return int(np.ceil(gate.least_seconds / seconds)) + PAUSE if gate.least_seconds > 0 else 0


def gate_reach(gates: Gates, model: SeriesModel, sensors: Iterable[str], seconds: float) -> tuple[int, int]:
    """How many more steps before and after a step the decision on it hangs on, because of gates."""
    asked = [gate for gate in map(gates.of, sensors) if gate.holds_back]
    if not asked:
        return 0, 0
    longest = max(around(gate, seconds) for gate in asked)
    back, ahead = wide_of(model)
    return back + longest + model.length, 0 if model.recipe.trailing else ahead + longest + model.length


def _chunks(places: Counts) -> list[Counts]:
    return [places[first : first + AT_ONCE] for first in range(0, len(places), AT_ONCE)]
