"""Run one job for a command: here if no instance leads, else by asking the one that does."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from detector.errors import DetectorError
from pipelines.config import Config
from pipelines.jobs.catalogue import job_of
from pipelines.jobs.steering import ask_for
from pipelines.service.instance import Service
from pipelines.service.leader import beating
from pipelines.store import Request, Run, Store

PAUSE = 0.2


class JobFailedError(DetectorError, RuntimeError):
    """A job that a command asked for failed; the message is its error."""


def run_once(config: Config, store: Store, job: str, arguments: Mapping[str, Any] | None = None) -> Run:
    """Run a job now and wait for its end.

    If an instance of the service leads, it is asked, so that two never score at once. An instance that has died is
    waited for as long as its lease says.

    Returns the record of the run.

    Raises ``NotFoundError`` if there is no such job; ``JobFailedError`` if the job failed.
    """
    job_of(job)
    service = Service(config, store)
    request: int | None = None
    while not service.leadership.lead():
        if request is None:
            request = _ask(store, job, arguments or {})
        number, taken = _answer(store, request)
        if number is not None:
            return _finished(store, number, job)
        time.sleep(PAUSE if not taken else PAUSE * 2)
    if request is not None and not _withdraw(store, request):
        # The leader had begun and has died or ended since; the run here makes up for it.
        _forget(store, request)
    with beating(service.leadership):
        found = service.run_and_follow(job, trigger="command", arguments=dict(arguments or {}))
    return _finished(store, found, job)


def _ask(store: Store, job: str, arguments: Mapping[str, Any]) -> int:
    with store.write() as session:
        return ask_for(session, job, arguments=arguments, now=datetime.now(UTC))


def _answer(store: Store, request: int) -> tuple[int | None, bool]:
    with store.read() as session:
        found = session.get(Request, request)
        return (None, False) if found is None else (found.run, found.taken)


def _withdraw(store: Store, request: int) -> bool:
    with store.write() as session:
        found = session.execute(
            sa.delete(Request).where(Request.id == request, ~Request.taken).returning(Request.id)
        ).all()
    return bool(found)


def _forget(store: Store, request: int) -> None:
    with store.write() as session:
        session.execute(sa.delete(Request).where(Request.id == request))


def _finished(store: Store, number: int, job: str) -> Run:
    with store.read() as session:
        run = session.get(Run, number)
        session.expunge_all()
    if run is None or run.outcome not in ("done", "skipped"):
        why = run.error if run is not None else "the instance that was asked could not run it; its log says why"
        raise JobFailedError(f"The job {job} failed: {why}")
    return run
