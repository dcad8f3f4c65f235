"""``/v1/entities``, ``/v1/what-if`` and ``/v1/health``: what was said of an entity, other policies, and how all is."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any

import pydantic
from fastapi import APIRouter, Depends, Query
from fastapi.responses import JSONResponse
from pydantic import Field

from detector.errors import DataError, DetectorError
from pipelines.alerts.review import queue
from pipelines.api.alerts import Given
from pipelines.api.context import AppContext, needs
from pipelines.api.jobs import jobs_of, waiting_requests
from pipelines.api.problems import HEADERS, ProblemError
from pipelines.config.masking import masks_of
from pipelines.escaping import for_terminal
from pipelines.features.plain_frame import plain
from pipelines.scoring.what_if import Outlook, what_if
from pipelines.sinks.stored_scores import Scored, stored_scores
from pipelines.store import Batch

MOST_ROWS = 1_000
SHOWN = ("risk", "p_value", "flagged", "severity", "reasons")


class Budget(Given):
    """At most so many."""

    rows: int = Field(ge=1)
    per: str = "day"


class Policy(Given):
    """What to change of today's policy; null takes a rule away."""

    quantile: float | None = None
    budget: Budget | None = None
    fdr: float | None = None
    days: float = Field(30.0, gt=0, le=3_650)


def looks_router(context: AppContext) -> APIRouter:
    """The paths."""
    router = APIRouter(tags=["look"])
    reads = Depends(needs("view"))

    @router.get("/entities/{entity:path}", dependencies=[reads])
    def entity(entity: str, days: Annotated[float, Query(gt=0, le=3_650)] = 90.0) -> JSONResponse:
        """What was said of an entity in the last days: its rows, the latest first, and its alerts."""
        return JSONResponse(entity_of(context, entity, days=days), headers=HEADERS)

    @router.post("/what-if", dependencies=[reads])
    def what_if_it_were(given: Policy) -> JSONResponse:
        """What another policy would have flagged in the last days, beside today's; nothing is changed."""
        today, other = policies_of(context, given.model_dump(exclude_unset=True, exclude={"days"}), days=given.days)
        return JSONResponse({"today": today.to_dict(), "then": other.to_dict()}, headers=HEADERS)

    @router.get("/health")
    def health() -> JSONResponse:
        """How the service is: whether it could score, how far it is behind, its jobs."""
        return JSONResponse(health_of(context), headers=HEADERS)

    return router


def policies_of(context: AppContext, changes: Mapping[str, Any], *, days: float) -> tuple[Outlook, Outlook]:
    """Today's policy and another one over the last days; see ``what_if``.

    Raises ``ProblemError`` if there is no such policy.
    """
    config, now = context.config, context.clock()
    try:
        return what_if(config, context.store, context.cache, changes=changes, days=days, now=now, memory=context.memory)
    except pydantic.ValidationError as error:
        fields = {".".join(map(str, each["loc"])) or "policy": each["msg"] for each in error.errors()}
        text = "; ".join(f"{name}: {said}" for name, said in fields.items())
        raise ProblemError(422, f"There is no such policy: {text}.", fields=fields) from None


def entity_of(context: AppContext, entity: str, *, days: float) -> dict[str, Any]:
    """The scores and alerts of an entity.

    Raises ``DataError`` if rows have no entity.
    """
    config, name, now = context.config, context.config.columns.entity, context.clock()
    if name is None:
        raise DataError("`columns.entity` names no column, so rows belong to nobody in particular.")
    since, masks, entity = now - timedelta(days=days), masks_of(config), for_terminal(entity)
    scored = stored_scores(config, context.store, Scored(SHOWN, entity=entity, since=since))
    if config.columns.time in scored:
        scored = scored.sort_values(str(config.columns.time), ascending=False, kind="stable")
    shown = scored.head(MOST_ROWS).drop(columns=["batch", "scored_at", name], errors="ignore")
    if masks.of and "reasons" in shown:
        shown = shown.drop(columns="reasons")  # they may show what is masked
    for column in shown.columns:
        if masks.is_masked(column):
            shown[column] = masks.show_all(column, shown[column].tolist())
    rows = [{each: plain(value) for each, value in row.items()} for row in shown.to_dict("records")]
    label = masks.show(name, entity)
    with context.store.read() as session:
        wanted = queue.QueueQuery("all", about=label, since=since, order="newest", most=200)
        alerts = [line.to_dict() for line in queue.page(session, wanted, config=config, now=now)]
    return {"entity": label, "days": days, "total": len(scored), "rows": rows, "alerts": alerts}


def health_of(context: AppContext) -> dict[str, Any]:
    """How the service is."""
    facts = context.facts
    ready, found = facts.readiness()
    answer: dict[str, Any] = {"ready": ready} | found | {"name": context.config.name}
    answer["configuration"] = f"not taken over: {facts.refused}" if facts.refused else "ok"
    try:
        lag = facts.lag()
        answer |= {"waiting": lag.waiting, "lag_seconds": round(lag.seconds, 1)}
        answer["model_age_days"] = round(facts.model_age() / 86_400, 2)
    except DetectorError as error:
        answer["lag"] = str(error)
    answer["jobs"] = jobs_of(context)
    with context.store.read() as session:
        last = session.query(Batch).filter(Batch.source == context.config.name).order_by(Batch.id.desc()).limit(10)
        answer["batches"] = [
            {
                "batch": each.id,
                "state": each.state,
                "done_at": each.done_at and each.done_at.isoformat(),
                "rows": each.rows,
                "flagged": each.flagged,
                "quarantined": each.quarantined,
                "repeated": each.repeated,
                "corrected": each.corrected,
            }
            for each in last
        ]
        answer["requests_waiting"] = waiting_requests(session)
        total = queue.count(session, queue.QueueQuery(), config=context.config, now=context.clock())
        answer |= {"alerts_open": min(total, queue.MOST_COUNTED), "alerts_open_is_least": total > queue.MOST_COUNTED}
    return answer
