"""Which sensors are at fault at a step or over an event, and what they read beside what was learnt of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from detector.arrays import Counts, Flags, Floats
from detector.detectors.series.meters import is_meter, ran_backwards
from detector.detectors.series.model import SeriesModel
from detector.explain.reason import Reason, reading
from detector.series.flatline import is_alike
from detector.series.resample import RegularSeries
from detector.series.segments import near, reach

TOP = 3
LEAST_SHARE = 0.05
LONG = 3 * 86_400
"""Seconds from which a length of time is told in days."""
BEYOND = 0.05
"""So far outside the training range, in ranges, a reading is at fault by itself."""
MOST_MOVED = 0.95
"""The most of their shares that other sensors hand on to one that is."""
CLEAR = 0.5
"""A step's own reading is what a reason shows, unless it deviates less than this part of one nearby."""


@dataclass(frozen=True)
class SensorReadings:
    """Readings of series beside what was learnt: the range of training, and the reconstruction kept within it.

    A reconstruction follows a fault that is large enough, and takes healthy sensors along. So what is expected never
    lies outside the range a sensor had in training, and a reading that does bears the blame.

    - ``expected``, (n_steps, n_sensors): within the range; NaN for a sensor that never read in training.
    - ``deviation``, (n_steps, n_sensors): of the reading from that, signed, in ranges; 0 where there is none.
    - ``beyond``, (n_steps, n_sensors): how far the reading is outside the range, in ranges.
    - ``overdue``, (n_steps, n_sensors): where a sensor has been silent for too long.
    - ``stuck``, (n_steps, n_sensors): where a sensor has shown one value for too long.
    - ``touched``, (n_steps,): where a reading outside its range may bear on the risk.
    - ``model_of``: the model of a step.
    """

    series: RegularSeries
    expected: Floats
    deviation: Floats
    beyond: Floats
    overdue: Flags
    stuck: Flags
    touched: Flags
    model_of: Callable[[int], SeriesModel]

    @classmethod
    def of(
        cls,
        series: RegularSeries,
        expected: Floats,
        overdue: Flags,
        stuck: Flags,
        parts: list[tuple[SeriesModel, Counts]],
    ) -> SensorReadings:
        """Readings of all parts; ``expected`` holds the reconstruction."""
        within, deviation, beyond = np.array(expected), np.zeros(expected.shape), np.zeros(expected.shape)
        number, touched = np.zeros(len(series), dtype=np.int64), np.zeros(len(series), dtype=bool)
        for place, (model, steps) in enumerate(parts):
            number[steps] = place
            low, high = range_of(model)
            span = np.where(model.scaling.span > 0, model.scaling.span, 1.0)
            within[steps] = np.clip(within[steps], low, high)
            values = np.where(series.observed[steps], series.values[steps], np.nan)
            deviation[steps] = np.nan_to_num((values - within[steps]) / span)
            outside = np.maximum(np.maximum(low - values, values - high), 0.0) / span
            beyond[steps] = np.where(model.scaling.known, np.nan_to_num(outside), 0.0)
            far = np.zeros(len(series), dtype=bool)
            far[steps] = (beyond[steps] > BEYOND).any(axis=1)
            touched[steps] = near(far, series.segment, _reach(model))[steps]
        return cls(series, within, deviation, beyond, overdue, stuck, touched, lambda step: parts[number[step]][0])

    def at_step(self, step: int, parts: Floats) -> list[Reason]:
        """The reasons for a step, the most important first; ``parts`` is what each sensor adds to its risk."""
        return [
            self._of_step(step, sensor, share) for sensor, share in ranked(self._blamed(step, np.maximum(parts, 0)))
        ]

    def blamed(self, steps: Counts, parts: Floats) -> Floats:
        """What each sensor adds to the risk of these steps in all; ``parts`` as for all steps."""
        found = np.maximum(parts[steps], 0.0)
        for place in np.flatnonzero(self.touched[steps]):
            found[place] = self._blamed(int(steps[place]), found[place])
        return np.asarray(found.sum(axis=0))

    def beyond_nearby(self, steps: Counts, sensor: int) -> str:
        """What a sensor read out of its range beside an event in which it did not, and when; "" if it did, or did not.

        Its windows reach into the event, which may be unusual for that alone.
        """
        first, last = int(steps[0]), int(steps[-1])
        if self.beyond[first : last + 1, sensor].max() > BEYOND:
            return ""
        begin, end = (self._bounds(step, _reach(self.model_of(step)))[side] for side, step in enumerate((first, last)))
        nearby = begin + int(np.argmax(self.beyond[begin:end, sensor]))
        if self.beyond[nearby, sensor] <= BEYOND:
            return ""
        return f"{self._observed(nearby, sensor)}, {self._gap(first if nearby < first else last, nearby)}"

    def _blamed(self, step: int, parts: Floats) -> Floats:
        """What each sensor adds to a step's risk, most of it handed on to those that are out of range nearby."""
        if not self.touched[step]:
            return parts
        first, last = self._bounds(step, _reach(self.model_of(step)))
        beyond = self.beyond[first:last].max(axis=0)
        beyond = np.where(self.overdue[step], 0.0, np.where(beyond > BEYOND, beyond, 0.0))
        total = float(beyond.sum())
        if total == 0:
            return parts
        is_other = (beyond == 0) & ~self.overdue[step] & ~self.stuck[step]
        moved = np.where(is_other, parts, 0.0) * min(float(beyond.max()), MOST_MOVED)
        return np.asarray(parts - moved + moved.sum() * beyond / total)

    def _of_step(self, step: int, sensor: int, share: float) -> Reason:
        if self.stuck[step, sensor]:
            level = reading(self.series.levels[step, sensor])
            held = f"stands still at {level}" if is_meter(self.series, sensor) else f"stuck at {level}"
            return self._reason(
                sensor, f"{held} {self._held_since(step, sensor)}", self._said(step, sensor), share, is_phrase=True
            )
        shown = self._shown(step, sensor)
        observed = self._observed(shown, sensor)
        if (backwards := ran_backwards(self.series, sensor, shown - 1, shown)) is not None:
            observed = f"ran backwards to {reading(backwards[1])}"
            return self._reason(sensor, observed, self._said(shown, sensor), share, is_phrase=True)
        if shown != step:
            observed = f"{observed} {self._gap(step, shown)}"
        return self._reason(sensor, observed, self._said(shown, sensor), share, is_phrase=shown != step)

    def _shown(self, step: int, sensor: int) -> int:
        """The step whose reading says why a sensor is at fault: this one, or one nearby that its risk comes from."""
        model, own = self.model_of(step), float(self.deviation[step, sensor])
        if self.overdue[step, sensor] or self.beyond[step, sensor] > BEYOND:
            return step
        first, last = self._bounds(step, _reach(model) if self.touched[step] else 0)
        if self.beyond[first:last, sensor].max() > BEYOND:
            nearby = first + int(np.argmax(self.beyond[first:last, sensor]))
            weight, most = abs(own), abs(float(self.deviation[nearby, sensor]))
        else:  # as far as the risk is smoothed, and weighed like it
            first, last = self._bounds(step, reach(model.smoothing))
            away = np.abs(np.arange(first, last) - step)
            weights = np.exp(-away / max(model.smoothing, 1e-9)) * self.deviation[first:last, sensor] ** 2
            nearby = first + int(np.argmax(weights))
            weight, most = float(weights[step - first]), float(weights.max())
        same_side = own * self.deviation[nearby, sensor] >= 0
        return step if weight >= (CLEAR if same_side else 1.0) * most else nearby

    def _held_since(self, step: int, sensor: int) -> str:
        """Since when a sensor has shown the value of a step, as far as a service keeps rows."""
        series, model = self.series, self.model_of(step)
        most = max(step - max(model.memory, model.flatline.reach), 0)
        steps = np.arange(most, step + 1)
        steps = steps[(series.segment[steps] == series.segment[step]) & series.observed[steps, sensor]]
        onset = steps[run_before(series.values[steps, sensor])]
        goes_back = onset == steps[0] and most > 0 and series.segment[most - 1] == series.segment[step]
        return since(series, int(onset), step, at_least=bool(goes_back))

    def _observed(self, step: int, sensor: int) -> str:
        return reading(self.series.values[step, sensor]) if self.series.observed[step, sensor] else "no reading"

    def _said(self, step: int, sensor: int) -> str:
        """What was expected: the reconstruction, and for a reading far outside the range of training, that range."""
        if np.isnan(self.expected[step, sensor]):
            return ""
        said = f"about {reading(self.expected[step, sensor])}"
        low, high = (float(each[sensor]) for each in range_of(self.model_of(step)))
        if self.beyond[step, sensor] > BEYOND and low < high:
            return f"{said} (learnt range {reading(low)} to {reading(high)})"
        return said

    def _reason(self, sensor: int, observed: str, said: str, share: float, *, is_phrase: bool = False) -> Reason:
        return Reason(self.series.sensors[sensor], observed, said, share, is_phrase=is_phrase)

    def _gap(self, step: int, other: int) -> str:
        side = "before" if other < step else "after"
        if self.series.times is None:
            away = abs(other - step)
            return f"{away} step{'' if away == 1 else 's'} {side}"
        return f"{duration(abs(self.series.times[other] - self.series.times[step]))} {side}"

    def _bounds(self, step: int, rows: int) -> tuple[int, int]:
        """The steps of the same segment at most so many before, and after unless only those before count."""
        ahead = 0 if self.model_of(step).recipe.trailing else rows
        segment = self.series.segment[max(step - rows, 0) : step + ahead + 1]
        same = np.flatnonzero(segment == self.series.segment[step]) + max(step - rows, 0)
        return int(same[0]), int(same[-1]) + 1


def run_before(values: Floats) -> int:
    """Where the run of one value begins that readings end with.

    >>> run_before(np.array([7.0, 7.4, 7.4, 7.4]))
    1
    """
    other = np.flatnonzero(~is_alike(values, values[-1]))
    return int(other[-1]) + 1 if len(other) else 0


def since(series: RegularSeries, step: int, other: int, *, at_least: bool = False) -> str:
    """Since which step, in words, as said at another one; ``at_least`` if what was before it is not known."""
    more = " or before" if at_least else ""
    if series.times is None:
        return f"since row {step}{more}"
    when, day = pd.Timestamp(series.times[step]), pd.Timestamp(series.times[other]).date()
    clock = "%H:%M" if series.every is None or series.every >= pd.Timedelta("1min") else "%H:%M:%S"
    return f"since {when:{clock if when.date() == day else f'%Y-%m-%d {clock}'}}{more}"


def _reach(model: SeriesModel) -> int:
    """How many steps away a reading may bear on a risk: a window, and as far as that is smoothed."""
    rows = model.length if model.long is None else model.length * model.stride
    return rows - 1 + reach(model.smoothing)


def range_of(model: SeriesModel) -> tuple[Floats, Floats]:
    """The least and the largest value of each sensor in training, (n_sensors,); one that was constant has one value."""
    scaling = model.scaling
    low = np.where(scaling.known, scaling.low, -np.inf)
    high = np.where(scaling.known, scaling.low + np.where(scaling.moving, scaling.span, 0.0), np.inf)
    return low, high


def ranked(parts: Floats) -> list[tuple[int, float]]:
    """The sensors with the largest shares, at least one.

    >>> ranked(np.array([0.1, 3.0, 0.9]))
    [(1, 0.75), (2, 0.225)]
    """
    shares = parts / max(float(parts.sum()), np.finfo(float).tiny)
    first = [int(sensor) for sensor in np.argsort(-shares, kind="stable")[:TOP]]
    kept = [sensor for sensor in first if shares[sensor] >= LEAST_SHARE] or first[:1]
    return [(sensor, float(shares[sensor])) for sensor in kept]


def duration(length: np.timedelta64 | pd.Timedelta) -> str:
    """A length of time in words.

    >>> duration(pd.Timedelta("9s")), duration(pd.Timedelta("125min")), duration(pd.Timedelta("5454h 45min"))
    ('9 s', '2 h 5 min', '227 days 7 h')
    """
    seconds = pd.Timedelta(length).total_seconds()
    if seconds < 60:
        return f"{seconds:.3g} s"
    if seconds >= LONG:
        days, hours = divmod(round(seconds / 3_600), 24)
        return f"{days:,} days {hours} h" if hours else f"{days:,} days"
    hours, minutes = divmod(round(seconds / 60), 60)
    if not hours:
        return f"{minutes} min"
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"
