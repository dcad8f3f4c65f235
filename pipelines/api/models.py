"""``/v1/models``: the detectors on disk, which of them serves, and moves with a reason."""

from __future__ import annotations

import threading
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse
from pydantic import Field
from sqlalchemy.orm import Session

from pipelines.api.alerts import Given
from pipelines.api.doors import Doors, caller_of, needs
from pipelines.api.problems import HEADERS, ProblemError
from pipelines.api.writes import beside
from pipelines.registry.models_file import Promotion
from pipelines.registry.registry import ModelRegistry
from pipelines.store.trail import write_down
from pipelines.training.registry_commands import compare_models, promote, roll_back


class Reason(Given):
    """Why; stored with the move."""

    reason: str = Field(min_length=1, max_length=1_000)


def models_router(doors: Doors) -> APIRouter:
    """The paths."""
    router = APIRouter(prefix="/models", tags=["models"])
    config, reads, moves = doors.config, Depends(needs("view")), Depends(needs("admin"))
    comparing = threading.Lock()

    @router.get("", dependencies=[reads])
    def list_models() -> JSONResponse:
        """The detectors on disk, the latest last, and every move of the champion."""
        return JSONResponse(models_of(doors), headers=HEADERS)

    @router.get("/compare", dependencies=[moves])
    def compare(first: str = "", second: str = "") -> JSONResponse:
        """Compare two detectors on recent rows that neither learnt from; by default champion and challenger."""
        if not comparing.acquire(blocking=False):
            raise ProblemError(503, "A comparison is in hand. Ask again later.", headers={"Retry-After": "30"})
        try:
            found = compare_models(config, first, second, now=doors.clock())
        finally:
            comparing.release()
        facts = {"champion": found.champion, "challenger": found.challenger, "figures": found.comparison.metrics()}
        return JSONResponse(facts | {"note": found.summary()[0]}, headers=HEADERS)

    @router.post("/rollback", dependencies=[moves])
    def rollback(given: Reason, request: Request) -> JSONResponse:
        """Let the detector serve that served before."""
        return beside(doors, request, given, lambda: move(doors, "", given.reason, caller_of(request).name))

    @router.post("/{name}/promote", dependencies=[moves])
    def promote_one(name: str, given: Reason, request: Request) -> JSONResponse:
        """Let a detector serve, from one moment to the next."""
        return beside(doors, request, given, lambda: move(doors, name, given.reason, caller_of(request).name))

    return router


def move(doors: Doors, name: str, reason: str, who: str) -> dict[str, Any]:
    """Promote a detector, or roll back where none is named; who did it stands in the trail and beside the reason.

    Raises ``SettingError`` if there is none, or it serves already.
    """
    config, now, why = doors.config, doors.clock(), f"{reason} ({who})"
    done: Promotion = promote(config, name, reason=why, now=now) if name else roll_back(config, reason=why, now=now)
    with doors.store.write() as session:
        _write_down(session, done, who, reason, doors)
    return {"serves": done.to, "before": done.before, "at": done.at, "reason": done.why}


def models_of(doors: Doors) -> dict[str, Any]:
    """The registry as JSON."""
    registry = ModelRegistry(doors.config.bundle)
    state = registry.state()
    roles = {state.challenger: "challenger", state.champion: "champion"}
    models = [asdict(model) | {"role": roles.get(model.name, "")} for model in state.models]
    return {"serves": registry.served(), "models": models, "moves": [asdict(each) for each in state.promotions]}


def _write_down(session: Session, done: Promotion, who: str, reason: str, doors: Doors) -> None:
    arguments = {"to": done.to, "before": done.before}
    write_down(session, "promote", actor=who, reason=reason, arguments=arguments, now=doors.clock())
