"""The alert page: why, what the entity did before, its rows, what was said; a verdict, then the next one."""

from __future__ import annotations

from datetime import UTC, timedelta
from typing import Any
from urllib.parse import quote

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response

from detector.cleaning.values import naive_utc
from pipelines.alerts.review import notes, queue
from pipelines.api.context import AppContext
from pipelines.config.masking import masks_of
from pipelines.console.charts import Timeline, curves, timeline
from pipelines.console.forms import Form, checked
from pipelines.console.guard import PATH
from pipelines.console.queue import DEFAULT_SNOOZE, act
from pipelines.console.rendering import page
from pipelines.scoring.alert_curves import curves_of_alert
from pipelines.scoring.alert_rows import AlertRows, rows_of_alert
from pipelines.sinks.stored_scores import ScoresQuery, stored_scores
from pipelines.store.alert_tables import Alert

DAYS = 90.0
MOST_ROWS = 50


def alert_router(context: AppContext) -> APIRouter:
    """The page, its parts that take a moment, and its forms."""
    router = APIRouter()
    config, store = context.config, context.store

    @router.get("/alerts/{alert}")
    def show(request: Request, alert: str) -> HTMLResponse:
        now = context.clock()
        with store.read() as session:
            line = queue.line_of(session, alert, config=config, now=now)
            beside = queue.beside(session, line, config=config, now=now)
            following = queue.next_open(session, line.alert, config=config, now=now)
            values: dict[str, Any] = {"line": line, "beside": beside, "following": following, "now": now}
            days = 7.0 if config.alerts.answers is None else config.alerts.answers.snooze_days
            return page("alert.html.j2", request, name=config.name, snooze_days=days, **values)

    @router.get("/alerts/{alert}/source")
    def source(request: Request, alert: str) -> HTMLResponse:
        found = _alert(context, alert)
        rows = rows_of_alert(found, config=config, store=store, cache=context.cache, most=MOST_ROWS)
        entity = _entity(context, found, rows)
        drawn = _timeline(context, found, entity)
        sensors = curves_of_alert(found, entity=entity, config=config, store=store, cache=context.cache)
        lines = [curves(each, first=found.first_at, last=found.last_at) for each in sensors.curves]
        return page("source.html.j2", request, rows=rows, drawn=drawn, days=int(DAYS), lines=lines, note=sensors.note)

    @router.post("/alerts")
    async def act_on(request: Request) -> Response:
        return await checked(request, lambda form: _act(context, form))

    @router.post("/alerts/{alert}/comments")
    async def comment(request: Request, alert: str) -> Response:
        return await checked(request, lambda form: _comment(context, alert, form))

    return router


def _alert(context: AppContext, name: str) -> Alert:
    with context.store.read() as session:
        found = queue.line_of(session, name, config=context.config, now=context.clock()).alert
        session.expunge_all()
    return found


def _act(context: AppContext, form: Form) -> str:
    """Do what a form says with its alerts, and say where to go on."""
    ids, what = form.all("id"), form.one("what")
    with context.store.write() as session:
        following = None
        if form.one("then") == "next" and ids:
            alert = queue.line_of(session, ids[0], config=context.config, now=context.clock()).alert
            following = queue.next_open(session, alert, config=context.config, now=context.clock())
        act(
            session,
            ids,
            what,
            context=context,
            who=form.visitor.caller.name,
            reason=form.one("reason"),
            hours=form.number("hours", DEFAULT_SNOOZE),
            snooze=form.one("snooze") == "yes",
        )
    if form.one("then") != "next":
        return f"{PATH}/?{form.one('query')}"
    if what in ("take", "leave"):
        return f"{PATH}/alerts/{quote(ids[0], safe='')}"
    return f"{PATH}/" if following is None else f"{PATH}/alerts/{following}"


def _comment(context: AppContext, name: str, form: Form) -> str:
    now = context.clock()
    with context.store.write() as session:
        alert = queue.line_of(session, name, config=context.config, now=now).alert
        notes.comment(session, alert, form.one("text"), who=form.visitor.caller.name, now=now)
        return f"{PATH}/alerts/{alert.id}"


def _entity(context: AppContext, alert: Alert, rows: AlertRows) -> str | None:
    """Whose alert it is; None where rows have no entity, or it may not be shown."""
    config, name = context.config, context.config.columns.entity
    if name is None:
        return None
    if name in rows.rows and not rows.rows.empty:
        return str(rows.rows[name].iloc[0])
    is_named = list(config.alerts.group_by(config.columns)) == [name] and not masks_of(config).is_masked(name)
    return alert.label if is_named else None


def _timeline(context: AppContext, alert: Alert, entity: str | None) -> Timeline | None:
    """How rare the rows of the entity were in the last days; None where rows have no time or no entity."""
    config, time = context.config, context.config.columns.time
    if time is None or entity is None:
        return None
    since = alert.last_at - timedelta(days=DAYS)
    found = stored_scores(config, context.store, ScoresQuery(("p_value", "flagged"), entity=entity, since=since))
    if found.empty or time not in found:
        return None
    known = found[found[time].notna() & found["p_value"].notna() & (found[time] <= naive_utc(alert.last_at))]
    times = [moment.replace(tzinfo=UTC) for moment in known[time].dt.to_pydatetime()]
    points = list(zip(times, known["p_value"].tolist(), known["flagged"].astype(bool).tolist(), strict=True))
    if not points:
        return None
    days = min(DAYS, (alert.last_at - min(times)).total_seconds() / 86_400 + 1.0)  # no empty weeks before its first row
    return timeline(points, first=alert.first_at, last=alert.last_at, until=alert.last_at, days=days)
