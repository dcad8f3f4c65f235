"""``/v1/models``: the detectors on disk, which of them serves, and moves with a reason."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse
from pydantic import Field
from sqlalchemy.orm import Session

from detector.errors import NotFoundError
from pipelines.api.context import AppContext, caller_of, needs
from pipelines.api.jobs import Number, state_of
from pipelines.api.problems import HEADERS
from pipelines.api.request_body import RequestBody
from pipelines.api.writes import as_json, in_one_transaction, once
from pipelines.jobs.steering import ask_for
from pipelines.registry.models_file import Promotion
from pipelines.registry.registry import ModelRegistry
from pipelines.store import Request as Asked
from pipelines.store import Run
from pipelines.store.trail import write_down
from pipelines.training.registry_commands import pair_of, promote, roll_back


class MoveReason(RequestBody):
    """Why; stored with the move."""

    reason: str = Field(min_length=1, max_length=1_000)


class Pair(RequestBody):
    """Two detectors, by their names or first letters; by default the champion and the challenger."""

    first: str = Field("", max_length=100)
    second: str = Field("", max_length=100)


def models_router(context: AppContext) -> APIRouter:
    """The paths."""
    router = APIRouter(prefix="/models", tags=["models"])
    config, reads, moves = context.config, Depends(needs("view")), Depends(needs("admin"))

    @router.get("", dependencies=[reads])
    def list_models() -> JSONResponse:
        """The detectors on disk, the latest last, and every move of the champion."""
        return JSONResponse(models_of(context), headers=HEADERS)

    @router.post("/compare", dependencies=[moves], status_code=202)
    def compare_models(given: Pair, request: Request) -> JSONResponse:
        """Have two detectors compared on recent rows that neither learnt from; `compare/{number}` says how they do."""
        first, second = pair_of(config, given.first, given.second)
        who = caller_of(request).name

        def ask(session: Session) -> dict[str, Any]:
            pair, now = {"first": first, "second": second}, context.clock()
            write_down(session, "compare models", actor=who, arguments=pair, now=now)
            return pair | {"request": ask_for(session, "compare", arguments=pair, now=now)}

        answer = in_one_transaction(context, request, given, ask)
        answer.status_code = 202
        return answer

    @router.get("/compare/{number}", dependencies=[moves])
    def get_comparison(number: Number) -> JSONResponse:
        """What became of a comparison that was asked for: waiting, running or ended, and the figures."""
        with context.store.read() as session:
            found = session.get(Asked, number)
            if found is None or found.job != "compare":
                raise NotFoundError(f"There is no comparison {number}.")
            run = None if found.run is None else session.get(Run, found.run)
            facts = dict(found.arguments) | {"request": number, "state": state_of(found)}
            result = {} if run is None else dict(run.facts)
            facts |= {"figures": result.get("figures"), "note": run and run.note, "error": run and run.error}
        return JSONResponse(facts, headers=HEADERS)

    @router.post("/rollback", dependencies=[moves])
    def roll_back_model(given: MoveReason, request: Request) -> JSONResponse:
        """Let the detector serve that served before."""
        return once(context, request, given, lambda: move(context, "", given.reason, caller_of(request).name), as_json)

    @router.post("/{name}/promote", dependencies=[moves])
    def promote_model(name: str, given: MoveReason, request: Request) -> JSONResponse:
        """Let a detector serve, from one moment to the next."""
        return once(
            context, request, given, lambda: move(context, name, given.reason, caller_of(request).name), as_json
        )

    return router


def move(context: AppContext, name: str, reason: str, who: str) -> dict[str, Any]:
    """Promote a detector, or roll back where none is named; who did it stands in the trail and beside the reason.

    Raises ``SettingError`` if there is none, or it serves already.
    """
    config, now, why = context.config, context.clock(), f"{reason} ({who})"
    done: Promotion = promote(config, name, reason=why, now=now) if name else roll_back(config, reason=why, now=now)
    with context.store.write() as session:
        _write_down(session, done, who, reason, context)
    return {"serves": done.to, "before": done.before, "at": done.at, "reason": done.why}


def models_of(context: AppContext) -> dict[str, Any]:
    """The registry as JSON."""
    registry = ModelRegistry(context.config.bundle)
    state = registry.state()
    roles = {state.challenger: "challenger", state.champion: "champion"}
    models = [asdict(model) | {"role": roles.get(model.name, "")} for model in state.models]
    return {"serves": registry.served(), "models": models, "moves": [asdict(each) for each in state.promotions]}


def _write_down(session: Session, done: Promotion, who: str, reason: str, context: AppContext) -> None:
    arguments = {"to": done.to, "before": done.before}
    write_down(session, "promote", actor=who, reason=reason, arguments=arguments, now=context.clock())
