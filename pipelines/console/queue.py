"""The queue page: what is open, the most urgent first, and answers to many at once."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

import sqlalchemy as sa
from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse
from sqlalchemy.orm import Session

from detector.decide.severity import SEVERITIES
from detector.errors import DataError
from pipelines.alerts.feedback import answers
from pipelines.alerts.outbox.cap import sources_of
from pipelines.alerts.review import notes, queue
from pipelines.alerts.review.queue import STATES, QueueQuery
from pipelines.api.context import AppContext
from pipelines.config import Config
from pipelines.console.rendering import page
from pipelines.console.sign_ins import Visitor
from pipelines.console.views import views_of
from pipelines.cron import zone_of
from pipelines.store.alert_tables import AlertDay

VIA = "console"
PAGE = 50
DEFAULT_SNOOZE = 24.0


def queue_router(context: AppContext) -> APIRouter:
    """The page."""
    router = APIRouter()

    @router.get("/")
    def show(
        request: Request,
        state: str = "open",
        severity: str = "",
        about: str = "",
        pattern: str = "",
        assignee: str = "",
        order: str = "urgent",
        after: str = "",
    ) -> HTMLResponse:
        given = {"state": state, "severity": severity, "about": about, "pattern": pattern, "assignee": assignee}
        wanted = QueueQuery(state, severity, about, pattern, assignee or None, order=order, after=after, most=PAGE)
        now, config = context.clock(), context.config
        with context.store.read() as session:
            lines = queue.page(session, wanted, config=config, now=now)
            total = queue.count(session, wanted, config=config, now=now)
            held_back = held_back_today(session, config=config, now=now)
            who: Visitor = request.state.visitor
            views = views_of(session, source=config.name, who=who.caller.name)
        following = queue.following(wanted, lines)
        query = {name: value for name, value in (given | {"order": order}).items() if value}
        more = "" if following is None else urlencode(query | {"after": following.after})
        values: dict[str, Any] = {
            "lines": lines,
            "total": total,
            "shown": queue.counted(total),
            "given": given | {"order": order},
            "now": now,
        }
        values |= {
            "states": STATES,
            "severities": SEVERITIES[::-1],
            "more": more,
            "held_back": held_back,
            "anomaly": config.anomaly,
        }
        return page("queue.html.j2", request, name=config.name, query=urlencode(query), views=views, **values)

    return router


def held_back_today(session: Session, *, config: Config, now: datetime) -> dict[str, Any]:
    """What the day had no room for: how many, and the most severe in words."""
    today = now.astimezone(zone_of(config.service.timezone)).date()
    days = session.scalars(
        sa.select(AlertDay).where(AlertDay.source.in_(sources_of(config)), AlertDay.day == today)
    ).all()
    lines = [str(line[-1]) for day in days for line in day.worst.get("events", [])]
    return {"more": sum(day.more for day in days), "lines": lines, "a_day": config.alerts.a_day}


def act(
    session: Session,
    ids: Sequence[str],
    what: str,
    *,
    context: AppContext,
    who: str,
    reason: str,
    hours: float,
    snooze: bool,
) -> int:
    """Do the same with some alerts; how many there were.

    - ``what``: fraud, fine, unsure, snooze, take or leave.

    Raises ``DataError`` if there is no such thing to do, or no alert was chosen.
    """
    config, now = context.config, context.clock()
    if not ids:
        raise DataError("No alert was chosen. Choose one with x, or go to it with j and k.")
    for each in ids:
        alert = queue.line_of(session, each, config=config, now=now).alert
        if what in answers.VERDICTS:
            said = {"reason": reason, "who": who, "via": VIA, "snooze": snooze}
            answers.answer(session, alert, what, config=config, now=now, **said)  # type: ignore[arg-type]
        elif what == "snooze":
            why = reason or "snoozed in the console"
            notes.snooze(session, alert, hours=hours, reason=why, who=who, now=now)
        elif what in ("take", "leave"):
            notes.assign(session, alert, who if what == "take" else "", who=who, now=now)
        else:
            raise DataError(f"There is nothing called {what!r} to do with an alert.")
    return len(ids)
