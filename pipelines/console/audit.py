"""The audit page: who had what done, for those who may do everything."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response, StreamingResponse

from pipelines.api.audit import TYPES, page_of
from pipelines.api.context import AppContext
from pipelines.console.rendering import page
from pipelines.console.sign_ins import Visitor
from pipelines.store.trail import TrailQuery, exported

PAGE = 100
MOST_NUMBER = 2**31


def audit_router(context: AppContext) -> APIRouter:
    """The page, and the whole trail as a file."""
    router = APIRouter()

    @router.get("/audit")
    def show(request: Request, actor: str = "", action: str = "", before: str = "") -> Response:
        if (refusal := _refusal(request)) is not None:
            return refusal
        number = int(before) if before.isdecimal() and int(before) < MOST_NUMBER else None
        found = page_of(context, TrailQuery(actor=actor.strip(), action=action.strip(), before=number, most=PAGE))
        query = {name: value for name, value in (("actor", actor), ("action", action)) if value}
        more = "" if found["next"] is None else urlencode(query | {"before": found["next"]})
        values: dict[str, Any] = {"records": found["records"], "more": more, "query": urlencode(query)}
        values |= {"actor": actor, "action": action, "keeps": context.config.service.keep_audit}
        return page("audit.html.j2", request, name=context.config.name, **values)

    @router.get("/audit.{form}")
    def export(request: Request, form: str, actor: str = "", action: str = "") -> Response:
        if (refusal := _refusal(request)) is not None:
            return refusal
        found = exported(context.store, TrailQuery(actor=actor.strip(), action=action.strip()), form=form)
        headers = {"Content-Disposition": f'attachment; filename="audit.{form}"'}
        return StreamingResponse(found, media_type=TYPES[form], headers=headers)

    return router


def _refusal(request: Request) -> HTMLResponse | None:
    who: Visitor = request.state.visitor
    if who.caller.may("admin"):
        return None
    text = "This needs a key with the scope admin."
    return page("problem.html.j2", request, status=403, title="Not with this key", text=text)
