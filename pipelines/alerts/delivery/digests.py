"""Digests: what waited for the end of quiet hours or of an outage, and what a day that is over had no room for."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from detector.decide.severity import SEVERITIES
from pipelines.alerts.grouping.events import rank
from pipelines.alerts.grouping.silences import is_quiet, waits
from pipelines.alerts.message.message import message_of
from pipelines.alerts.outbox.alerts import digest_alert
from pipelines.alerts.outbox.cap import MOST_LINES, day_digest, sources_of
from pipelines.alerts.outbox.enqueue import delivery_of, post
from pipelines.config import Config
from pipelines.cron import zone_of
from pipelines.store.alert_tables import Alert, AlertDay, Delivery

MOST_NAMED = 100
LONG, FEW = timedelta(hours=1), 10
"""An outage that lasted so long ends in one digest, if more than so many alerts waited for its end."""


def end_quiet(session: Session, *, config: Config, now: datetime) -> int:
    """After the quiet hours, send each target what it missed: one alert as it is, several as one digest."""
    if is_quiet(config.alerts.quiet, now):
        return 0
    of_source = Delivery.alert.in_(sa.select(Alert.id).filter_by(source=config.name))
    targets = session.scalars(sa.select(Delivery.target).where(Delivery.state == "held", of_source).distinct()).all()
    for target in targets:
        _send_held(session, target, why="quiet", config=config, now=now)
    return len(targets)


def end_outage(session: Session, target: str, *, since: datetime, config: Config, now: datetime) -> None:
    """Once a target that rings people takes alerts again, send one digest in place of all that waited for it.

    In quiet hours what would be held back then waits for their end. Digests are few, and go by themselves.

    - ``since``: when the outage began.
    """
    ours = sa.select(Alert.id).where(Alert.source == config.name, Alert.kind != "digest")
    waiting = sa.and_(Delivery.state == "waiting", Delivery.target == target)
    number = session.scalar(sa.select(sa.func.count()).where(waiting, Delivery.alert.in_(ours))) or 0
    if now - since < LONG or number <= FEW:
        return
    is_night = is_quiet(config.alerts.quiet, now)
    if is_night:
        ours = ours.where(Alert.severity.in_([each for each in SEVERITIES if waits(config.alerts.quiet, each, now)]))
    held = sa.update(Delivery).where(waiting, Delivery.alert.in_(ours)).values(state="held")
    session.execute(held.execution_options(synchronize_session=False))
    if not is_night:
        _send_held(session, target, why="outage", config=config, now=now)


def _send_held(session: Session, target: str, *, why: str, config: Config, now: datetime) -> None:
    """One alert as it is, several as one digest."""
    is_ours = Delivery.alert.in_(sa.select(Alert.id).filter_by(source=config.name))
    waiting = sa.update(Delivery).where(Delivery.state == "held", is_ours, Delivery.target == target)
    waiting = waiting.execution_options(synchronize_session=False)
    digest = _digest(session, target, why, config, now)
    if digest is None:
        session.execute(waiting.values(state="waiting", next_at=now))
        return
    session.execute(waiting.values(state="digested"))
    session.add_all([digest, Delivery(**delivery_of(digest, target, now))])
    session.flush()


def end_days(session: Session, *, config: Config, now: datetime) -> int:
    """Report of days that are over how many events there were beyond the cap, if there were more than reported."""
    today = now.astimezone(zone_of(config.service.timezone)).date()
    days = session.scalars(
        sa.select(AlertDay).where(
            AlertDay.source.in_(sources_of(config)), AlertDay.day < today, AlertDay.more > AlertDay.said
        )
    ).all()
    for day in days:
        post(session, [day_digest(day, rows=0, config=config, now=now)], config=config, now=now)
    return len(days)


def _digest(session: Session, target: str, why: str, config: Config, now: datetime) -> Alert | None:
    """The digest of all that a target has missed; None of a single alert. However many there are, few are read."""
    held = (Delivery.state == "held", Delivery.target == target, Alert.source == config.name)
    of_each, rows = dict[str, int](), 0
    counts = sa.select(Alert.severity, sa.func.count(), sa.func.sum(Alert.rows)).group_by(Alert.severity)
    for name, alerts, their_rows in session.execute(counts.join(Delivery, Delivery.alert == Alert.id).where(*held)):
        of_each[name], rows = alerts, rows + int(their_rows)
    if sum(of_each.values()) == 1:
        return None
    severity_first = sa.case({name: rank(name) for name in SEVERITIES}, value=Alert.severity, else_=-1).desc()
    first = sa.select(Alert).join(Delivery, Delivery.alert == Alert.id).where(*held)
    ranked = session.scalars(first.order_by(severity_first, Alert.created_at, Delivery.id).limit(MOST_NAMED)).all()
    top = [message_of(alert, section=config.alerts, target=target).sentence for alert in ranked[:MOST_LINES]]
    facts: Mapping[str, Any] = {
        "why": why,
        "more": sum(of_each.values()),
        "by_severity": of_each,
        "top": top,
        "alerts": [alert.id for alert in ranked],
    }
    severity, key = max(of_each, key=rank), f"{why}-{target}"
    return digest_alert(facts, severity=severity, rows=rows, config=config, now=now, key=key)
