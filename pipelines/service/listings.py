"""What the service does and has done, as lists: its jobs, their runs, and who had rows scored again."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import sqlalchemy as sa

from pipelines.config import Config
from pipelines.listing import Cell, Column, Listing
from pipelines.service.due_times import next_times
from pipelines.service.scheduler import sections_of
from pipelines.store import JobState, Run, Store
from pipelines.store.trail import TrailQuery, entries

COLOURS = {"failed": "bold red", "lost": "bold red", "missed": "yellow", "running": "cyan"}


def jobs_table(settings: Config, store: Store) -> Listing:
    """Each job: when it runs, when next, and what became of it last."""
    columns = (
        Column("job", head=True),
        Column("next", head=True),
        Column("when"),
        Column("last run"),
        Column("outcome", is_sentence=True),
        Column("rows", is_number=True),
    )
    rows, times = [], next_times(store)
    with store.read() as session:
        paused = {state.job for state in session.scalars(sa.select(JobState).where(JobState.paused))}
        for name, section in sections_of(settings.service).items():
            last = session.scalars(sa.select(Run).where(Run.job == name).order_by(Run.id.desc()).limit(1)).first()
            due = "off" if not section.enabled else "paused" if name in paused else _at(times.get(name))
            row = {"job": name, "next": due, "when": section.when, "last run": Cell(None, "never")}
            if last is not None:
                row |= {"last run": _at(last.started_at), "outcome": _outcome(last), "rows": last.rows}
            rows.append(row)
    return Listing(columns, rows, title=f"Jobs of {settings.name}")


def runs_table(store: Store, last: int) -> Listing:
    """The last runs, the latest first."""
    columns = (
        Column("run", head=True),
        Column("job", head=True),
        Column("start", head=True),
        Column("outcome", head=True),
        Column("why"),
        Column("seconds", is_number=True),
        Column("rows", is_number=True),
        Column("note", is_sentence=True),
    )
    rows = []
    with store.read() as session:
        for run in session.scalars(sa.select(Run).order_by(Run.id.desc()).limit(last)):
            seconds = None if run.ended_at is None else (run.ended_at - run.started_at).total_seconds()
            rows.append(
                {
                    "run": Cell(run.id, str(run.id)),
                    "job": run.job,
                    "start": _at(run.started_at),
                    "outcome": _outcome(run),
                    "why": run.trigger,
                    "seconds": None if seconds is None else Cell(seconds, f"{seconds:.1f}"),
                    "rows": run.rows,
                    "note": run.error or run.note,
                }
            )
    return Listing(columns, rows, title="Last runs", empty="Nothing has run yet.")


def trail_table(store: Store, wanted: TrailQuery) -> Listing:
    """What people had done, the latest first."""
    columns = (
        Column("when", head=True),
        Column("who", head=True),
        Column("what", head=True),
        Column("why", is_sentence=True),
        Column("about", key="arguments"),
        Column("batches", is_number=True),
        Column("rows", is_number=True),
    )
    rows = []
    with store.read() as session:
        for trail in entries(session, wanted):
            asked = ", ".join(f"{name} {_listed(value)}" for name, value in trail.arguments.items())
            rows.append(
                {
                    "when": _at(trail.at),
                    "who": trail.actor,
                    "what": trail.action,
                    "why": trail.reason,
                    "about": Cell(trail.arguments, asked),
                    "batches": trail.batches or None,
                    "rows": trail.rows or None,
                }
            )
    return Listing(columns, rows, title="Audit trail, newest first", empty="Nothing is on record.")


def _listed(value: object) -> str:
    return "; ".join(map(str, value)) if isinstance(value, list) else str(value)


def _outcome(run: Run) -> Cell:
    return Cell(run.outcome, run.outcome, COLOURS.get(run.outcome, ""))


def _at(moment: datetime | None) -> Any:
    return None if moment is None else Cell(moment, moment.astimezone().strftime("%Y-%m-%d %H:%M:%S %Z"))
