"""When something is to happen: every so often, or at times of the clock on the wall.

APScheduler's own cron trigger loops in the hour that daylight saving time repeats, and counts weekdays from Monday
where crontab counts from Sunday; so the times are worked out here, and APScheduler is told them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_EVERY = re.compile(r"every\s+(\d+)\s*([smhd])")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_FIELDS = (
    ("minute", 0, 59, ()),
    ("hour", 0, 23, ()),
    ("day", 1, 31, ()),
    ("month", 1, 12, _MONTHS),
    ("weekday", 0, 7, _DAYS),
)
_YEARS = 9  # a 29th of February can be eight years away


@dataclass(frozen=True)
class Interval:
    """Every so many seconds, whatever the clock says."""

    seconds: int

    def after(self, moment: datetime) -> datetime:
        """The next time after a moment."""
        return moment + timedelta(seconds=self.seconds)


@dataclass(frozen=True)
class Cron:
    """At times of the clock on the wall, each once on every day, also where the clock is turned back or forward.

    A time that is skipped in spring comes an hour later, one that is repeated in autumn comes the first time. With
    ``*`` for the hour there is no such rule: an hour that does not exist is left out, a repeated one counts twice.

    Parameters
    ----------
    minutes, hours, days, months, weekdays : frozenset of int
        When it happens; weekdays are 0 for Sunday to 6.
    every_hour, any_day, any_weekday : bool
        Whether the field was ``*``. If neither day nor weekday is, either will do, as in crontab.
    zone : ZoneInfo
        Whose clock.
    """

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    every_hour: bool
    any_day: bool
    any_weekday: bool
    zone: ZoneInfo

    def after(self, moment: datetime) -> datetime:
        """The next time after a moment, as a time of the zone.

        >>> night = parse("30 2 * * * Europe/Berlin")
        >>> str(night.after(datetime(2026, 3, 29, tzinfo=UTC)))
        '2026-03-29 03:30:00+02:00'
        >>> str(night.after(datetime(2026, 10, 25, 0, 45, tzinfo=UTC)))
        '2026-10-26 02:30:00+01:00'
        """
        day = moment.astimezone(self.zone).date() - timedelta(days=1)
        for _ in range(366 * _YEARS):
            if self._is_day(day):
                later = [instant for instant in self._instants(day) if instant > moment]
                if later:
                    return min(later).astimezone(self.zone)
            day += timedelta(days=1)
        return datetime.max.replace(tzinfo=UTC)  # `parse` refuses a date that never comes

    def _is_day(self, day: date) -> bool:
        if day.month not in self.months:
            return False
        right_day, right_weekday = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        if self.any_day or self.any_weekday:
            return right_day and right_weekday
        return right_day or right_weekday

    def _instants(self, day: date) -> set[datetime]:
        found: set[datetime] = set()
        for hour in self.hours:
            for minute in self.minutes:
                wall = datetime.combine(day, time(hour, minute))
                first = wall.replace(tzinfo=self.zone).astimezone(UTC)
                exists = first.astimezone(self.zone).replace(tzinfo=None) == wall
                if exists or not self.every_hour:
                    found.add(first)
                if exists and self.every_hour:
                    found.add(wall.replace(tzinfo=self.zone, fold=1).astimezone(UTC))
        return found


When = Interval | Cron


def parse(text: str, *, zone: str = "UTC") -> When:
    """Read ``every 5m`` (s, m, h, d), or five fields as in crontab with a time zone behind them if need be.

    Parameters
    ----------
    text : str
        Names of days and months, lists, ranges and steps are understood.
    zone : str
        The time zone where the text names none.

    Raises
    ------
    ValueError
        Saying which part has no meaning.

    >>> parse("every 5m")
    Interval(seconds=300)
    >>> sorted(parse("0 3 * * fri-sun").weekdays)
    [0, 5, 6]
    """
    words = text.strip().lower()
    if (every := _EVERY.fullmatch(words)) is not None:
        seconds = int(every[1]) * _UNITS[every[2]]
        if seconds < 1:
            raise ValueError(f"expected at least a second, received {text!r}.")
        return Interval(seconds)
    fields = words.split()
    if len(fields) not in (5, 6):
        raise ValueError(
            f"expected `every 5m` or the five fields of crontab, such as `0 3 * * sun`, a time zone behind them if "
            f"need be; received {text!r}."
        )
    sets = [_field(field, *rule) for field, rule in zip(fields, _FIELDS, strict=False)]
    weekdays = frozenset(number % 7 for number in sets[4])
    months, days = sets[3], sets[2]
    if fields[4] == "*" and min(days) > max(29 if m == 2 else 30 if m in (4, 6, 9, 11) else 31 for m in months):
        raise ValueError(f"expected a date that exists, received {text!r}.")
    return Cron(
        minutes=sets[0],
        hours=sets[1],
        days=days,
        months=months,
        weekdays=weekdays,
        every_hour=fields[1] == "*",
        any_day=fields[2].startswith("*"),
        any_weekday=fields[4].startswith("*"),
        zone=zone_of(text.split()[5] if len(fields) == 6 else zone),
    )


def zone_of(name: str) -> ZoneInfo:
    """The time zone of that name.

    Raises
    ------
    ValueError
        If there is none.
    """
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"expected a time zone such as UTC or Europe/Berlin, received {name!r}.") from None


def _field(text: str, title: str, low: int, high: int, names: tuple[str, ...]) -> frozenset[int]:
    found: set[int] = set()
    for part in text.split(","):
        span, _, step = part.partition("/")
        first, dash, last = span.partition("-")
        start, end = (low, high) if span == "*" else (_number(first, names, low), _number(last or first, names, low))
        if title == "weekday" and dash and end == 0:
            end = 7  # fri-sun
        if span != "*" and step and not dash:
            end = high
        every = int(step) if step.isdecimal() else 0 if "/" in part else 1
        if not (low <= start <= end <= high) or every < 1:
            raise ValueError(f"expected {title}s from {low} to {high}, such as 1,3 or 1-5 or */2; received {part!r}.")
        found.update(range(start, end + 1, every))
    return frozenset(found)


def _number(word: str, names: tuple[str, ...], low: int) -> int:
    if word in names:
        return names.index(word) + low
    return int(word) if word.isdecimal() else -1
