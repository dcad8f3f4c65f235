"""When something is to happen: every so often, or at times of the clock on the wall.

APScheduler's own cron trigger loops in the hour that daylight saving time repeats, and counts weekdays from Monday
where crontab counts from Sunday; so cronsim works the times out as Debian's cron does, and APScheduler is told them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

_STEP = timedelta(seconds=30)
"""Less than there is between two times of crontab."""
_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_EVERY = re.compile(r"every\s+(\d+)\s*(?:([smhd])|(second|minute|hour|day)s?)")
_UP_TO_SUNDAY = re.compile(r"-(0|sun)(?=[,/]|$)")
# What cronsim calls each field, what it is called here, and its numbers.
_FIELDS = {
    "minute": ("minutes", 0, 59),
    "hour": ("hours", 0, 23),
    "day-of-month": ("days", 1, 31),
    "month": ("months", 1, 12),
    "day-of-week": ("weekdays", 0, 7),
}


@dataclass(frozen=True)
class Interval:
    """Every so many seconds, whatever the clock says."""

    seconds: int

    def after(self, moment: datetime) -> datetime:
        """The next time after a moment."""
        return moment + timedelta(seconds=self.seconds)

    def last(self, first: datetime, now: datetime) -> datetime:
        """Of one of its times and all that follow, the last that is not later than now.

        >>> str(Interval(300).last(datetime(2026, 1, 1, 0, 2, tzinfo=UTC), datetime(2026, 6, 1, tzinfo=UTC)))
        '2026-05-31 23:57:00+00:00'
        """
        return first + (now - first) // timedelta(seconds=self.seconds) * timedelta(seconds=self.seconds)


@dataclass(frozen=True)
class Cron:
    """At times of the clock on the wall, each once on every day, also where the clock is turned back or forward.

    A time that is skipped in spring comes as soon as the clock has been turned, one that is repeated in autumn comes
    the first time. Where minute or hour begins with ``*`` there is no such rule: an hour that does not exist is left
    out, a repeated one counts twice.

    - ``fields``: The five of crontab. If neither day nor weekday begins with ``*``, either will do.
    - ``zone``: Whose clock.
    """

    fields: str
    zone: ZoneInfo

    def after(self, moment: datetime) -> datetime:
        """The next time after a moment, as a time of the zone.

        >>> night = parse("30 2 * * * Europe/Berlin")
        >>> str(night.after(datetime(2026, 3, 29, tzinfo=UTC)))
        '2026-03-29 03:00:00+02:00'
        >>> str(night.after(datetime(2026, 10, 25, 0, 45, tzinfo=UTC)))
        '2026-10-26 02:30:00+01:00'
        """
        times = CronSim(self.fields, moment.astimezone(self.zone))
        # In the repeated hour cronsim may name the first passing of a time, which is over.
        return next(each for each in times if each.astimezone(UTC) > moment)

    def last(self, first: datetime, now: datetime) -> datetime:
        """Of one of its times and all that follow, the last that is not later than now.

        >>> nightly = parse("30 2 * * *")
        >>> str(nightly.last(datetime(1970, 1, 1, 2, 30, tzinfo=UTC), datetime(2026, 6, 1, tzinfo=UTC)))
        '2026-05-31 02:30:00+00:00'
        """
        found, early, late = first, first.astimezone(UTC), now.astimezone(UTC)
        while late - early > _STEP:
            middle = early + (late - early) / 2
            if (following := self.after(middle)).astimezone(UTC) <= now:
                found, early = following, middle
            else:
                late = middle
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

    >>> parse("every 5m"), parse("every 5 minutes")
    (Interval(seconds=300), Interval(seconds=300))
    >>> parse("0 3 * * fri-sun")
    Cron(fields='0 3 * * fri-7', zone=zoneinfo.ZoneInfo(key='UTC'))
    """
    words = text.strip().lower()
    if (every := _EVERY.fullmatch(words)) is not None:
        seconds = int(every[1]) * _UNITS[every[2] or every[3][0]]
        if seconds < 1:
            raise ValueError(f"expected at least a second, received {text!r}.")
        return Interval(seconds)
    fields = words.split()
    if len(fields) not in (5, 6):
        raise ValueError(
            f"expected `every 5m` or the five fields of crontab, such as `0 3 * * sun`, a time zone behind them if "
            f"need be; received {text!r}."
        )
    fields[4] = _UP_TO_SUNDAY.sub("-7", fields[4])
    for i, (name, (title, low, high)) in enumerate(_FIELDS.items()):
        alone = ["*"] * 5
        alone[i] = fields[i]
        if not _is_cron(alone):
            raise ValueError(
                f"expected {title} from {low} to {high}, such as 1,3 or 1-5 or */2; "
                f"received {fields[i]!r} as the {name}."
            )
    if not _is_cron(fields[:5]):
        raise ValueError(f"expected a date that exists, received {text!r}.")
    return Cron(" ".join(fields[:5]), zone_of(text.split()[5] if len(fields) == 6 else zone))


def zone_of(name: str) -> ZoneInfo:
    """The time zone of that name.

    Raises ``ValueError`` if there is none.
    """
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"expected a time zone such as UTC or Europe/Berlin, received {name!r}.") from None


def _is_cron(fields: list[str]) -> bool:
    try:
        CronSim(" ".join(fields), datetime(2000, 1, 1, tzinfo=UTC))
    except CronSimError:
        return False
    return True
