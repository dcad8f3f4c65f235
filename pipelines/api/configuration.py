"""``/v1/configuration``: have the file read at once, and hear whether it serves."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse

from pipelines.api.context import AppContext, caller_of, needs
from pipelines.api.jobs import Why
from pipelines.api.problems import ProblemError
from pipelines.api.writes import as_json, once
from pipelines.service.reloads import RefusedError


def configuration_router(context: AppContext) -> APIRouter:
    """The path."""
    router = APIRouter(prefix="/configuration", tags=["configuration"])

    @router.post("/reload", dependencies=[Depends(needs("admin"))])
    def reload_configuration(given: Why, request: Request) -> JSONResponse:
        """Have the file of the configuration read, changed or not; 409 says why it cannot be taken over."""
        who = caller_of(request).name
        return once(context, request, given, lambda: reloaded(context, who=who, reason=given.reason), as_json)

    return router


def reloaded(context: AppContext, *, who: str, reason: str) -> dict[str, Any]:
    """What is answered.

    Raises ``ProblemError`` where the file is refused.
    """
    try:
        found = context.facts.reloads.reload(context.store, who=who, reason=reason, clock=context.clock)
    except RefusedError as error:
        raise ProblemError(409, str(error)) from None
    return {"changed": list(found.changed), "note": found.text}
