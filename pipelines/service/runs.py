"""Run a job and keep a record of it, whatever becomes of it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from detector.errors import DetectorError, StoreError
from pipelines.alerts.outbox.service_alerts import Trouble, in_a_row, is_open, report, report_over
from pipelines.config import Config
from pipelines.config.series import in_settings
from pipelines.disk import full_disk
from pipelines.jobs.catalogue import job_of
from pipelines.jobs.context import Context, JobOutcome, StoppedError
from pipelines.progress import counted
from pipelines.service.resources import places_of
from pipelines.sinks.quarantine import without_values
from pipelines.store import Run, Store
from pipelines.testing.failpoints import failpoint

log = logging.getLogger("detector.runs")

OnEnd = Callable[[str, str, float, JobOutcome | None], None]
"""Called with every run that ended: job, outcome, seconds, what the job returned."""


def run_job(
    context: Context, job: str, *, trigger: str, instance: str, on_end: OnEnd | None = None
) -> tuple[int, JobOutcome | None]:
    """Run a job, with a record of its start, end, rows, outcome and error.

    - ``context``: its number of the run is set here.
    - ``trigger``: why it runs: schedule, request, or the job that asked for it.
    - ``on_end``: called at the end.

    Returns the number of the record; what the job returned, None if it failed or was stopped. It does not raise: the
    error is in the record and in the log.

    Raises ``NotFoundError`` if there is no such job; ``StoreError`` if the record cannot be written.
    """
    does = job_of(job)
    started = time.perf_counter()
    number = begin(context.store, job, trigger=trigger, instance=instance, now=context.now)
    failpoint("run.begun")
    found: JobOutcome | None = None
    outcome, error = "failed", ""
    try:
        found = does(replace(context, run=number))
        outcome = found.outcome
        is_quiet = outcome == "skipped" and trigger == "schedule" and _was_said(context.store, job, number, found.note)
        level = logging.DEBUG if is_quiet else logging.INFO
        log.log(level, "%s: %s", job, found.note or outcome, extra={"job": job, "run": number, "rows": found.rows})
    except StoppedError as stopped:
        outcome, error = "stopped", str(stopped)
        log.info("%s: stopped. %s", job, stopped, extra={"job": job, "run": number})
    except DetectorError as failure:
        outcome, error = "failed", in_settings(str(failure))
        log.error("%s failed: %s", job, error, extra={"job": job, "run": number})
    except Exception as failure:
        outcome = "failed"
        if (full := full_disk(failure, places_of(context.config))) is not None:
            error = f"{full} What was in hand is undone, and done anew once there is room."
            log.error("%s failed: %s", job, error, extra={"job": job, "run": number})
        else:
            error = f"{type(failure).__name__}: {failure}"
            log.exception("%s failed unexpectedly", job, extra={"job": job, "run": number})
    failpoint("run.ending")
    seconds = time.perf_counter() - started
    # The clock may have been set meanwhile; how long it took has not changed by that.
    ended = context.now + timedelta(seconds=seconds)
    if end(context.store, number, outcome=outcome, found=found, error=error, now=ended):
        _report(context, job, outcome, error)
    if on_end is not None:
        on_end(job, outcome, seconds, found)
    return number, found


def begin(store: Store, job: str, *, trigger: str, instance: str, now: datetime) -> int:
    """Write down that a run begins; its number."""
    with store.write() as session:
        run = Run(job=job, trigger=trigger, instance=instance, started_at=now, outcome="running", rows=0, facts={})
        session.add(run)
        session.flush()
        return run.id


def _was_said(store: Store, job: str, number: int, note: str) -> bool:
    """Whether the run before was skipped for the same reason, so that the log need not say so every minute."""
    before = sa.select(Run.outcome, Run.note).where(Run.job == job, Run.id < number).order_by(Run.id.desc()).limit(1)
    try:
        with store.read() as session:
            found = session.execute(before).first()
            return found is not None and (found.outcome, found.note) == ("skipped", note[:4_000])
    except StoreError:
        return False


def end(store: Store, number: int, *, outcome: str, found: JobOutcome | None, error: str = "", now: datetime) -> bool:
    """Write down how a run ended, and whether that could be done. If the database is away, the run is found lost."""
    values: dict[str, Any] = {"outcome": outcome, "error": error[:4_000], "ended_at": now}
    if found is not None:
        values |= {"rows": found.rows, "note": found.note[:4_000], "facts": dict(found.facts)}
    try:
        with store.write() as session:
            session.execute(sa.update(Run).where(Run.id == number).values(**values))
    except StoreError as failure:
        said = in_settings(str(failure)) == error
        log.log(
            logging.DEBUG if said else logging.ERROR, "the end of run %d could not be written down: %s", number, failure
        )
        return False
    return True


def _report(context: Context, job: str, outcome: str, error: str) -> None:
    """Have a job reported that fails again and again, or that it works again; a run that was stopped says neither."""
    if outcome == "stopped":
        return
    config, cause, now = context.config, f"job {job}", context.now
    try:
        if outcome != "failed":
            with context.store.read() as session:
                if not is_open(session, cause, config=config):
                    return
        with context.store.write() as session:
            if outcome == "failed":
                trouble = _failing(config, job, error, session, now)
                report(session, trouble, config=config, now=now, least=config.service.most_failures)
            else:
                report_over(session, cause, config=config, now=now)
            context.fence(session)
    except DetectorError as failure:
        log.warning("%s: no alert could be made of how it ended: %s", job, failure)


def _failing(config: Config, job: str, error: str, session: Session, now: datetime) -> Trouble:
    times, since = in_a_row(session, f"job {job}", config=config, now=now)
    shown = without_values(error, config) if config.alerts.mask else error  # an error may name a value
    effect = ", and nothing is scored meanwhile" if job == "score" else ""
    return Trouble(
        cause=f"job {job}",
        label=f"the job {job}",
        severity="critical" if job == "score" else "high",
        text=f"The job {job} of {config.name} has failed {times} times in a row, since {since:%Y-%m-%d %H:%M} UTC"
        f"{effect}: {shown}",
        todo="See `detector doctor` and `detector jobs list`; the log holds all of it. How many failures are reported: "
        "`service.most_failures`.",
        figures={"job": job, "failures": times},
    )


def note_unrun(store: Store, job: str, outcome: str, *, instance: str, why: str) -> None:
    """Write down a run that was due and did not happen."""
    now = datetime.now(UTC)
    try:
        with store.write() as session:
            session.add(
                Run(
                    job=job,
                    trigger="schedule",
                    instance=instance,
                    started_at=now,
                    ended_at=now,
                    outcome=outcome,
                    note=why,
                    facts={},
                )
            )
    except StoreError as failure:
        log.error("%s: %s; that could not be written down: %s", job, why, failure)


def close_lost(store: Store, *, now: datetime) -> int:
    """Mark runs as lost whose process has died; called by an instance that has just become the leader."""
    lost: Mapping[str, Any] = {
        "outcome": "lost",
        "ended_at": now,
        "error": "The process ended before the run did. What it had in hand was undone and is done anew.",
    }
    with store.write() as session:
        numbers = list(session.scalars(sa.select(Run.id).where(Run.outcome == "running")))
        session.execute(sa.update(Run).where(Run.id.in_(numbers)).values(**lost))
    if numbers:
        log.warning("lost with their process: %s", counted(len(numbers), "run"))
    return len(numbers)
