"""``/v1/entities``: what was said of an entity in the last days."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from fastapi.responses import JSONResponse

from detector.errors import DataError
from pipelines.alerts.review import queue
from pipelines.api.context import AppContext, needs
from pipelines.api.problems import HEADERS
from pipelines.config.masking import masks_of
from pipelines.escaping import for_terminal
from pipelines.features.plain_frame import plain
from pipelines.sinks.stored_scores import ScoresQuery, stored_scores

MOST_ROWS = 1_000
SHOWN = ("risk", "p_value", "flagged", "severity", "reasons")


def entities_router(context: AppContext) -> APIRouter:
    """The path."""
    router = APIRouter(tags=["look"])

    @router.get("/entities/{entity:path}", dependencies=[Depends(needs("view"))])
    def get_entity(entity: str, days: Annotated[float, Query(gt=0, le=3_650)] = 90.0) -> JSONResponse:
        """What was said of an entity in the last days: its rows, the latest first, and its alerts."""
        return JSONResponse(entity_of(context, entity, days=days), headers=HEADERS)

    return router


def entity_of(context: AppContext, entity: str, *, days: float) -> dict[str, Any]:
    """The scores and alerts of an entity.

    Raises ``DataError`` if rows have no entity.
    """
    config, name, now = context.config, context.config.columns.entity, context.clock()
    if name is None:
        raise DataError("`columns.entity` names no column, so rows belong to nobody in particular.")
    since, masks, entity = now - timedelta(days=days), masks_of(config), for_terminal(entity)
    scored = stored_scores(config, context.store, ScoresQuery(SHOWN, entity=entity, since=since))
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
