"""``/v1/alerts``: the queue, one alert with all that stands beside it, and what people do with it."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse
from pydantic import Field
from sqlalchemy.orm import Session

from pipelines.alerts.feedback import answers
from pipelines.alerts.review import notes, queue
from pipelines.alerts.review.queue import MOST_COUNTED, AlertContext, QueueLine, QueueQuery
from pipelines.api.context import AppContext, caller_of, needs
from pipelines.api.problems import HEADERS
from pipelines.api.request_body import RequestBody
from pipelines.api.writes import in_one_transaction
from pipelines.features.plain_frame import plain
from pipelines.scoring.alert_rows import rows_of_alert

VIA = "api"


class Verdict(RequestBody):
    """What an alert was."""

    verdict: str = Field(description="fraud, fine or unsure.")
    reason: str = Field("", max_length=1_000)
    snooze: bool = Field(default=False, description="If fine: keep this pattern of this entity quiet for a while.")


class Snooze(RequestBody):
    """Keep this pattern of this entity quiet, and the alert out of the queue."""

    hours: float
    reason: str = Field(max_length=1_000)


class Assignee(RequestBody):
    """Who looks after it."""

    assignee: str = Field(max_length=200, description="Empty for nobody.")


class Comment(RequestBody):
    """Something to write beside it."""

    text: str = Field(max_length=4_000)


def alerts_router(context: AppContext) -> APIRouter:
    """The paths."""
    router = APIRouter(prefix="/alerts", tags=["alerts"], dependencies=[Depends(needs("view"))])
    _add_reads(router, context)
    _add_writes(router, context)
    return router


def _add_reads(router: APIRouter, context: AppContext) -> None:
    config, store = context.config, context.store

    @router.get("")
    def list_alerts(
        state: Annotated[str, Query(description="open, snoozed, answered or all.")] = "open",
        severity: Annotated[str, Query(description="low, medium, high or critical.")] = "",
        about: Annotated[str, Query(description="The entity, as alerts show it.")] = "",
        pattern: Annotated[str, Query(description="The feature of the first reason.")] = "",
        assignee: Annotated[str | None, Query(description="Whose; empty for nobody's.")] = None,
        since: datetime | None = None,
        until: datetime | None = None,
        order: Annotated[str, Query(description="urgent or newest.")] = "urgent",
        after: Annotated[str, Query(description="The last alert of the page before.")] = "",
        limit: Annotated[int, Query(ge=1, le=500)] = 50,
    ) -> JSONResponse:
        """The latest alert of each event, a page of them."""
        wanted = QueueQuery(state, severity, about, pattern, assignee, since, until, order, after, limit)
        with store.read() as session:
            lines = queue.page(session, wanted, config=config, now=context.clock())
            total = queue.count(session, wanted, config=config, now=context.clock())
        following = queue.following(wanted, lines)
        found = {"alerts": [line.to_dict() for line in lines], "total": min(total, MOST_COUNTED)}
        found["total_is_least"] = total > MOST_COUNTED
        return JSONResponse(found | {"next": None if following is None else following.after}, headers=HEADERS)

    @router.get("/{alert}")
    def get_alert(alert: str) -> JSONResponse:
        """All about one alert."""
        with store.read() as session:
            line = queue.line_of(session, alert, config=config, now=context.clock())
            beside = queue.beside(session, line, config=config, now=context.clock())
            return JSONResponse(detail_of(line, beside), headers=HEADERS)

    @router.get("/{alert}/rows")
    def list_alert_rows(alert: str, limit: Annotated[int, Query(ge=1, le=1_000)] = 100) -> JSONResponse:
        """Its rows, as the source has them, with their scores; masked where alerts are."""
        with store.read() as session:
            found = queue.line_of(session, alert, config=config, now=context.clock()).alert
            session.expunge_all()
        rows = rows_of_alert(found, config=config, store=store, cache=context.cache, most=limit)
        lines = [{name: plain(value) for name, value in row.items()} for row in rows.shown.to_dict("records")]
        return JSONResponse({"rows": lines, "missing": rows.missing, "note": rows.note}, headers=HEADERS)


def _add_writes(router: APIRouter, context: AppContext) -> None:
    config = context.config

    def write(request: Request, alert: str, given: RequestBody, act: Any) -> JSONResponse:
        def within(session: Session) -> dict[str, Any]:
            line = queue.line_of(session, alert, config=config, now=context.clock())
            act(session, line.alert, caller_of(request).name)
            session.flush()
            return queue.line_of(session, line.alert.id, config=config, now=context.clock()).to_dict()

        return in_one_transaction(context, request, given, within)

    @router.post("/{alert}/verdict", dependencies=[Depends(needs("review"))])
    def answer_alert(alert: str, given: Verdict, request: Request) -> JSONResponse:
        """Say what it was. An earlier verdict stays known; the last one counts."""

        def act(session: Session, found: Any, who: str) -> None:
            said = {"reason": given.reason, "who": who, "via": VIA, "snooze": given.snooze}
            answers.answer(session, found, given.verdict, config=config, now=context.clock(), **said)  # type: ignore[arg-type]

        return write(request, alert, given, act)

    @router.post("/{alert}/snooze", dependencies=[Depends(needs("review"))])
    def snooze_alert(alert: str, given: Snooze, request: Request) -> JSONResponse:
        """Keep this pattern of this entity quiet for some hours."""

        def act(session: Session, found: Any, who: str) -> None:
            notes.snooze(session, found, hours=given.hours, reason=given.reason, who=who, now=context.clock())

        return write(request, alert, given, act)

    @router.post("/{alert}/assignee", dependencies=[Depends(needs("review"))])
    def assign_alert(alert: str, given: Assignee, request: Request) -> JSONResponse:
        """Say who looks after it."""

        def act(session: Session, found: Any, who: str) -> None:
            notes.assign(session, found, given.assignee, who=who, now=context.clock())

        return write(request, alert, given, act)

    @router.post("/{alert}/comments", dependencies=[Depends(needs("review"))])
    def comment_alert(alert: str, given: Comment, request: Request) -> JSONResponse:
        """Write something beside it."""

        def act(session: Session, found: Any, who: str) -> None:
            notes.comment(session, found, given.text, who=who, now=context.clock())

        return write(request, alert, given, act)


def detail_of(line: QueueLine, beside: AlertContext) -> dict[str, Any]:
    """An alert with all that stands beside it, as JSON."""
    found = line.to_dict() | {"table": dict(line.message.table), "course": line.alert.facts.get("course", [])}
    found["verdicts"] = [
        {"verdict": each.verdict, "reason": each.reason, "who": each.who, "via": each.via, "at": each.at.isoformat()}
        for each in beside.answers
    ]
    found["notes"] = [
        {"kind": each.kind, "text": each.text, "who": each.who, "at": each.at.isoformat()} for each in beside.notes
    ]
    found["deliveries"] = [
        {"target": each.target, "state": each.state, "attempts": each.attempts, "error": each.error}
        for each in beside.deliveries
    ]
    return found | {
        "earlier": [each.to_dict() for each in beside.earlier],
        "similar": [each.to_dict() for each in beside.similar],
    }
