"""Time as people live it: which part of the day, which kind of day, or which part of another period a time is in."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from detector.arrays import Counts
from detector.errors import SettingError
from detector.series.timestamps import show_span

DAY = 86_400
_UNITS = {"s": 1, "m": 60, "min": 60, "h": 3_600, "d": DAY}
_PERIOD = re.compile(r"([0-9]+(?:[.][0-9]+)?)\s*(s|m|min|h|d)")
ALIKE = (0,) * 7
WORKING = (0, 0, 0, 0, 0, 1, 1)
SATURDAYS = (0, 0, 0, 0, 0, 1, 2)
EACH = tuple(range(7))
NAMES = {
    ALIKE: "a day",
    WORKING: "a week: working days, and Saturdays and Sundays",
    SATURDAYS: "a week: working days, Saturdays, Sundays",
    EACH: "a week: each weekday by itself",
}
MONDAY = np.datetime64("2001-01-01", "s")


@dataclass(frozen=True)
class Rhythm:
    """Times in kinds of days, and parts of a day or of another period.

    - ``days``: the kind of each weekday, Monday first; all of one kind where only the hour counts.
    - ``seconds``: the period: a day, or another one, which knows no kinds of days.
    - ``parts``: how many parts it has.
    - ``zone``: whose clock tells the hour, so that six in the morning is six in summer too.

    >>> times = np.array(["2026-01-02T06:00", "2026-01-03T18:30"], dtype="datetime64[us]")
    >>> Rhythm(WORKING, parts=24).of(times).tolist()
    [6, 42]
    """

    days: tuple[int, ...] = ALIKE
    seconds: float = DAY
    parts: int = 96
    zone: str = "UTC"

    @property
    def size(self) -> int:
        """How many parts of all kinds of days there are."""
        return self.parts * (max(self.days) + 1)

    @property
    def name(self) -> str:
        """In words.

        >>> Rhythm().name, Rhythm(seconds=4_800).name
        ('a day', '80 min')
        """
        if self.seconds == DAY:
            return NAMES.get(self.days, "a week")
        return show_span(round(self.seconds * 1_000_000))

    def of(self, times: NDArray[np.datetime64]) -> Counts:
        """The part that each time, in UTC and without zone, is in: from 0 to ``size`` - 1."""
        local = times.astype("datetime64[us]")
        if self.zone != "UTC":
            aware = pd.DatetimeIndex(local).tz_localize("UTC").tz_convert(self.zone)
            local = aware.tz_localize(None).to_numpy().astype("datetime64[us]")
        since = (local - MONDAY.astype("datetime64[us]")).astype(np.int64) / 1e6
        part = np.floor(np.mod(since, self.seconds) / self.seconds * self.parts).astype(np.int64)
        kind = np.asarray(self.days)[np.mod(np.floor(since / DAY), 7).astype(np.int64)]
        return np.asarray(kind * self.parts + np.minimum(part, self.parts - 1))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return vars(self) | {"days": list(self.days)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of ``to_dict``."""
        return cls(**{**values, "days": tuple(values["days"])})


def period_of(text: str) -> float:
    """A period in seconds.

    Raises ``SettingError`` if it is none.

    >>> period_of("7d")
    604800.0
    """
    found = _PERIOD.fullmatch(text.strip())
    seconds = float(found[1]) * _UNITS[found[2]] if found is not None else 0.0
    if not seconds > 0:
        raise SettingError(f"A period expected a time such as 1d, 7d or 8h, received {text!r}.")
    return seconds
