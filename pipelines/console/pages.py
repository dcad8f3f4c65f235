"""The pages of models and of the service's health, and their forms."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response

from detector.errors import DataError
from pipelines.alerts.channels.targets import targets_of
from pipelines.api.doors import Doors
from pipelines.api.jobs import run_of
from pipelines.api.looks import health_of
from pipelines.api.models import models_of, move
from pipelines.console.forms import Form, checked
from pipelines.console.guard import PATH
from pipelines.console.rendering import page
from pipelines.jobs.steering import last_runs, steer
from pipelines.store.alert_tables import TargetState


def pages_router(doors: Doors) -> APIRouter:
    """The pages."""
    router = APIRouter()

    @router.get("/models")
    def models(request: Request) -> HTMLResponse:
        return page("models.html.j2", request, name=doors.config.name, **models_of(doors))

    @router.post("/models")
    async def promote(request: Request) -> Response:
        return await checked(request, lambda form: _move(doors, form), scope="admin")

    @router.get("/health")
    def health(request: Request) -> HTMLResponse:
        with doors.store.read() as session:
            runs = [run_of(run) for run in last_runs(session, most=15)]
            targets = {target.name: session.get(TargetState, target.name) for target in targets_of(doors.config)}
            states = [
                {"name": name, "state": "up" if state is None else state.state, "error": state.error if state else ""}
                for name, state in targets.items()
            ]
        values: dict[str, Any] = {"health": health_of(doors), "runs": runs, "targets": states}
        return page("health.html.j2", request, name=doors.config.name, **values)

    @router.post("/jobs")
    async def steer_job(request: Request) -> Response:
        return await checked(request, lambda form: _steer(doors, form), scope="admin")

    return router


def _move(doors: Doors, form: Form) -> str:
    if not form.one("reason"):
        raise DataError("reason: say why; it is stored with the move.")
    move(doors, form.one("model"), form.one("reason"), form.visitor.caller.name)
    return f"{PATH}/models"


def _steer(doors: Doors, form: Form) -> str:
    with doors.store.write() as session:
        who, now = form.visitor.caller.name, doors.clock()
        steer(session, form.one("job"), form.one("step"), actor=who, reason=form.one("reason"), now=now)
    return f"{PATH}/health"
