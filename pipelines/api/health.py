"""``/v1/health``: how the service is."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from detector.errors import DetectorError
from pipelines.alerts.review import queue
from pipelines.api.context import AppContext
from pipelines.api.health_details import disk_of, drift_of, set_aside_of
from pipelines.api.jobs import jobs_of, waiting_requests
from pipelines.api.problems import HEADERS
from pipelines.store import Batch


def health_router(context: AppContext) -> APIRouter:
    """The path."""
    router = APIRouter(tags=["look"])

    @router.get("/health")
    def get_health() -> JSONResponse:
        """How the service is: whether it could score, how far it is behind, its jobs."""
        return JSONResponse(health_of(context), headers=HEADERS)

    return router


def health_of(context: AppContext) -> dict[str, Any]:
    """How the service is."""
    facts = context.facts
    ready, found = facts.readiness()
    answer: dict[str, Any] = {"ready": ready} | found | {"name": context.config.name}
    answer["configuration"] = f"not taken over: {facts.refused}" if facts.refused else "ok"
    lag = facts.lag_by_now()
    answer |= {"lag": lag} if isinstance(lag, str) else {"waiting": lag.waiting, "lag_seconds": round(lag.seconds, 1)}
    with suppress(DetectorError):  # without a detector it is not ready, and says why
        answer["model_age_days"] = round(facts.model_age() / 86_400, 2)
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
        answer["drift"] = drift_of(session)
        answer["requests_waiting"] = waiting_requests(session)
        total = queue.count(session, queue.QueueQuery(), config=context.config, now=context.clock())
        answer |= {"alerts_open": min(total, queue.MOST_COUNTED), "alerts_open_is_least": total > queue.MOST_COUNTED}
    odd = [each["batch"] for each in answer["batches"] if each["quarantined"]]
    return answer | {"set_aside": set_aside_of(context.config, odd), "disk": disk_of(context.config)}
