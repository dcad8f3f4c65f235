"""The API as one application under ``/v1``, behind its guard."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from fastapi import FastAPI
from fastapi.responses import JSONResponse
from starlette.types import ASGIApp

from pipelines.api.alerts import alerts_router
from pipelines.api.audit import audit_router
from pipelines.api.configuration import configuration_router
from pipelines.api.context import AppContext
from pipelines.api.entities import entities_router
from pipelines.api.guard import Guard
from pipelines.api.health import health_router
from pipelines.api.jobs import jobs_router
from pipelines.api.models import models_router
from pipelines.api.policy import policy_router
from pipelines.api.problems import DESCRIBED, HEADERS, answer_problems
from pipelines.api.rules import rules_router
from pipelines.api.scores import scores_router
from pipelines.api.what_if import what_if_router

PATH = "/v1"
ABOUT = """Score events, work through alerts, steer the service.

Every request carries a key: `Authorization: Bearer det_…`, made by `detector keys create` with the scopes
`score`, `review` or `admin`. One that changes something may carry an `Idempotency-Key`.

Errors are `application/problem+json`, whose `errors` name each field."""


def api(context: AppContext) -> ASGIApp:
    """The application, to be mounted at ``PATH``."""
    return Guard(unguarded(context), context)


def unguarded(context: AppContext) -> FastAPI:
    """The same without its guard, which puts in who asks."""
    app = FastAPI(
        title="Anomaly detector",
        version=version("anomaly-detector"),
        description=ABOUT,
        docs_url=None,  # its page loads scripts from elsewhere
        redoc_url=None,
        openapi_url=None,
        servers=[{"url": PATH}],
        responses=DESCRIBED,
        generate_unique_id_function=lambda route: route.name,  # what generated clients call the operation
    )
    answer_problems(app)
    looks = (entities_router, what_if_router, health_router)
    steers = (jobs_router, models_router, rules_router, audit_router, configuration_router, policy_router)
    for router in (scores_router, alerts_router, *looks, *steers):
        app.include_router(router(context))

    @app.get("/openapi.json", include_in_schema=False)
    def openapi() -> JSONResponse:
        found: dict[str, Any] = app.openapi()
        found["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        found["security"] = [{"key": []}]
        return JSONResponse(found, headers=HEADERS)

    return app
