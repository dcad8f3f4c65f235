"""When machines are in maintenance: a calendar file and times of the clock on the wall, as spans in UTC."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from zoneinfo import ZoneInfo

import pandas as pd

from detector.cleaning.values import naive_utc
from detector.errors import SettingError, nearest
from detector.series.gates import Span
from pipelines.config import Config
from pipelines.cron import Cron, parse, zone_of

NEEDED, KNOWN = ("from", "to"), ("from", "to", "machine", "reason")
HOW = (
    "The file has a line `from,to,machine,reason`, and times such as 2026-05-03 06:00; machine and reason may be empty."
)
MOST_SPANS = 100_000


@dataclass(frozen=True)
class Recurring:
    """Maintenance of so many minutes from each of those times on."""

    when: Cron
    minutes: float
    machine: str | None
    reason: str


@dataclass(frozen=True)
class MaintenanceCalendar:
    """What a configuration says; the file is looked at each time, because people change it while a service runs."""

    file: Path | None
    recurring: tuple[Recurring, ...]
    zone: ZoneInfo

    def spans(self, first: pd.Timestamp, last: pd.Timestamp) -> Sequence[Span]:
        """Those that touch the time from one to another, in UTC and without zone.

        Raises ``SettingError`` if the file cannot be read, or a line of it has no meaning.
        """
        found = [span for span in self.listed() if span.last > first and span.first <= last]
        for each in self.recurring:
            lasts = timedelta(minutes=each.minutes)
            moment = first.to_pydatetime().replace(tzinfo=UTC) - lasts - timedelta(seconds=1)
            while len(found) < MOST_SPANS:
                moment = each.when.after(moment).astimezone(UTC)
                begin = pd.Timestamp(naive_utc(moment))
                if begin > last:
                    break
                found.append(Span(begin, begin + lasts, each.machine, each.reason))
        return found

    def listed(self) -> tuple[Span, ...]:
        """All of the file; none without one."""
        if self.file is None:
            return ()
        try:
            changed = self.file.stat()
        except OSError as error:
            raise SettingError(
                f"`series.maintenance.calendar` cannot be read: {self.file}: {error.strerror}. {HOW}"
            ) from None
        return _read(self.file, str(self.zone), changed.st_mtime_ns, changed.st_size)


def calendar_of(config: Config) -> MaintenanceCalendar | None:
    """The maintenance of a configuration; ``None`` if none is planned.

    Raises ``SettingError`` if the rows have no time, or the file cannot be used.
    """
    section = config.series.maintenance
    if config.kind != "sensors" or not section.is_planned:
        return None
    if config.columns.time is None:
        raise SettingError("`series.maintenance` needs the time of each row. Name it in `columns.time`.")
    zone = section.timezone or config.clock
    recurring = []
    for each in section.recurring:
        when = parse(each.when, zone=zone)
        assert isinstance(when, Cron)  # the section knows
        recurring.append(Recurring(when, each.minutes, each.machine, each.reason))
    calendar = MaintenanceCalendar(section.calendar, tuple(recurring), zone_of(zone))
    calendar.listed()
    return calendar


@lru_cache(maxsize=8)
def _read(file: Path, zone: str, changed: int, size: int) -> tuple[Span, ...]:  # noqa: ARG001 - what makes it anew
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            return tuple(_spans(csv.DictReader(lines, skipinitialspace=True), file, ZoneInfo(zone)))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SettingError(f"`series.maintenance.calendar` cannot be read: {file}: {error}. {HOW}") from None


def _spans(reader: csv.DictReader[str], file: Path, zone: ZoneInfo) -> Iterator[Span]:
    names = [name.strip().lower() for name in reader.fieldnames or []]
    for needed in NEEDED:
        if needed not in names:
            raise SettingError(f"{file} has no column {needed!r}. {nearest(needed, names)} {HOW}")
    for name in names:
        if name not in KNOWN:
            raise SettingError(f"{file} has a column {name!r}, which means nothing here. {nearest(name, KNOWN)} {HOW}")
    reader.fieldnames = names
    for row in reader:
        values = {name: (value or "").strip() for name, value in row.items() if name is not None}
        if not any(values.values()):
            continue
        place = f"{file}, line {reader.line_num}"
        if None in row:
            raise SettingError(f"{place} has more values than the first line has names. Quote what holds a comma.")
        yield _span(values, zone, place)


def _span(values: Mapping[str, str], zone: ZoneInfo, place: str) -> Span:
    first, last = (_moment(values[name], zone, f"{place}, {name}", fold) for fold, name in enumerate(NEEDED))
    if last <= first:
        raise SettingError(f"{place}: expected `to` after `from`, received {values['from']} to {values['to']}.")
    return Span(first, last, values.get("machine") or None, values.get("reason", ""))


def _moment(text: str, zone: ZoneInfo, place: str, fold: int) -> pd.Timestamp:
    """A time as UTC; of an hour that the clock repeats, the first begins a span and the second ends one."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise SettingError(f"{place}: expected a time such as 2026-05-03 06:00, received {text!r}.") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=zone, fold=fold)
    return pd.Timestamp(naive_utc(moment))
