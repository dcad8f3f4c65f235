"""Alerts of the service about itself: one a cause until it is over, on the same way as all others.

They are about no event: they take no room of the day, no silence covers them, and there is nothing to answer.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy.orm import Session

from pipelines.alerts.channels.targets import secrets_of, without_secrets
from pipelines.alerts.grouping.events import group_id
from pipelines.alerts.outbox.alerts import service_alert
from pipelines.alerts.outbox.enqueue import post
from pipelines.config import Config
from pipelines.escaping import one_line
from pipelines.store.alert_tables import Alert, AlertGroup

LONG = timedelta(days=1)
"""What has gone wrong for so long, twice at least, is reported however few times it was: some jobs are weekly."""
MOST_LINES = 5
MOST_TEXT = 600


@dataclass(frozen=True)
class Trouble:
    """What is wrong with the service itself."""

    cause: str  # the same as long as it lasts
    label: str  # what it is about, for people
    severity: str  # the same for every trouble of a cause
    text: str  # in one sentence
    todo: str
    lines: Sequence[str] = ()  # details, the most important first
    columns: Mapping[str, str] = field(default_factory=dict)  # where to look
    figures: Mapping[str, Any] = field(default_factory=dict)  # for machines
    rows: int = 0

    def facts(self, config: Config) -> dict[str, Any]:
        """As an alert keeps it: each text in one line, without secrets."""
        hidden = secrets_of(config.alerts)

        def shown(text: str) -> str:
            return one_line(without_secrets(text, hidden))[:MOST_TEXT]

        lines, todo = [shown(line) for line in self.lines[:MOST_LINES]], shown(self.todo)
        about = {"cause": self.cause, "text": shown(self.text), "lines": lines, "todo": todo}
        columns = {name: shown(value) for name, value in self.columns.items()} | {"What to do": todo}
        return {"service": about | {"figures": dict(self.figures)}, "columns": columns}


def report(
    session: Session, trouble: Trouble, *, config: Config, now: datetime, least: int = 1, has_news: bool = False
) -> Alert | None:
    """Have a trouble reported: once, and again after ``alerts.again_minutes`` if it lasts. The caller commits.

    What came back soon after its end was reported is reported once ``alerts.window_minutes`` have passed since its
    last report: small batches would have it come and go all day. So is one of which there ``has_news``. ``least`` is
    how many times in a row it must have been.
    """
    if not config.alerts.enabled:
        return None
    state = session.get(AlertGroup, _group(config, trouble.cause)) or _unknown(session, trouble, config, now)
    if not state.is_open:
        state.incident, state.told_severity, state.rows, state.first_at = _incident(), "", 0, now
        state.is_open = True
    state.rows, state.last_at, state.first_at = state.rows + 1, now, min(state.first_at, now)
    lasts = state.rows >= least or (state.rows > 1 and now - state.first_at >= LONG)
    if not lasts or _is_recent(state, config, now, has_news=has_news):
        return None
    state.told_severity, state.told_at = trouble.severity, now
    alert = service_alert(
        "service", state, trouble.facts(config) | {"previous": ""}, rows=trouble.rows, config=config, now=now
    )
    post(session, [alert], config=config, now=now)
    return alert


def report_over(session: Session, cause: str, *, config: Config, now: datetime) -> Alert | None:
    """Forget a trouble; that it is over is reported if it was, whatever ``alerts.recovery`` says of events."""
    state = session.get(AlertGroup, _group(config, cause))
    if state is None or not state.is_open:
        return None
    was_reported = bool(state.told_severity)
    state.is_open, state.last_at = False, max(now, state.first_at)
    if not was_reported or not config.alerts.enabled:
        return None
    facts = {"service": {"cause": cause}, "previous": state.told_severity}
    alert = service_alert("recovered", state, facts, rows=0, config=config, now=now)
    post(session, [alert], config=config, now=now)
    return alert


def in_a_row(session: Session, cause: str, *, config: Config, now: datetime) -> tuple[int, datetime]:
    """How many times in a row there has been a cause, and since when, once it is reported now."""
    state = session.get(AlertGroup, _group(config, cause))
    return (1, now) if state is None or not state.is_open else (state.rows + 1, min(state.first_at, now))


def is_open(session: Session, cause: str, *, config: Config) -> bool:
    """Whether a cause is known that is not over: a look that locks nothing."""
    state = session.get(AlertGroup, _group(config, cause))
    return state is not None and state.is_open


def reported_at(session: Session, cause: str, *, config: Config) -> datetime | None:
    """When a cause was reported last."""
    state = session.get(AlertGroup, _group(config, cause))
    return None if state is None else state.told_at


def _is_recent(state: AlertGroup, config: Config, now: datetime, *, has_news: bool) -> bool:
    """Whether its last report holds. A time that lies ahead, since the clock was set back, is not waited for."""
    lasts = state.told_severity and not has_news
    pause = config.alerts.again_minutes if lasts else config.alerts.window_minutes
    return state.told_at is not None and timedelta(0) <= now - state.told_at < timedelta(minutes=pause)


def _unknown(session: Session, trouble: Trouble, config: Config, now: datetime) -> AlertGroup:
    state = AlertGroup(
        id=_group(config, trouble.cause),
        source=_source(config),
        incident=_incident(),
        label=trouble.label,
        severity=trouble.severity,
        told_severity="",
        told_at=None,
        first_at=now,
        last_at=now,
        rows=0,
        is_open=True,
    )
    session.add(state)
    return state


def _source(config: Config) -> str:
    """Another one than that of events, which are looked through for what has recovered."""
    return f"{config.name}, service"


def _group(config: Config, cause: str) -> str:
    return group_id(_source(config), [cause])


def _incident() -> str:
    return f"in_{secrets.token_hex(12)}"
