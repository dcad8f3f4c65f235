"""What people have the service do: run a job now, leave one out for a while; who did so is written down."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from detector.errors import NotFoundError, SettingError, nearest
from pipelines.config.service import JobsSection
from pipelines.store import JobState, Request, Run
from pipelines.store.trail import write_down

STEPS = ("run", "pause", "resume")


def check_job(job: str) -> None:
    """Raise ``NotFoundError`` if no job of the schedule has that name."""
    if job not in JobsSection.model_fields:
        raise NotFoundError(f"There is no job {job!r}. {nearest(job, JobsSection.model_fields)}")


def set_paused(session: Session, job: str, *, paused: bool) -> bool:
    """Leave a job out, or run it on schedule again; whether it is left out now.

    Raises ``NotFoundError`` if there is none of that name.
    """
    check_job(job)
    session.merge(JobState(job=job, paused=paused))
    return paused


def paused_jobs(session: Session) -> set[str]:
    """The jobs that are left out."""
    return {state.job for state in session.scalars(sa.select(JobState).where(JobState.paused))}


def ask_for(session: Session, job: str, *, arguments: Mapping[str, Any], now: datetime) -> int:
    """Ask the instance that leads for a run; the number of the request."""
    request = Request(job=job, arguments=dict(arguments), asked_at=now, taken=False)
    session.add(request)
    session.flush()
    return request.id


def steer(session: Session, job: str, step: str, *, actor: str, reason: str, now: datetime) -> dict[str, Any]:
    """Run a job of the schedule now, leave it out, or take it in again; who did so is written down.

    - ``step``: one of ``STEPS``.

    Returns the job, and the number of the request or whether it is left out.

    Raises ``NotFoundError`` if there is no such job, ``SettingError`` if there is no such step.
    """
    check_job(job)
    if step not in STEPS:
        raise SettingError(f"There is no {step!r} to do with a job. {nearest(step, STEPS)}")
    write_down(session, f"{step} {job}", actor=actor, reason=reason, now=now)
    if step == "run":
        return {"job": job, "request": ask_for(session, job, arguments={}, now=now)}
    return {"job": job, "paused": set_paused(session, job, paused=step == "pause")}


def last_runs(session: Session, *, job: str = "", most: int = 20) -> list[Run]:
    """The last runs, of one job or of all, the latest first."""
    statement = sa.select(Run).order_by(Run.id.desc()).limit(most)
    return list(session.scalars(statement if not job else statement.where(Run.job == job)))
