"""``/v1/audit``: who had what done, when and why; by page, or all of it as CSV or JSON lines."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from fastapi.responses import JSONResponse, StreamingResponse

from pipelines.api.context import AppContext, needs
from pipelines.api.problems import HEADERS
from pipelines.store.trail import TrailQuery, as_dict, entries, exported

TYPES = {"csv": "text/csv; charset=utf-8", "jsonl": "application/x-ndjson"}
KINDS = ("text/csv", "application/x-ndjson")

Since = Annotated[datetime | None, Query(description="From then on.")]
Until = Annotated[datetime | None, Query(description="Before then.")]
Actor = Annotated[str, Query(description="Whose.")]
Action = Annotated[str, Query(description="The action, or its first word, such as verdict.")]


def audit_router(context: AppContext) -> APIRouter:
    """The paths."""
    router = APIRouter(prefix="/audit", tags=["audit"], dependencies=[Depends(needs("admin"))])

    @router.get("")
    def list_audit(
        since: Since = None,
        until: Until = None,
        actor: Actor = "",
        action: Action = "",
        before: Annotated[int | None, Query(ge=1, lt=2**31, description="The last record of the page before.")] = None,
        limit: Annotated[int, Query(ge=1, le=1_000)] = 50,
    ) -> JSONResponse:
        """What was done, the latest first."""
        wanted = TrailQuery(_aware(since), _aware(until), actor, action, before, limit)
        return JSONResponse(page_of(context, wanted), headers=HEADERS)

    @router.get("/export", response_class=StreamingResponse, responses={200: {"content": {each: {} for each in KINDS}}})
    def export_audit(
        form: Annotated[str, Query(alias="format", description="csv or jsonl.")] = "jsonl",
        since: Since = None,
        until: Until = None,
        actor: Actor = "",
        action: Action = "",
    ) -> StreamingResponse:
        """All of it, the latest first."""
        found = exported(context.store, TrailQuery(_aware(since), _aware(until), actor, action), form=form)
        headers = HEADERS | {"Content-Disposition": f'attachment; filename="audit.{form}"'}
        return StreamingResponse(found, media_type=TYPES[form], headers=headers)

    return router


def page_of(context: AppContext, wanted: TrailQuery) -> dict[str, Any]:
    """A page of records, and what to give as ``before`` for the next one."""
    with context.store.read() as session:
        found = [as_dict(record) for record in entries(session, wanted)]
    return {"records": found, "next": found[-1]["id"] if len(found) == wanted.most else None}


def _aware(moment: datetime | None) -> datetime | None:
    """A time without a zone is UTC, as all times of the API are."""
    return moment.replace(tzinfo=UTC) if moment is not None and moment.tzinfo is None else moment
