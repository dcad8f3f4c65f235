"""Digests: what waited for the end of the quiet hours, and what a day that is over had no room for."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from pipelines.alerts.grouping.groups import rank
from pipelines.alerts.grouping.quiet import is_quiet
from pipelines.alerts.message.message import message_of
from pipelines.alerts.outbox.enqueue import digest_of, post
from pipelines.config import Config
from pipelines.cron import zone_of
from pipelines.store.alert_tables import Alert, AlertDay, Delivery

MOST_LINES = 10


def end_quiet(session: Session, *, config: Config, now: datetime) -> int:
    """Once the quiet hours are over, tell each target what it missed: one alert as it is, several as one digest."""
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
        session.add(digest)
        session.add(
            Delivery(
                alert=digest.id,
                target=target,
                group=digest.group,
                state="waiting",
                attempts=0,
                created_at=now,
                next_at=now,
                error="",
            )
        )
        for delivery, _ in waiting:
            delivery.state = "digested"
    session.flush()
    return len(held)


def end_days(session: Session, *, config: Config, now: datetime) -> int:
    """Tell of days that are over how many events there were beyond the cap, if it was more than was said."""
    today = now.astimezone(zone_of(config.service.timezone)).date()
    days = session.scalars(
        sa.select(AlertDay).where(AlertDay.source == config.name, AlertDay.day < today, AlertDay.more > AlertDay.said)
    ).all()
    for day in days:
        day.said = day.more
        facts = {
            "why": "cap",
            "more": day.more,
            "by_severity": day.worst,
            "a_day": config.alerts.a_day,
            "day": str(day.day),
        }
        digest = digest_of(config, now, facts=facts, severity=_worst(day.worst), rows=0)
        post(session, [digest], config=config, now=now)
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
    return digest_of(config, now, facts=facts, severity=_worst(of_each), rows=rows, key=f"quiet-{target}")


def _worst(of_each: Mapping[str, int]) -> str:
    return max(of_each, key=rank, default="low")
