"""``/v1/jobs``: when each job runs next and how its last runs ended; run one now, leave one out."""

from __future__ import annotations

from typing import Annotated, Any

import sqlalchemy as sa
from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse
from pydantic import Field
from sqlalchemy.orm import Session

from detector.errors import NotFoundError
from pipelines.api.context import AppContext, caller_of, needs
from pipelines.api.problems import HEADERS
from pipelines.api.request_body import RequestBody
from pipelines.api.writes import in_one_transaction
from pipelines.jobs.steering import last_runs, paused_jobs, steer
from pipelines.service.due_times import next_times
from pipelines.service.scheduler import sections_of
from pipelines.store import Request as Asked
from pipelines.store import Run

Number = Annotated[int, Field(ge=1, lt=2**31)]


class Why(RequestBody):
    """Why; kept with who and when."""

    reason: str = Field("", max_length=1_000)


def jobs_router(context: AppContext) -> APIRouter:
    """The paths."""
    router = APIRouter(prefix="/jobs", tags=["jobs"])
    store, reads, steers = context.store, Depends(needs("view")), Depends(needs("admin"))

    @router.get("", dependencies=[reads])
    def list_jobs() -> JSONResponse:
        """Every job of the schedule."""
        return JSONResponse({"jobs": jobs_of(context)}, headers=HEADERS)

    @router.get("/runs", dependencies=[reads])
    def list_job_runs(job: str = "", limit: Annotated[int, Query(ge=1, le=500)] = 20) -> JSONResponse:
        """The last runs, the latest first."""
        with store.read() as session:
            found = [run_of(run) for run in last_runs(session, job=job, most=limit)]
        return JSONResponse({"runs": found}, headers=HEADERS)

    @router.get("/requests/{number}", dependencies=[reads])
    def get_job_request(number: Number) -> JSONResponse:
        """What became of a run that was asked for."""
        with store.read() as session:
            found = session.get(Asked, number)
            if found is None:
                raise NotFoundError(f"There is no request {number}.")
            run = None if found.run is None else session.get(Run, found.run)
            answer = {"request": number, "job": found.job, "state": state_of(found)}
            answer["run"] = None if run is None else run_of(run)
        return JSONResponse(answer, headers=HEADERS)

    def take(job: str, step: str, given: Why, request: Request) -> JSONResponse:
        who = caller_of(request).name

        def within(session: Session) -> dict[str, Any]:
            return steer(session, job, step, actor=who, reason=given.reason, now=context.clock())

        return in_one_transaction(context, request, given, within)

    @router.post("/{job}/run", dependencies=[steers])
    def run_job(job: str, given: Why, request: Request) -> JSONResponse:
        """Have a job run now, by the instance that leads; `requests/{number}` says what became of it."""
        return take(job, "run", given, request)

    @router.post("/{job}/pause", dependencies=[steers])
    def pause_job(job: str, given: Why, request: Request) -> JSONResponse:
        """Leave a job out until it is resumed."""
        return take(job, "pause", given, request)

    @router.post("/{job}/resume", dependencies=[steers])
    def resume_job(job: str, given: Why, request: Request) -> JSONResponse:
        """Run a job on schedule again."""
        return take(job, "resume", given, request)

    return router


def state_of(request: Asked) -> str:
    """How far a run is that was asked for."""
    return "waiting" if not request.taken else "running" if request.run is None else "ended"


def jobs_of(context: AppContext) -> list[dict[str, Any]]:
    """Every job: when it runs, whether it is left out, and how it ended last."""
    times = next_times(context.store)
    found = []
    with context.store.read() as session:
        paused = paused_jobs(session)
        for name, section in sections_of(context.config.service).items():
            last = next(iter(last_runs(session, job=name, most=1)), None)
            state = "off" if not section.enabled else "paused" if name in paused else "on"
            due = times.get(name) if state == "on" else None
            line = {"job": name, "when": section.when, "state": state, "next": due and due.isoformat()}
            found.append(line | {"last": None if last is None else run_of(last)})
    return found


def run_of(run: Run) -> dict[str, Any]:
    """A run as JSON."""
    ended = run.ended_at
    return {
        "run": run.id,
        "job": run.job,
        "trigger": run.trigger,
        "started_at": run.started_at.isoformat(),
        "seconds": None if ended is None else round((ended - run.started_at).total_seconds(), 1),
        "outcome": run.outcome,
        "rows": run.rows,
        "note": run.note,
        "error": run.error,
    }


def waiting_requests(session: Session) -> int:
    """How many runs were asked for and are not begun."""
    return int(session.scalar(sa.select(sa.func.count()).select_from(Asked).where(~Asked.taken)) or 0)
