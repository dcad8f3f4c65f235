"""Digests: what waited for the end of the quiet hours, and what a day that is over had no room for."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from detector.decide.severity import SEVERITIES
from pipelines.alerts.grouping.events import rank
from pipelines.alerts.grouping.silences import is_quiet
from pipelines.alerts.message.message import message_of
from pipelines.alerts.outbox.alerts import digest_alert
from pipelines.alerts.outbox.cap import MOST_LINES, day_digest, sources_of
from pipelines.alerts.outbox.enqueue import delivery_of, post
from pipelines.config import Config
from pipelines.cron import zone_of
from pipelines.store.alert_tables import Alert, AlertDay, Delivery

MOST_NAMED = 100


def end_quiet(session: Session, *, config: Config, now: datetime) -> int:
    """After the quiet hours, send each target what it missed: one alert as it is, several as one digest."""
    if is_quiet(config.alerts.quiet, now):
        return 0
    is_held = sa.and_(Delivery.state == "held", Delivery.alert.in_(sa.select(Alert.id).filter_by(source=config.name)))
    targets = session.scalars(sa.select(Delivery.target).where(is_held).distinct()).all()
    for target in targets:
        waiting = sa.update(Delivery).where(is_held, Delivery.target == target)
        waiting = waiting.execution_options(synchronize_session=False)
        digest = _digest(session, target, config, now)
        if digest is None:
            session.execute(waiting.values(state="waiting", next_at=now))
            continue
        session.execute(waiting.values(state="digested"))
        session.add_all([digest, Delivery(**delivery_of(digest, target, now))])
    session.flush()
    return len(targets)


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


def _digest(session: Session, target: str, config: Config, now: datetime) -> Alert | None:
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
        "why": "quiet",
        "more": sum(of_each.values()),
        "by_severity": of_each,
        "top": top,
        "alerts": [alert.id for alert in ranked],
    }
    severity, key = max(of_each, key=rank), f"quiet-{target}"
    return digest_alert(facts, severity=severity, rows=rows, config=config, now=now, key=key)
