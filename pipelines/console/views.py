"""Views of the queue: filters under a name, which each person keeps for themselves."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from urllib.parse import parse_qsl, urlencode

import sqlalchemy as sa
from fastapi import APIRouter, Request
from fastapi.responses import Response
from sqlalchemy.orm import Session

from detector.errors import DataError
from pipelines.api.context import AppContext
from pipelines.console.forms import Form, checked
from pipelines.console.guard import PATH
from pipelines.escaping import one_line
from pipelines.store import upsert
from pipelines.store.access_tables import QueueView

FILTERS = ("state", "severity", "about", "pattern", "assignee", "order")
MOST_VIEWS, MOST_NAME, MOST_FILTER = 30, 40, 200


def views_router(context: AppContext) -> APIRouter:
    """The forms."""
    router = APIRouter()

    @router.post("/views")
    async def keep_view(request: Request) -> Response:
        return await checked(request, lambda form: _keep(context, form), scope="view")

    @router.post("/views/remove")
    async def remove_view(request: Request) -> Response:
        return await checked(request, lambda form: _remove(context, form), scope="view")

    return router


def views_of(session: Session, *, source: str, who: str) -> list[dict[str, str]]:
    """The views of somebody by name: ``name`` and ``query``, as an address of the queue has it."""
    wanted = sa.select(QueueView).where(QueueView.source == source, QueueView.who == who).order_by(QueueView.name)
    return [{"name": view.name, "query": urlencode(view.filters)} for view in session.scalars(wanted)]


def keep(session: Session, name: str, filters: Mapping[str, str], *, source: str, who: str, now: datetime) -> None:
    """Keep filters under a name, in the place of those that had it.

    Raises ``DataError`` if the name is empty or too long, or somebody has too many.
    """
    name = one_line(name).strip()
    if not name or len(name) > MOST_NAME:
        raise DataError(f"name: expected 1 to {MOST_NAME} characters for the view.")
    theirs = {view["name"] for view in views_of(session, source=source, who=who)}
    if name not in theirs and len(theirs) >= MOST_VIEWS:
        raise DataError(f"There are {MOST_VIEWS} views already. Remove one of them first.")
    kept = {key: value[:MOST_FILTER] for key, value in filters.items() if key in FILTERS and value}
    upsert(session, QueueView, [{"source": source, "who": who, "name": name, "filters": kept, "at": now}])


def remove(session: Session, name: str, *, source: str, who: str) -> None:
    """Take a view away; nothing happens if there is none."""
    ours = (QueueView.source == source, QueueView.who == who, QueueView.name == name)
    session.execute(sa.delete(QueueView).where(*ours))


def _keep(context: AppContext, form: Form) -> str:
    filters = dict(parse_qsl(form.one("query")))
    with context.store.write() as session:
        who = form.visitor.caller.name
        keep(session, form.one("name"), filters, source=context.config.name, who=who, now=context.clock())
    return f"{PATH}/?{urlencode({key: value for key, value in filters.items() if key in FILTERS})}"


def _remove(context: AppContext, form: Form) -> str:
    with context.store.write() as session:
        remove(session, form.one("name"), source=context.config.name, who=form.visitor.caller.name)
    return f"{PATH}/"
