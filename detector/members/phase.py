"""Each sensor by the time of the day and the kind of day: a Wednesday that looks like a Sunday is no Wednesday.

What is usual in a part of a rhythm is the median of that part in training, over all days, and how far readings usually
are from it. A holiday among the days moves neither. Several rhythms are tried, the simplest first; one is believed if
it foretells rows that it was not learnt from, and a richer one if it foretells them clearly better.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from detector.arrays import Counts, Flags, Floats
from detector.series.rhythm import ALIKE, DAY, EACH, SATURDAYS, WORKING, Rhythm

MOST_PARTS = 96
LEAST_PERIODS = 4
"""So often a period must have come in training; a week, three times for each weekday by itself, else twice."""
LEAST_STEPS = 8
"""Steps in the shortest period that is looked for."""
LEAST_GAIN, CLEAR_GAIN = 0.2, 0.07
"""The share of what is unknown of a sensor that the simplest rhythm, and a richer one beyond it, must foretell."""
LEAST_SCALE = 0.03
"""The least usual distance from what is expected, in ranges."""
FARTHEST = 10.0
"""So many usual distances count at most, lest one sensor drown the others."""
NORMAL = 1.4826
LEAST_PEAK = 0.3
CLOCK = 0.03
"""The share by which a found period may differ from a part of a day and still be that."""


@dataclass(frozen=True)
class Phase:
    """What each sensor usually reads in each part of a rhythm. Make one with ``Phase.fit``.

    - ``rhythm``: of which the parts are.
    - ``middle``, ``scale``, (n_parts, n_sensors): median, and usual distance from it, in ranges.
    """

    rhythm: Rhythm
    middle: Floats
    scale: Floats

    @classmethod
    def fit(cls, values: NDArray[np.floating[Any]], times: NDArray[np.datetime64], rhythm: Rhythm) -> Self:
        """Learn from scaled rows, (n_rows, n_sensors), and when they were; NaN where nothing was read.

        A part that never came is as the others of its kind of day around it.

        >>> times = np.datetime64("2026-01-05") + np.arange(96) * np.timedelta64(1, "h")
        >>> wave = np.sin(np.arange(96) * np.pi / 12)[:, None]
        >>> Phase.fit(wave, times, Rhythm(parts=24)).errors(wave, times).round(2).max().item()
        0.0
        """
        part = rhythm.of(times)
        kinds, n_sensors = max(rhythm.days) + 1, values.shape[1]
        wide = _by_part(values, part, rhythm.size).reshape(kinds, rhythm.parts, n_sensors)
        middle = np.stack([_closed(own) for own in wide])
        flat = middle.reshape(-1, n_sensors)
        flat = np.where(np.isnan(flat), np.nanmedian(values, axis=0), flat)
        away = np.abs(values - flat[part])
        usual = _by_part(away, part, rhythm.size).reshape(kinds, rhythm.parts, n_sensors)
        scale = NORMAL * np.stack([_smoothed(_closed(own)) for own in usual]).reshape(-1, n_sensors)
        common = NORMAL * np.nanmedian(away, axis=0)
        scale = np.where(np.isnan(scale), common, np.maximum(scale, common / 2))
        return cls(rhythm, flat, np.maximum(scale, LEAST_SCALE))

    def errors(self, values: NDArray[np.floating[Any]], times: NDArray[np.datetime64]) -> Floats:
        """How far rows are from what is usual at their time: squared, in usual distances; 0 where nothing is known."""
        part = self.rhythm.of(times)
        away = (values - self.middle[part]) / self.scale[part]
        return np.asarray(np.nan_to_num(np.clip(away, -FARTHEST, FARTHEST) ** 2))

    def state(self) -> dict[str, NDArray[Any]]:
        """The arrays, for npz."""
        return {"middle": self.middle, "scale": self.scale}

    @classmethod
    def from_state(cls, arrays: Mapping[str, NDArray[Any]], rhythm: Mapping[str, Any]) -> Self:
        """The inverse of ``state``, and of ``Rhythm.to_dict``."""
        return cls(Rhythm.from_dict(rhythm), arrays["middle"], arrays["scale"])


def _by_part(values: NDArray[np.floating[Any]], part: Counts, size: int) -> Floats:
    """The median of each part; NaN of one that never came."""
    medians = pd.DataFrame(np.asarray(values, dtype=np.float64)).groupby(part).median()
    return np.asarray(medians.reindex(np.arange(size)).to_numpy(dtype=np.float64))


def _closed(parts: Floats) -> Floats:
    """Parts of a circle, (n_parts, n_sensors), those without a value on the line between their neighbours."""
    if not np.isnan(parts).any():
        return parts
    n = len(parts)
    thrice = pd.DataFrame(np.tile(parts, (3, 1))).interpolate(limit_direction="both")
    return np.asarray(thrice.to_numpy()[n : 2 * n])


def _smoothed(parts: Floats) -> Floats:
    """Each part the mean of itself and its neighbours on the circle."""
    return np.asarray((np.roll(parts, 1, axis=0) + parts + np.roll(parts, -1, axis=0)) / 3)


@dataclass(frozen=True)
class FoundRhythm:
    """A rhythm, and which share of what is unknown of the sensor that follows it most it foretells, (n_sensors,)."""

    rhythm: Rhythm
    gains: Floats


def find_rhythm(
    values: NDArray[np.floating[Any]],
    times: NDArray[np.datetime64],
    usable: Flags,
    fold: Counts,
    *,
    every: float,
    zone: str = "UTC",
    wanted: float | None = None,
) -> FoundRhythm | None:
    """The rhythm that foretells rows best that it was not learnt from; ``None`` if none does.

    ``every`` are the seconds between two rows, ``wanted`` the only period to try, in seconds. What a rhythm foretells
    of a sensor is by how much nearer rows of other folds are to what is usual at their time than to the sensor's
    median.

    >>> hours = np.arange(24 * 20)
    >>> times = np.datetime64("2026-01-05") + hours * np.timedelta64(1, "h")
    >>> work = ((hours % 24 > 6) & (hours % 24 < 18) & (hours // 24 % 7 < 5)).astype(float)[:, None]
    >>> found = find_rhythm(work, times, np.full(480, True), hours * 5 // 480, every=3600.0)
    >>> found.rhythm.name
    'a week: working days, and Saturdays and Sundays'
    """
    rows = np.asarray(values, dtype=np.float64).copy()
    rows[~usable] = np.nan
    best: FoundRhythm | None = None
    for rhythm in _candidates(rows, times, usable, every=every, zone=zone, wanted=wanted):
        gains = _gains(rows, times, usable, fold, rhythm)
        before = 0.0 if best is None else float(best.gains.max())
        needed = LEAST_GAIN if best is None else before + CLEAR_GAIN * (1 - before)
        if float(gains.max(initial=0.0)) >= needed and (best is None or float(gains.max()) > before):
            best = FoundRhythm(rhythm, gains)
    return best


def _gains(values: Floats, times: NDArray[np.datetime64], usable: Flags, fold: Counts, rhythm: Rhythm) -> Floats:
    near, plain = np.zeros(values.shape[1]), np.zeros(values.shape[1])
    for number in range(int(fold.max()) + 1):
        inside, outside = usable & (fold == number), usable & (fold != number)
        if not inside.any() or not outside.any():
            continue
        phase = Phase.fit(values[outside], times[outside], rhythm)
        near += np.nansum(np.abs(values[inside] - phase.middle[rhythm.of(times[inside])]), axis=0)
        plain += np.nansum(np.abs(values[inside] - np.nanmedian(values[outside], axis=0)), axis=0)
    return np.asarray(np.where(plain > 0, 1 - near / np.where(plain > 0, plain, 1.0), 0.0))


def _candidates(
    values: Floats,
    times: NDArray[np.datetime64],
    usable: Flags,
    *,
    every: float,
    zone: str,
    wanted: float | None,
) -> Iterator[Rhythm]:
    """Rhythms to try, the simplest first: the period that is wanted; a day, weeks of days, a part of a day."""
    span = float((times[usable].max() - times[usable].min()) / np.timedelta64(1, "s")) if usable.any() else 0.0

    def parts(seconds: float) -> int:
        return max(2, min(MOST_PARTS, int(seconds / every)))

    if wanted is not None and wanted not in (DAY, 7 * DAY):
        if span >= 2 * wanted:
            yield Rhythm(seconds=wanted, parts=parts(wanted), zone=zone)
        return
    if every * LEAST_STEPS <= DAY and span >= LEAST_PERIODS * DAY:
        if wanted != 7 * DAY:
            yield Rhythm(ALIKE, parts=parts(DAY), zone=zone)
        if wanted != DAY and span >= 2 * 7 * DAY * 0.9:
            yield Rhythm(WORKING, parts=parts(DAY), zone=zone)
            yield Rhythm(SATURDAYS, parts=parts(DAY), zone=zone)
            if span >= 3 * 7 * DAY * 0.9:
                yield Rhythm(EACH, parts=parts(DAY), zone=zone)
    if wanted is None and (seconds := _repeating(values, times, every)) is not None:
        yield Rhythm(seconds=seconds, parts=parts(seconds), zone=zone)


def _repeating(values: Floats, times: NDArray[np.datetime64], every: float) -> float | None:
    """The part of a day after which readings are most alike (autocorrelation), such as a shift; none if there is none.

    A cycle that no clock keeps, such as a pump's, has no phase that could be foretold for weeks: its length would have
    to be known to a ten thousandth. Windows see such cycles; a period that is configured is taken as it is.

    Of the longest stretch that goes forward in time, such as the first machine's.
    """
    back = np.flatnonzero(np.diff(times) <= np.timedelta64(0, "us"))
    edges = np.concatenate([[0], back + 1, [len(times)]])
    longest = int(np.argmax(np.diff(edges)))
    own = slice(int(edges[longest]), int(edges[longest + 1]))
    place = np.rint((times[own] - times[own][0]) / np.timedelta64(1, "us") / 1e6 / every).astype(np.int64)
    if len(place) < LEAST_PERIODS * LEAST_STEPS or place[-1] > 4 * len(place):
        return None
    n = int(place[-1]) + 1
    total = np.zeros(2 * n)
    for column in values[own].T:
        centred = np.zeros(n)
        centred[place] = np.nan_to_num(column - np.nanmedian(column)) if (~np.isnan(column)).any() else 0.0
        power = np.abs(np.fft.rfft(centred, 2 * n)) ** 2
        found = np.fft.irfft(power, 2 * n)
        total += found / found[0] if found[0] > 0 else 0.0
    alike = total[: n // LEAST_PERIODS] / max(1, values.shape[1])
    peaks = np.flatnonzero((alike[1:-1] > alike[:-2]) & (alike[1:-1] >= alike[2:])) + 1
    peaks = peaks[(peaks >= LEAST_STEPS) & (alike[peaks] >= LEAST_PEAK)]
    if not len(peaks):
        return None
    times_a_day = DAY / (float(peaks[int(np.argmax(alike[peaks]))]) * every)
    whole = round(times_a_day)
    return DAY / whole if whole > 1 and abs(times_a_day - whole) < CLOCK * whole else None
