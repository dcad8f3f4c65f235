"""Stretches of training that alone make the threshold high, such as a holiday or a fault that nobody named."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detector.arrays import Counts, Flags, Floats
from detector.detectors.series.recipe import SeriesRecipe

LOUD = 2.0
"""How many times as far from the median the threshold must lie with stretches as without them. Less, and some are named
in most trainings; more, and a threshold that finds little goes unnoticed."""
MOST = 3
"""Stretches that are no exceptions any more if they are more."""
LEFT = 0.5
"""Share of the rows that must be left without them: what is usual for half of the rows is no exception."""


@dataclass(frozen=True)
class Stretch:
    """Steps one after the other, with a high risk.

    - ``first``, ``last``: their places among the steps of the model, the last included.
    - ``code``: which series they are of.
    - ``entity``: whose they are; empty if there is one series.
    - ``start``, ``end``: the times of the first and the last one, in UTC; ``None`` if there are none.
    """

    first: int
    last: int
    code: int
    entity: Any = ""
    start: np.datetime64 | None = None
    end: np.datetime64 | None = None


@dataclass(frozen=True)
class LoudStretches:
    """The few stretches that a threshold rests on.

    - ``stretches``: the one with the highest risk first.
    - ``threshold``, ``without``: with them, and as it would be without them.
    """

    stretches: tuple[Stretch, ...]
    threshold: float
    without: float

    def named(self, entities: Any, times: NDArray[np.datetime64] | None) -> LoudStretches:
        """The same with whose and when they were.

        ``entities`` are the names by code, ``None`` for one series; ``times``, (n_steps,), of the steps of the model.
        """
        stretches = self.stretches
        if entities is not None:
            stretches = tuple(replace(one, entity=entities[one.code]) for one in stretches)
        if times is not None:
            stretches = tuple(replace(one, start=times[one.first], end=times[one.last]) for one in stretches)
        return replace(self, stretches=stretches)


def find_loud_stretches(
    risk: Floats, steps: Counts, codes: Counts, recipe: SeriesRecipe, *, length: int
) -> LoudStretches | None:
    """The fewest stretches, up to 3, that make the threshold twice as high or more; ``None`` if no so few do.

    - ``risk``, (n_rows,): of the rows that calibrate, by models that did not learn from them.
    - ``steps``, ``codes``, (n_rows,): the place of each, increasing, and which series it is of.
    - ``length``: rows in a window; high risks that lie no further apart are one stretch.

    >>> risk = np.random.default_rng(0).normal(size=1000)
    >>> recipe, steps, codes = SeriesRecipe().resolved(1000), np.arange(1000), np.zeros(1000, dtype=np.int64)
    >>> find_loud_stretches(risk, steps, codes, recipe, length=32)
    >>> risk[300:340] += 20.0
    >>> found = find_loud_stretches(risk, steps, codes, recipe, length=32)
    >>> found.stretches[0].first, found.stretches[0].last, found.threshold > 5 * found.without
    (300, 339, True)
    """
    threshold, around = recipe.threshold(risk), recipe.rows_around(length)
    high = risk - np.median(risk) >= (np.quantile(risk, recipe.quantile) - np.median(risk)) / 2
    rest: Flags = np.ones(len(risk), dtype=bool)
    stretches: list[Stretch] = []
    while len(stretches) < MOST:
        peak = int(np.where(rest, risk, -np.inf).argmax())
        own = codes == codes[peak]
        first, last = _edges(steps[high & own], int(steps[peak]), length)
        stretches.append(Stretch(first, last, int(codes[peak])))
        rest &= ~(own & (steps >= first - around) & (steps <= last + around))
        if rest.mean() < LEFT:
            return None
        without = recipe.threshold(risk[rest])
        if threshold - np.median(risk) > LOUD * (without - np.median(risk[rest])):
            return LoudStretches(tuple(stretches), threshold, without)
    return None


def _edges(steps: Counts, peak: int, length: int) -> tuple[int, int]:
    """The first and last of the steps around a peak of which none is further than ``length`` from the next.

    >>> _edges(np.array([3, 40, 45, 50, 90]), 45, 8)
    (40, 50)
    """
    part = np.cumsum(np.diff(steps, prepend=steps[:1]) > length)
    own = steps[part == part[np.searchsorted(steps, peak)]] if peak in steps else np.array([peak])
    return int(own[0]), int(own[-1])
