"""How readings become a regular series, as a policy: nothing is filled, merged or passed over unless it says so."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal, get_args

import pandas as pd

from detector.checks import check_zone
from detector.errors import SettingError, nearest

Align = Literal["steps", "mean", "last"]
Missing = Literal["mask", "previous", "reject"]
Unsorted = Literal["sort", "reject"]
Repeated = Literal["quarantine", "reject"]
_KNOWN = {"align": Align, "missing": Missing, "unsorted": Unsorted, "repeated": Repeated}
MICROSECOND = pd.Timedelta(microseconds=1)


@dataclass(frozen=True)
class Sampling:
    """What to do with gaps, uneven times, missing values, disorder and repeats.

    Parameters
    ----------
    every : str or timedelta, optional
        The sampling interval, such as ``"1min"``; if not given, the median of the differences between readings.
    align : {"steps", "mean", "last"}
        ``"steps"``: each reading is a step of its own; right where sensors report together, about every interval.
        ``"mean"``, ``"last"``: a step holds the mean or the last of each sensor's readings within one interval of the
        clock; right where sensors report apart, or faster than needed.
    missing : {"mask", "previous", "reject"}
        Missing readings and values stay NaN; or the last value is carried on, and marked as not observed; or they are
        an error, as is an uneven step.
    limit : int
        A gap of more steps splits the series in two, which no window spans. A shorter one becomes missing steps. A
        value is carried over this many steps at most.
    jitter : float
        How much longer than the interval, as a share of it, a difference may be and still be one step. At 1 a
        difference of two intervals is one step: for clocks that cut off what is less than an interval.
    unsorted : {"sort", "reject"}
        What becomes of readings that come after later ones.
    repeated : {"quarantine", "reject"}
        What becomes of a second reading of the same time, where each is a step of its own.
    clock : str, optional
        The zone by whose clock times were told before they were put into UTC, such as ``"Europe/Berlin"``. Of the hour
        that it repeats where summer time ends, the second pass has the times of the first: its readings are repeated
        ones, and that it has none is no silence. Without it, an hour that comes twice is an error.
    counters : tuple of str
        Sensors that count upwards, such as meters of energy or water: a step holds what was added since the step
        before. Where one begins anew, the step is missing.

    Raises
    ------
    SettingError
        If a value has no meaning.

    >>> Sampling(every="90s").interval
    90000000
    """

    every: str | timedelta | None = None
    align: Align = "steps"
    missing: Missing = "mask"
    limit: int = 5
    jitter: float = 0.5
    unsorted: Unsorted = "sort"
    repeated: Repeated = "quarantine"
    clock: str | None = None
    counters: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, known in _KNOWN.items():
            if (value := getattr(self, name)) not in get_args(known):
                raise SettingError(f"Sampling knows no {name}={value!r}. {nearest(str(value), get_args(known))}")
        if self.limit < 0:
            raise SettingError(f"Sampling expected a limit of at least 0 steps. Received: limit={self.limit}.")
        if not 0 <= self.jitter <= 1:
            raise SettingError(f"Sampling expected a jitter of 0 to 1 intervals. Received: jitter={self.jitter}.")
        if self.clock is not None:
            check_zone("clock", self.clock)
        if isinstance(self.counters, str):
            raise SettingError(f"Sampling expected a tuple of sensors. Received: counters={self.counters!r}.")
        object.__setattr__(self, "counters", tuple(self.counters))
        _ = self.interval

    @property
    def interval(self) -> int | None:
        """``every`` in microseconds."""
        if self.every is None:
            return None
        try:
            span = int(pd.Timedelta(self.every) // MICROSECOND)
        except (ValueError, TypeError) as error:
            raise SettingError(
                f"Sampling expected an interval such as every='1min' or '500ms'. Received: every={self.every!r}."
            ) from error
        if span < 1:
            raise SettingError(
                f"Sampling expected an interval of at least a microsecond, with its unit, such as every='1min'. "
                f"Received: every={self.every!r}."
            )
        return span


@dataclass(frozen=True)
class SamplingReport:
    """What it took to make series regular.

    - ``moved``: rows that came after a later one of their series, and were sorted.
    - ``merged``: rows that share a step with an earlier one (``align`` is ``"mean"`` or ``"last"``).
    - ``uneven``: single steps that are more than half an interval too long or too short.
    - ``filled``, ``missing``: values carried on, and values still missing, by sensor. Steps within gaps count, those of
      a split do not.
    - ``gaps``: one line a gap: ``entity``, the times ``after`` and ``before`` which it lies, ``steps`` that are
      missing, ``handled`` (masked, filled or split), and ``summer_time``: whether it is the one hour left out where a
      clock without a zone is put forward.
    """

    moved: int
    merged: int
    uneven: int
    filled: dict[str, int]
    missing: dict[str, int]
    gaps: pd.DataFrame
