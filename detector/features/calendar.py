"""What the clock says of a row: hour, night, weekend, and both circles as sine and cosine."""

from __future__ import annotations

import numpy as np

from detector.arrays import Floats, Times
from detector.errors import SettingError, nearest
from detector.features.duration import MICROSECONDS

CALENDAR = ("hour", "weekday", "night", "weekend", "hour_sin", "hour_cos", "weekday_sin", "weekday_cos")
NIGHT_ENDS = 6
DAY = MICROSECONDS["d"]
FIRST_WEEKDAY = 3  # 1 January 1970 was a Thursday


def check_calendar(names: tuple[str, ...]) -> None:
    """Raise if one of the names is no calendar feature.

    >>> check_calendar(("hour", "night"))
    """
    for name in names:
        if name not in CALENDAR:
            raise SettingError(f"There is no calendar feature {name!r}. {nearest(name, CALENDAR)}")


def calendar(time: Times, name: str) -> Floats:
    """One calendar feature of times in microseconds since 1970; night is 00:00 to 06:00, weekdays count from Monday.

    >>> saturday = np.array([np.datetime64("2024-06-01T03:00", "us")]).astype(np.int64)
    >>> [calendar(saturday, name)[0].item() for name in ("hour", "weekday", "night", "weekend")]
    [3.0, 5.0, 1.0, 1.0]
    """
    hour = time % DAY / MICROSECONDS["h"]
    weekday = (time // DAY + FIRST_WEEKDAY) % 7
    if name == "hour":
        return np.floor(hour)
    if name == "weekday":
        return weekday.astype(np.float64)
    if name == "night":
        return (hour < NIGHT_ENDS).astype(np.float64)
    if name == "weekend":
        return (weekday >= 5).astype(np.float64)
    circle = 2 * np.pi * (hour / 24 if name.startswith("hour") else (weekday + hour / 24) / 7)
    return np.sin(circle) if name.endswith("sin") else np.cos(circle)
