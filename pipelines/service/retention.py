"""What is kept for how long, as ``service.keep_*`` say: the rest is deleted some thousand rows at a time."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import InstrumentedAttribute

from pipelines.alerts.outbox.cap import sources_of
from pipelines.alerts.review.deletion import delete_alerts
from pipelines.ingest.row_marks import day_of
from pipelines.ingest.row_memory import RowMemory, oldest_day
from pipelines.jobs.context import Context
from pipelines.sinks.deletion import delete_scores_before
from pipelines.store import Audit, Batch, DayFlags, Request, Run, Store
from pipelines.store.alert_tables import Alert, AlertDay, AlertGroup, Delivery, Silence
from pipelines.store.trail import SERVICE, write_down

AT_ONCE = 1_000
"""Records that one transaction deletes: scoring and answers wait for it no longer than for a batch of alerts."""
LEAP = timedelta(days=30)
"""If the service recorded nothing for longer, it did not run, or a clock was set ahead: as much to be kept would seem
old as soon as that. The same time without another leap shows that the clock is believed."""
ASKED = ("command", "request")
ON_THEIR_WAY = ("waiting", "held")


def delete_old(context: Context) -> dict[str, int]:
    """Delete what is older than it is to be kept; how many of each.

    Raises ``SinkError`` if scores cannot be deleted; what was deleted until then stays deleted.
    """
    section, store = context.config.service, context.store
    runs = _ago(context, section.keep_runs)
    found = {
        "runs": delete_some(store, Run.id, Run.started_at < runs, Run.outcome != "running"),
        "requests": delete_some(store, Request.id, Request.asked_at < runs, Request.taken.is_(True)),
    }
    days, memory = section.keep_keys, RowMemory(store, context.config.name)
    found["known rows"] = memory.let_go(since=oldest_day(day_of(context.now), days), slack=days // 10)
    done = sa.select(Batch.id).where(Batch.done_at < runs)
    delete_some(store, DayFlags.batch, DayFlags.batch.in_(done))
    if section.keep_alerts is not None:
        oldest = _ago(context, section.keep_alerts)
        found["alerts"] = _delete_alerts(context, oldest)
        _leave_trail(context, "alerts", found["alerts"], oldest)
    if section.keep_scores is not None:
        oldest = _ago(context, section.keep_scores)
        scores = delete_scores_before(context.config, store, oldest)
        found |= {"score files": scores.files, "scores": scores.rows}
        _leave_trail(context, "scores", scores.rows, oldest)
    oldest = _ago(context, section.keep_audit)
    found["audit records"] = delete_some(store, Audit.id, Audit.at < oldest)
    _leave_trail(context, "audit records", found["audit records"], oldest)
    return found


def leap_of(context: Context) -> tuple[datetime, datetime] | None:
    """From when to when the clock may have been set ahead, of late; None if not, or if somebody asked for this run.

    By the records of runs: a clock that is years ahead makes all that is stored look old.
    """
    with context.store.read() as session:
        run = session.get(Run, context.run)
        before = session.scalar(sa.select(sa.func.max(Run.started_at)).where(Run.started_at < context.now - LEAP))
        if before is None or (run is not None and run.trigger in ASKED):
            return None
        after = session.scalar(sa.select(sa.func.min(Run.started_at)).where(Run.started_at > before)) or context.now
    return (before, after) if after - before > LEAP else None


def delete_some(store: Store, key: InstrumentedAttribute[Any], *which: sa.ColumnElement[bool]) -> int:
    """Delete the rows of a table that conditions hold for, ``AT_ONCE`` in a transaction; how many.

    - ``key``: its primary key, or a column that few rows share.
    """
    deleted = 0
    while True:
        with store.write() as session:
            ids = session.scalars(sa.select(key).where(*which).distinct().limit(AT_ONCE)).all()
            if not ids:
                return deleted
            session.execute(
                sa.delete(key.class_).where(key.in_(ids), *which), execution_options={"synchronize_session": False}
            )
        deleted += len(ids)


def _delete_alerts(context: Context, oldest: datetime) -> int:
    """What is still on its way to somebody is kept, and what later rows are compared with while it is open."""
    store, name, deleted = context.store, context.config.name, 0
    sources = [*sources_of(context.config), f"{name}, service"]
    waits = sa.select(Delivery.alert).where(Delivery.state.in_(ON_THEIR_WAY))
    old = sa.select(Alert.id).where(
        Alert.source == name, Alert.last_at < oldest, Alert.created_at < oldest, Alert.id.not_in(waits)
    )
    while True:
        with store.read() as session:
            ids = session.scalars(old.limit(AT_ONCE // 5)).all()
        if not ids:
            break
        with store.write() as session:
            delete_alerts(session, ids)
        deleted += len(ids)
    delete_some(store, AlertGroup.id, AlertGroup.source.in_(sources), AlertGroup.last_at < oldest, ~AlertGroup.is_open)
    delete_some(store, Silence.id, Silence.source.in_(sources), Silence.until < oldest)
    delete_some(store, AlertDay.day, AlertDay.source.in_(sources), AlertDay.day < oldest.date())
    return deleted


def _leave_trail(context: Context, what: str, deleted: int, oldest: datetime) -> None:
    """Whoever counts later what is left can tell from when on it is all."""
    if deleted:
        with context.store.write() as session:
            said = {"records": deleted, "before": oldest.isoformat()}
            write_down(session, f"delete {what}", actor=SERVICE, arguments=said, now=context.now)


def _ago(context: Context, days: int) -> datetime:
    return context.now - timedelta(days=days)
