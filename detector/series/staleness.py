"""Sensors that stop reporting: how long each has been silent, and what is longer than in training."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from detector.arrays import Counts, Flags, Floats
from detector.errors import SettingError, ShapeError


def measure_staleness(observed: Flags, codes: Counts, excused: Flags | None = None) -> Counts:
    """How many steps each sensor has been silent for: 0 where it reads, then 1, 2, 3; both (n_steps, n_sensors).

    A series that begins silent counts from its beginning. Filled values are no readings. Steps that are ``excused``,
    (n_steps,), are not counted. Raises ``ShapeError`` if the first two do not fit together.

    >>> observed = np.array([[True], [False], [False], [True], [False]])
    >>> measure_staleness(observed, np.array([0, 0, 0, 0, 1])).ravel().tolist()
    [0, 1, 2, 0, 1]
    """
    if observed.ndim != 2 or codes.shape != observed.shape[:1]:
        raise ShapeError(
            f"measure_staleness expected (n_steps, n_sensors) flags and one code a step, got shapes {observed.shape} "
            f"and {codes.shape}. Pass series.observed and series.codes."
        )
    since = np.maximum(_last_reading(observed), _begins(codes)[:, None] - 1)
    counted = np.ones(len(codes), dtype=bool) if excused is None else ~excused
    steps = np.append(0, np.cumsum(counted))
    return np.asarray(steps[1:, None] - steps[since + 1])


@dataclass(frozen=True)
class StalenessRule:
    """How many silent steps are normal for each sensor. Make one with ``StalenessRule.learn``.

    - ``limits``: for each sensor, the longest silence that is no news; ``None`` for a sensor that never read in
      training, whose silence never is.
    """

    limits: tuple[int | None, ...]

    @classmethod
    def learn(
        cls, observed: Flags, codes: Counts, *, quantile: float = 0.99, factor: float = 2.0, least: int = 3
    ) -> Self:
        """Take each sensor's limit from its silences in training.

        Only a silence between two readings counts: a sensor not yet installed, or one that died and stayed silent, must
        not teach that this is normal. The limit is the ``quantile`` of the lengths, at least as long as one that
        occurred, times the ``factor``, and never below ``least``. Raises ``SettingError`` if ``quantile`` is outside 0
        to 1, ``factor`` below 1 or ``least`` below 0.

        >>> observed = np.array([[True, False]] * 5 + [[False, False]] * 4 + [[True, False]])
        >>> StalenessRule.learn(observed, np.zeros(10, dtype=np.int64))
        StalenessRule(limits=(8, None))
        """
        if not (0 <= quantile <= 1 and factor >= 1 and least >= 0):
            raise SettingError(
                f"StalenessRule expected a quantile of 0 to 1, a factor of at least 1 and a least limit of at least 0. "
                f"Received: quantile={quantile}, factor={factor}, least={least}."
            )
        silent = measure_staleness(observed, codes)
        ended = (silent[:-1] > 0) & (silent[1:] == 0) & (codes[1:] == codes[:-1])[:, None]
        ended &= _last_reading(observed)[:-1] >= _begins(codes)[:-1, None]
        limits: list[int | None] = []
        for sensor, read in enumerate(np.any(observed, axis=0).tolist()):
            lengths = silent[:-1, sensor][ended[:, sensor]]
            typical = float(np.quantile(lengths, quantile, method="higher")) if len(lengths) else 0.0
            limits.append(max(least, math.ceil(factor * typical)) if read else None)
        return cls(tuple(limits))

    def beyond(self, silent: NDArray[np.int64] | Floats) -> Flags:
        """Where a silence, in steps, is longer than its limit; NaN, never read, is not.

        Raises ``ShapeError`` if there are more or fewer sensors than limits.

        >>> StalenessRule(limits=(3, None)).beyond(np.array([[3, 3], [4, 4]])).tolist()
        [[False, False], [True, False]]
        """
        if silent.ndim < 1 or silent.shape[-1] != len(self.limits):
            raise ShapeError(
                f"StalenessRule has limits for {len(self.limits)} sensors, got an array of shape {silent.shape}. "
                f"Measure the sensors it was learnt from, in the same order."
            )
        limits = np.array([np.inf if limit is None else limit for limit in self.limits])
        return np.asarray(silent > limits, dtype=np.bool_)


def _last_reading(observed: Flags) -> Counts:
    """The step of the last reading at or before each step; -1 if there was none, in any series."""
    place = np.arange(len(observed))[:, None]
    last: Counts = np.maximum.accumulate(np.where(observed, place, -1), axis=0)
    return last


def _begins(codes: Counts) -> Counts:
    """The first step of each step's series."""
    place = np.arange(len(codes))
    first = np.append(True, codes[1:] != codes[:-1])[: len(codes)]
    begins: Counts = np.maximum.accumulate(np.where(first, place, 0))
    return begins
