"""The cap: most alerts a day. A backlog gets what room is left and takes none; digests say what had no room."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.orm import Session

from detector.decide.severity import SEVERITIES
from pipelines.alerts.grouping.events import rank
from pipelines.alerts.grouping.notify_rules import Candidate, choose
from pipelines.alerts.message import words
from pipelines.alerts.outbox.alerts import digest_alert
from pipelines.config import Config
from pipelines.cron import zone_of
from pipelines.store.alert_tables import Alert, AlertDay

MOST_LINES = 10
_LISTED = "events"  # in ``AlertDay.worst``: rank, risk and words of the most severe that had no room


@dataclass(frozen=True)
class Cap:
    """What the day has had so far, of current events and of the backlog: those that ended before ``since``."""

    current: AlertDay
    backlog: AlertDay
    since: datetime
    a_day: int

    @classmethod
    def of(cls, session: Session, *, config: Config, now: datetime) -> Cap:
        """Of the day that it is now."""
        today = now.astimezone(zone_of(config.service.timezone)).date()
        current, backlog = (_day(session, source, today) for source in sources_of(config))
        return cls(current, backlog, now - timedelta(hours=config.alerts.backlog_hours), config.alerts.a_day)

    def choose(self, candidates: Sequence[Candidate]) -> tuple[list[Candidate], list[Candidate]]:
        """Those there is room for, which take it, the most severe first; and those there is not."""
        chosen, more = [], []
        for day in (self.current, self.backlog):
            ours = [each for each in candidates if self._day_of(each) is day]
            first, rest = choose(ours, room=self._room(day))
            day.told += len(first)
            chosen += first
            more += rest
        return choose(chosen, room=len(chosen))[0], more

    def with_room(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """The first that there is room for; they take none from what may come."""
        left = {id(day): self._room(day) for day in (self.current, self.backlog)}
        found = []
        for candidate in candidates:
            day = id(self._day_of(candidate))
            left[day] -= 1
            if left[day] >= 0:
                found.append(candidate)
        return found

    def digests(
        self, more: Sequence[Candidate], labels: Mapping[str, str], *, config: Config, now: datetime
    ) -> list[Alert]:
        """A digest of what there is no room for; what comes after it is reported when the day is over."""
        found = []
        for day in (self.current, self.backlog):
            fresh = [each for each in more if each.is_fresh and self._day_of(each) is day]
            if not fresh:
                continue
            _count(day, fresh, labels, source=config.name)
            if not day.said:
                rows = sum(each.event.rows for each in fresh)
                found.append(day_digest(day, rows=rows, config=config, now=now))
        return found

    def _room(self, day: AlertDay) -> int:
        """What was reported of a backlog takes no room from what is current; the other way round it does."""
        return self.a_day - self.current.told - (self.backlog.told if day is self.backlog else 0)

    def _day_of(self, candidate: Candidate) -> AlertDay:
        return self.backlog if candidate.event.last_at < self.since else self.current


def sources_of(config: Config) -> tuple[str, str]:
    """Under which names a day's counts are kept: of current events, and of the backlog."""
    return config.name, f"{config.name}, backlog"


def reported_today(session: Session, *, config: Config, now: datetime) -> int:
    """How many events were reported today, whenever they happened; what a digest counts is not among them."""
    today = now.astimezone(zone_of(config.service.timezone)).date()
    reported = sa.select(sa.func.sum(AlertDay.told)).where(
        AlertDay.source.in_(sources_of(config)), AlertDay.day == today
    )
    return int(session.scalar(reported) or 0)


def day_digest(day: AlertDay, *, rows: int, config: Config, now: datetime) -> Alert:
    """The digest of all that a day had no room for; they count as reported from now on."""
    day.said = day.more
    of_each = {name: number for name, number in day.worst.items() if name in SEVERITIES}
    facts = {"why": "cap", "more": day.more, "by_severity": of_each, "day": str(day.day), "a_day": config.alerts.a_day}
    facts["top"] = [line for _, _, line in day.worst.get(_LISTED, [])]
    if day.source != config.name:
        facts["backlog_hours"] = config.alerts.backlog_hours
    severity = max(of_each, key=rank, default="low")
    return digest_alert(facts, severity=severity, rows=rows, config=config, now=now)


def _day(session: Session, source: str, date: date) -> AlertDay:
    day = session.get(AlertDay, (source, date))
    if day is None:
        day = AlertDay(source=source, day=date, told=0, more=0, said=0, worst={})
        session.add(day)
    return day


def _count(day: AlertDay, fresh: Sequence[Candidate], labels: Mapping[str, str], *, source: str) -> None:
    """Count events there is no room for, and keep the most severe of the day in words."""
    worst = dict(day.worst)
    for candidate in fresh:
        worst[candidate.event.severity] = worst.get(candidate.event.severity, 0) + 1
    ranked, _ = choose(fresh, room=MOST_LINES)
    lines = [
        [rank(each.event.severity), each.event.risk, _line(each, labels[each.event.group] or source)] for each in ranked
    ]
    listed = sorted([*worst.get(_LISTED, []), *lines], key=lambda each: (-each[0], -each[1]))
    day.more, day.worst = day.more + len(fresh), worst | {_LISTED: listed[:MOST_LINES]}


def _line(candidate: Candidate, about: str) -> str:
    event = candidate.event
    rows, when = words.counted(event.rows, "flagged row"), words.span(candidate.first_at, event.last_at)
    return f"{about} ({event.severity}): {rows}, {when}"
