"""When each job runs next: held in memory by the scheduler, and written down for the next leader and for people.

APScheduler's own database store would pickle its jobs. Jobs follow from the configuration, so their times alone are
stored, as plain values.
"""

from __future__ import annotations

import logging
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from apscheduler.job import Job
from apscheduler.jobstores.memory import MemoryJobStore

from detector.errors import StoreError
from pipelines.store import DueTime, Store, upsert

log = logging.getLogger("detector.schedule")


class DueTimes(MemoryJobStore):  # type: ignore[misc]  # APScheduler ships no types
    """Jobs in memory whose next times are written to the service's state whenever they change."""

    def __init__(self, store: Store) -> None:
        super().__init__()
        self._store = store

    def add_job(self, job: Job) -> None:
        """Take a job in, and write down when it is due."""
        super().add_job(job)
        self._write(job)

    def update_job(self, job: Job) -> None:
        """Replace a job, and write down when it is due."""
        super().update_job(job)
        self._write(job)

    def _write(self, job: Job) -> None:
        row = {"job": job.id, "due_at": job.next_run_time, "settings": settings_of(job.trigger, job.misfire_grace_time)}
        try:
            with self._store.write() as session:
                upsert(session, DueTime, [row])
        except StoreError as error:  # the next leader then makes up for one run too many; the run itself says why
            log.debug("the next time of %s could not be written down: %s", job.id, error)


def settings_of(trigger: Any, grace: int) -> dict[str, Any]:
    """What a next time was worked out from; where this has changed, it no longer holds."""
    return {**vars(trigger), "grace": grace}


def written_times(store: Store) -> dict[str, tuple[datetime, dict[str, Any]]]:
    """Each job's next time, and the settings it was worked out from."""
    with store.read() as session:
        return {row.job: (row.due_at, row.settings) for row in session.scalars(sa.select(DueTime))}


def next_times(store: Store) -> dict[str, datetime]:
    """The next time of each job, as the leader has written it down; empty if the service has never run."""
    return {job: due_at for job, (due_at, _) in written_times(store).items()}


def forget_all_but(store: Store, jobs: set[str]) -> None:
    """Remove the times of jobs that are gone or switched off."""
    with store.write() as session:
        session.execute(sa.delete(DueTime).where(DueTime.job.not_in(jobs)))
