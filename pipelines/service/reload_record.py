"""What became of a changed configuration: a record among the runs, in the audit trail, and an alert to operators."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from pipelines.alerts.outbox.service_alerts import Trouble, is_open, report, report_over
from pipelines.config import Config
from pipelines.config.difference import listed
from pipelines.service.configuration_file import FoundConfiguration
from pipelines.sinks.quarantine import without_values
from pipelines.store import Run, Store
from pipelines.store.trail import write_down

JOB = "configuration"
"""Its name among the runs: no job of the schedule."""
CAUSE = "configuration"


def record_change(
    store: Store, found: FoundConfiguration, *, config: Config, instance: str, fence: Callable[[Session], None]
) -> None:
    """Write it down and have it reported, in one transaction.

    Nothing is written where a file says what serves already, unless it was refused before.

    Raises ``StoreError`` if the state cannot be written.
    """
    now = datetime.now(UTC)
    with store.read() as session:
        last = last_record(session)
        was_refused = (last is not None and last.outcome == "failed") or is_open(session, CAUSE, config=config)
    if not found.refused and not found.changed and not was_refused:
        return
    with store.write() as session:
        values: dict[str, Any] = {"outcome": "failed", "error": found.refused[:4_000]}
        if not found.refused:
            note = f"took over {listed(found.changed)}" if found.changed else "the file says what serves"
            values = {"outcome": "done", "note": note[:4_000]}
        facts = {"changed": list(found.changed)}
        session.add(
            Run(job=JOB, trigger="file", instance=instance, started_at=now, ended_at=now, facts=facts, **values)
        )
        if found.refused:
            report(session, _trouble(config, found.refused), config=config, now=now)
        else:
            report_over(session, CAUSE, config=config, now=now)
        if found.changed:
            arguments = {"changed": list(found.changed)}
            write_down(session, "reload", actor="configuration file", reason="", arguments=arguments, now=now)
        fence(session)


def last_record(session: Session) -> Run | None:
    """What became of the last change."""
    return session.scalars(sa.select(Run).where(Run.job == JOB).order_by(Run.id.desc()).limit(1)).first()


def _trouble(config: Config, why: str) -> Trouble:
    shown = without_values(why, config) if config.alerts.mask else why  # it may name a value
    return Trouble(
        cause=CAUSE,
        label="the configuration",
        severity="high",
        text=f"The changed configuration of {config.name} is not taken over; the one before goes on: {shown}",
        todo=f"Mend {config.file}; `detector status` says when it serves.",
        figures={"job": JOB},
    )
