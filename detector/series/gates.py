"""What operators want to be told of each sensor: which way, how far, how long, beyond which limits, and when not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from detector.arrays import Flags
from detector.errors import SettingError, nearest

Direction = Literal["both", "up", "down"]


@dataclass(frozen=True)
class SensorGate:
    """What of one sensor is told.

    Parameters
    ----------
    direction : {"both", "up", "down"}
        Whether it is told that it reads too high, too low, or either.
    least_deviation : float
        How far from what it should have read it must be, in its unit. Too small holds nothing back; too big hides a
        fault until it is that large.
    least_relative : float
        The same as a share of what it should have read, for sensors without a zero within their range. Where both are
        given, both must be reached.
    least_seconds : float
        For how long. A fault is told that much later.
    stuck : bool
        Whether it is told that it shows one value for longer than ever in training; if not, that adds nothing to risks.
    low, high : float
        Readings below or above are always told, whatever else is set and whether or not the models see anything.

    Raises
    ------
    SettingError
        If a value has no meaning.

    >>> SensorGate(direction="up", least_deviation=2.0).holds_back
    True
    """

    direction: Direction = "both"
    least_deviation: float = 0.0
    least_relative: float = 0.0
    least_seconds: float = 0.0
    stuck: bool = True
    low: float = -np.inf
    high: float = np.inf

    def __post_init__(self) -> None:
        if self.direction not in ("both", "up", "down"):
            raise SettingError(f"direction must be up, down or both. Received: direction={self.direction!r}.")
        for name in ("least_deviation", "least_relative", "least_seconds"):
            if not getattr(self, name) >= 0:
                raise SettingError(f"{name} must be at least 0. Received: {name}={getattr(self, name)}.")
        if not self.low < self.high:
            raise SettingError(f"A range must go up. Received: low={self.low}, high={self.high}.")

    @property
    def holds_back(self) -> bool:
        """Whether there is anything that it does not let through."""
        return self.direction != "both" or max(self.least_deviation, self.least_relative, self.least_seconds) > 0

    @property
    def has_range(self) -> bool:
        """Whether there are limits."""
        return bool(np.isfinite(self.low) or np.isfinite(self.high))


@dataclass(frozen=True)
class Span:
    """A time of maintenance, in UTC and without zone; ``last`` is not included.

    ``entity`` is the machine, as text; ``None`` if all of them.
    """

    first: pd.Timestamp
    last: pd.Timestamp
    entity: str | None = None
    reason: str = ""


class Calendar(Protocol):
    """Knows when machines are in maintenance."""

    def spans(self, first: pd.Timestamp, last: pd.Timestamp) -> Sequence[Span]:
        """Those between two times, in UTC and without zone."""
        ...


@dataclass(frozen=True)
class Gates:
    """What is told of all sensors.

    - ``sensors``: by name, where it is another than ``otherwise``.
    - ``otherwise``: of all others.
    - ``calendar``: when machines are in maintenance; nothing is told then.
    - ``units``, ``names``: of sensors, for what is said of them.
    """

    sensors: Mapping[str, SensorGate] = field(default_factory=dict)
    otherwise: SensorGate = SensorGate()
    calendar: Calendar | None = None
    units: Mapping[str, str] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)

    def of(self, sensor: str) -> SensorGate:
        """What is told of one."""
        return self.sensors.get(sensor, self.otherwise)

    def check(self, sensors: Iterable[str]) -> None:
        """Refuse names of sensors that there are not.

        Raises ``SettingError`` with the one that was perhaps meant.

        >>> Gates({"heat": SensorGate()}).check(["heat", "flow"])
        """
        known = list(sensors)
        for name in self.sensors:
            if name not in known:
                raise SettingError(f"`series.sensors` names {name!r}, which is no sensor. {nearest(name, known)}")

    def is_quiet(self, times: NDArray[np.datetime64] | None, entity: pd.Index) -> Flags:
        """Which steps or rows are in maintenance, by their times and the names of their machines."""
        quiet = np.zeros(len(entity), dtype=bool)
        known = np.empty(0, dtype="datetime64[us]") if times is None else times[~np.isnat(times)]
        if self.calendar is None or times is None or not len(known):
            return quiet
        names = np.asarray(entity.astype(str))
        for span in self.calendar.spans(pd.Timestamp(known.min()), pd.Timestamp(known.max())):
            inside = (times >= span.first.to_datetime64()) & (times < span.last.to_datetime64())
            quiet |= inside if span.entity is None else inside & (names == span.entity)
        return quiet
