"""Digests: what waited for the end of the quiet hours, and what a day that is over had no room for."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from pipelines.alerts.grouping.events import rank
from pipelines.alerts.grouping.silences import is_quiet
from pipelines.alerts.message.message import message_of
from pipelines.alerts.outbox.alerts import digest_alert
from pipelines.alerts.outbox.cap import MOST_LINES, day_digest, sources_of
from pipelines.alerts.outbox.enqueue import delivery_of, post
from pipelines.config import Config
from pipelines.cron import zone_of
from pipelines.store.alert_tables import Alert, AlertDay, Delivery


def end_quiet(session: Session, *, config: Config, now: datetime) -> int:
    """After the quiet hours, send each target what it missed: one alert as it is, several as one digest."""
    if is_quiet(config.alerts.quiet, now):
        return 0
    held: dict[str, list[tuple[Delivery, Alert]]] = {}
    statement = (
        sa.select(Delivery, Alert)
        .join(Alert, Alert.id == Delivery.alert)
        .where(Delivery.state == "held", Alert.source == config.name)
        .order_by(Delivery.id)
    )
    for delivery, alert in session.execute(statement):
        held.setdefault(delivery.target, []).append((delivery, alert))
    for target, waiting in held.items():
        if len(waiting) == 1:
            waiting[0][0].state, waiting[0][0].next_at = "waiting", now
            continue
        digest = _digest(target, [alert for _, alert in waiting], config, now)
        session.add_all([digest, Delivery(**delivery_of(digest, target, now))])
        for delivery, _ in waiting:
            delivery.state = "digested"
    session.flush()
    return len(held)


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


def _digest(target: str, alerts: list[Alert], config: Config, now: datetime) -> Alert:
    ranked = sorted(alerts, key=lambda each: (-rank(each.severity), each.created_at))
    of_each: dict[str, int] = {}
    for alert in ranked:
        of_each[alert.severity] = of_each.get(alert.severity, 0) + 1
    top = [message_of(alert, section=config.alerts, target=target).sentence for alert in ranked[:MOST_LINES]]
    facts: Mapping[str, Any] = {
        "why": "quiet",
        "more": len(alerts),
        "by_severity": of_each,
        "top": top,
        "alerts": [alert.id for alert in ranked[:100]],
    }
    rows = sum(alert.rows for alert in alerts)
    severity, key = max(of_each, key=rank), f"quiet-{target}"
    return digest_alert(facts, severity=severity, rows=rows, config=config, now=now, key=key)
