"""Sensors that stick: for how many readings each has shown one value, and what is longer than it ever was in training.

The flat line test of oceanographers (QARTOD Manual for Real-Time Quality Control, test 8), with limits that are learnt.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from detector.arrays import Counts, Flags, Floats
from detector.errors import SettingError, ShapeError

MOST_STEPS = 256
"""The farthest that is looked back for a run. More would find more of sensors that often stand still, and keep more."""
ENOUGH = 8
"""So many times its limit a sensor must have read in training, lest few readings set it."""
STRETCH, MOST_REPEATED, COMMONEST = 64, 0.25, 0.05
"""Of so many readings in a row at most this share may repeat the one before, and at most this share of all have one
value. Of a sensor that repeats more often, or is coarse, longer runs come with the next regime: on MSL, whose commands
are on or off, on SKAB, whose flow is in whole litres, most runs beyond twice the longest were normal."""
ALIKE = 4
"""Last bits by which equal readings may differ once they were averaged."""


def is_alike(values: Floats, other: Floats | float) -> Flags:
    """Where readings are equal, but for last bits such as averaging leaves.

    >>> is_alike(np.array([0.3, 0.31]), 0.1 + 0.2).tolist()
    [True, False]
    """
    return np.asarray(np.abs(values - other) <= ALIKE * np.spacing(np.abs(other)))


def measure_runs(values: Floats, observed: Flags, segment: NDArray[Any], *, back: Sequence[int], ahead: int) -> Counts:
    """How many readings of one value each reading is among, (n_steps, n_sensors); 0 where a sensor did not read.

    Only readings at most ``back`` steps before, for each sensor, and ``ahead`` steps after are counted, so that what is
    said of a step hangs on no more. A step without a reading neither breaks a run nor counts, and a value that was
    carried on is no reading; the end of a segment breaks it. Raises ``ShapeError`` if shapes do not fit together.

    >>> values = np.array([[7.0], [7.0], [np.nan], [7.0], [5.0]])
    >>> measure_runs(values, ~np.isnan(values), np.zeros(5), back=[9], ahead=9).ravel().tolist()
    [3, 3, 0, 3, 1]
    >>> measure_runs(values, ~np.isnan(values), np.zeros(5), back=[2], ahead=0).ravel().tolist()
    [1, 2, 0, 2, 1]
    """
    if values.ndim != 2 or observed.shape != values.shape or segment.shape != values.shape[:1]:
        raise ShapeError(
            f"measure_runs expected (n_steps, n_sensors) values and flags, and one segment a step, got shapes "
            f"{values.shape}, {observed.shape} and {segment.shape}. Pass values, observed and segment of one series."
        )
    if len(back) != values.shape[1]:
        raise ShapeError(f"measure_runs expected one `back` for each of {values.shape[1]} sensors, got {len(back)}.")
    found = np.zeros(values.shape, dtype=np.int64)
    for sensor, steps in enumerate(back):
        place = np.flatnonzero(observed[:, sensor])
        if not len(place):
            continue
        begins = _begins(values[place, sensor], segment[place])
        first = np.flatnonzero(begins)
        run = np.cumsum(begins) - 1
        last = np.append(first[1:], len(place)) - 1
        earliest = np.maximum(first[run], np.searchsorted(place, place - steps))
        latest = np.minimum(last[run], np.searchsorted(place, place + ahead, side="right") - 1)
        found[place, sensor] = latest - earliest + 1
    return found


@dataclass(frozen=True)
class FlatlineRule:
    """How many readings of one value are no news of each sensor. Make one with ``FlatlineRule.learn``.

    - ``limits``: the longest such run; ``None`` for a sensor of which it is never told that it sticks, because it often
      stands still, or too little is known.
    - ``back``: how many steps before a reading are looked at.
    """

    limits: tuple[int | None, ...]
    back: tuple[int, ...]

    @classmethod
    def none(cls, sensors: int) -> Self:
        """Of so many sensors, which may all stand still.

        >>> FlatlineRule.none(2)
        FlatlineRule(limits=(None, None), back=(0, 0))
        """
        return cls((None,) * sensors, (0,) * sensors)

    @classmethod
    def learn(
        cls, values: Floats, observed: Flags, segment: NDArray[Any], *, factor: float = 2.0, least: int = 8
    ) -> Self:
        """Take each sensor's limit from its runs in training.

        The limit is the longest run times the ``factor``, and never below ``least``: smaller, and quiet hours of other
        days are told; larger, and a fault is told later. A sensor that often stands still, for a quarter of any 64
        readings, or is coarse, with one value in a twentieth of them, has no limit; nor has one that reads so seldom
        that more than 256 steps would have to be looked at, or read less than 8 times as often. Raises
        ``SettingError`` if ``factor`` is below 1 or ``least`` below 2.

        >>> values = np.column_stack([np.arange(200.0), np.arange(200.0) // 3, np.arange(200.0) % 9])
        >>> FlatlineRule.learn(values, np.full((200, 3), True), np.zeros(200))
        FlatlineRule(limits=(8, None, None), back=(16, 0, 0))
        """
        if not (factor >= 1 and least >= 2):
            raise SettingError(
                f"FlatlineRule expected a factor of at least 1 and a least limit of at least 2. Received: "
                f"factor={factor}, least={least}."
            )
        n_steps, n_sensors = values.shape
        longest = measure_runs(values, observed, segment, back=[n_steps] * n_sensors, ahead=n_steps)
        limits: list[int | None] = []
        back: list[int] = []
        for sensor, run in enumerate(longest.max(axis=0, initial=0).tolist()):
            read = observed[:, sensor]
            limit, readings = max(least, math.ceil(factor * run)), int(read.sum())
            steps = math.ceil(2 * limit * n_steps / max(1, readings))
            told = readings >= ENOUGH * limit and steps <= MOST_STEPS and _moves(values[read, sensor], segment[read])
            limits.append(limit if told else None)
            back.append(steps if told else 0)
        return cls(tuple(limits), tuple(back))

    @property
    def reach(self) -> int:
        """How many steps before a step bear on what is said of it."""
        return max(self.back, default=0)

    def excess(self, values: Floats, observed: Flags, segment: NDArray[Any], *, ahead: int) -> Floats:
        """By how much the run that each reading is in is too long: 0 up to its limit, then log2(2 run / limit).

        So it is 1 at the limit and grows by 1 each time that the run doubles, as far as it is looked at, which is
        ``ahead`` steps after a reading at most. Raises ``ShapeError`` as ``measure_runs``.

        >>> rule, still = FlatlineRule(limits=(8,), back=(16,)), np.full((9, 1), 7.4)
        >>> rule.excess(still, ~np.isnan(still), np.zeros(9), ahead=0).ravel().round(2).tolist()
        [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.17]
        """
        told = np.array([limit is not None for limit in self.limits], dtype=bool)
        found = np.zeros(values.shape)
        if not told.any():
            return found
        run = measure_runs(values, observed & told, segment, back=self.back, ahead=ahead)
        limits = np.array([1 if limit is None else limit for limit in self.limits])
        beyond = told & (run > limits)
        found[beyond] = np.log2(2 * (run / limits)[beyond])
        return found


def _begins(read: Floats, segment: NDArray[Any]) -> Flags:
    """Which readings of a sensor are another value than the one before, or of another segment."""
    return np.append(True, ~is_alike(read[:-1], read[1:]) | (np.diff(segment) != 0))


def _moves(read: Floats, segment: NDArray[Any]) -> bool:
    """Whether a sensor hardly ever repeats a reading."""
    repeated = np.cumsum(np.append(0, ~_begins(read, segment)))
    most = int((repeated[STRETCH:] - repeated[:-STRETCH]).max(initial=0)) / STRETCH
    commonest = int(np.unique(read, return_counts=True)[1].max(initial=0)) / max(1, len(read))
    return most <= MOST_REPEATED and commonest <= COMMONEST
