"""``/v1/what-if``: what another policy would have flagged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pydantic
from fastapi import APIRouter, Depends
from fastapi.responses import JSONResponse
from pydantic import Field

from pipelines.api.context import AppContext, needs
from pipelines.api.problems import HEADERS, ProblemError
from pipelines.api.request_body import RequestBody
from pipelines.scoring.what_if import Outlook, what_if


class Budget(RequestBody):
    """At most so many."""

    rows: int = Field(ge=1)
    per: str = "day"


class Policy(RequestBody):
    """What to change of today's policy; null takes a rule away."""

    quantile: float | None = None
    budget: Budget | None = None
    fdr: float | None = None
    days: float = Field(30.0, gt=0, le=3_650)


def what_if_router(context: AppContext) -> APIRouter:
    """The path."""
    router = APIRouter(tags=["look"])

    @router.post("/what-if", dependencies=[Depends(needs("view"))])
    def ask_what_if(given: Policy) -> JSONResponse:
        """What another policy would have flagged in the last days, beside today's; nothing is changed."""
        changes = given.model_dump(exclude_unset=True, exclude={"days"})
        today, other = policies_of(context, changes, days=given.days)
        return JSONResponse({"today": today.to_dict(), "then": other.to_dict()}, headers=HEADERS)

    return router


def policies_of(context: AppContext, changes: Mapping[str, Any], *, days: float) -> tuple[Outlook, Outlook]:
    """Today's policy and another one over the last days; see ``what_if``.

    Raises ``ProblemError`` if there is no such policy.
    """
    config, now = context.config, context.clock()
    try:
        return what_if(config, context.store, context.cache, changes=changes, days=days, now=now, memory=context.memory)
    except pydantic.ValidationError as error:
        raise no_such_policy(error) from None


def no_such_policy(error: pydantic.ValidationError) -> ProblemError:
    """What is said of a policy that cannot be."""
    fields = {".".join(map(str, each["loc"])) or "policy": each["msg"] for each in error.errors()}
    text = "; ".join(f"{name}: {said}" for name, said in fields.items())
    return ProblemError(422, f"There is no such policy: {text}.", fields=fields)
