"""What the service does for itself: send what waits, tidy up, look for rows that came too late."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from detector.errors import DetectorError
from pipelines.jobs.catalogue import DELIVERIES
from pipelines.jobs.context import Context, JobOutcome
from pipelines.progress import counted
from pipelines.service.retention import delete_old, leap_of
from pipelines.sinks.batch_files import ORPHANS
from pipelines.store import Run
from pipelines.store.access_tables import AnsweredRequest, HeldEvent, SignIn

log = logging.getLogger("detector.housekeeping")

POLL_SECONDS = 0.05
SAID = {"mlflow": "MLflow record"}
ASKED_AGAIN = timedelta(days=2)
"""How long a request may come again under its name and get the same answer."""
AGAIN_SECONDS = 5.0
"""After which the others look again while one still sends."""


@dataclass
class _Sending:
    """One of ``DELIVERIES``, in a thread of its own, and what came of it."""

    name: str
    send: Callable[[Context], JobOutcome | int]
    sent: int = 0
    things: set[str] = field(default_factory=set)
    """What was sent, where one thing can be sent to several."""
    gauges: Mapping[str, float] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)
    """Why targets took nothing."""
    failure: Exception | None = None
    thread: threading.Thread | None = None
    ended: float = 0.0

    def start(self, context: Context) -> None:
        """Send what there is."""
        self.thread = threading.Thread(target=self._run, args=(context,), name=f"deliver-{self.name}", daemon=True)
        self.thread.start()

    def _run(self, context: Context) -> None:
        try:
            found = self.send(context)
            self.sent += found.rows if isinstance(found, JobOutcome) else found
            if isinstance(found, JobOutcome):
                self.gauges, self.refused = found.gauges, found.facts.get("failed", {})
                self.things |= found.facts.get("alerts", set())
        except Exception as error:  # noqa: BLE001 - it is raised once the others had their turn
            self.failure = error
        self.ended = time.monotonic()

    @property
    def count(self) -> int:
        """How many things were sent, each to one or several."""
        return len(self.things) or self.sent

    def __str__(self) -> str:
        """How much was sent."""
        said = counted(self.count, SAID.get(self.name, self.name.removesuffix("s")))
        return said if self.count == self.sent else f"{said} in {self.sent:,} deliveries"

    def is_idle(self, now: float) -> bool:
        """Whether it ended well, and long enough ago to look again."""
        return not self.goes_on and self.failure is None and now - self.ended >= AGAIN_SECONDS

    @property
    def goes_on(self) -> bool:
        """Whether it still sends."""
        return self.thread is not None and self.thread.is_alive()


def deliver(context: Context) -> JobOutcome:
    """Have every ``DELIVERIES`` send what it can; one that fails, or takes long, does not keep the others from it.

    While one of them goes on, as with an hour of trainings for an MLflow that is back, the others look again whether
    something waits.

    Raises the first failure, once all had their turn.
    """
    began = time.monotonic()
    each = [_Sending(name, send) for name, send in DELIVERIES.items()]
    for sending in each:
        sending.start(context)
    while any(sending.goes_on for sending in each):
        time.sleep(POLL_SECONDS)
        now = time.monotonic()
        for sending in each:
            if sending.is_idle(now) and any(other.goes_on for other in each):
                sending.start(replace(context, now=context.now + timedelta(seconds=now - began)))
    failures = [(sending.name, sending.failure) for sending in each if sending.failure is not None]
    for name, error in failures:
        if isinstance(error, DetectorError):
            log.warning("%s could not be sent: %s", name, error)
    if failures:
        raise failures[0][1]
    sent = {sending.name: sending.count for sending in each}
    gauges = {name: value for sending in each for name, value in sending.gauges.items()}
    parts = ", ".join(str(sending) for sending in each if sending.sent)
    notes = [f"sent {parts}"] if parts else []
    notes += [f"not sent to {target}: {why}" for sending in each for target, why in sending.refused.items()]
    if not notes:
        return JobOutcome(outcome="skipped", note="nothing is due to be sent", gauges=gauges)
    return JobOutcome(rows=sum(sent.values()), note="; ".join(notes), facts=sent, gauges=gauges)


def tidy(context: Context) -> JobOutcome:
    """Delete old records and leftovers, let the database tidy up, and count rows that came too late.

    Nothing old is deleted where the clock may be wrong, see ``leap_of``.
    """
    leap = leap_of(context)
    old = {"runs": 0} if leap else delete_old(context)
    with context.store.write() as session:
        _forget_access(session, context)
    removed = _remove_orphans(context)
    context.store.analyze()
    late, facts = _too_late(context)
    facts |= {"runs_deleted": old["runs"], "files_deleted": removed, "deleted": old}
    others = [f"{count:,} {name}" for name, count in old.items() if count and name not in ("runs", "requests")]
    note = f"deleted {counted(old['runs'], 'record')} of runs and {counted(removed, 'file')} left over from crashes"
    note += f"; too old: {', '.join(others)}" if others else ""
    if leap:
        note = (
            f"nothing old is deleted: the service did not run from {leap[0]:%Y-%m-%d} to {leap[1]:%Y-%m-%d}, or the "
            f"clock was set ahead. If it is right, `detector jobs run housekeeping` deletes; else set it back. {note}"
        )
        log.warning(note)
    if late:
        note += f"; {counted(late)} came later than `service.lateness` allows, not scored: `detector backfill`"
        log.warning(note)
    return JobOutcome(rows=sum(old.values()) + removed, note=note, facts=facts, gauges={"rows_too_late": late})


def _forget_access(session: Session, context: Context) -> None:
    """Delete sign-ins that are over, answers that nobody asks for again, and held events that never came."""
    now = context.now
    session.execute(sa.delete(SignIn).where(SignIn.until < now))
    session.execute(sa.delete(AnsweredRequest).where(AnsweredRequest.at < now - ASKED_AGAIN))
    waited = timedelta(hours=context.config.service.api.hold_hours)
    session.execute(sa.delete(HeldEvent).where(HeldEvent.source == context.config.name, HeldEvent.at < now - waited))


def _remove_orphans(context: Context) -> int:
    output = context.config.output
    if output.path is None:
        return 0
    removed = 0
    limit = time.time() - 86_400 * context.config.service.keep_runs
    for file in (Path(output.path).with_suffix("") / ORPHANS).glob("batch-*"):
        if file.stat().st_mtime < limit:
            file.unlink(missing_ok=True)
            removed += 1
    return removed


def _too_late(context: Context) -> tuple[int, dict[str, Any]]:
    """How many rows came in behind where late rows are looked for, since this was asked the last time."""
    if context.config.source.table is None or context.config.service.cursor is None:
        return 0, {}
    from pipelines.ingest.followed import open_followed
    from pipelines.ingest.table import FollowedTable
    from pipelines.scoring.load import load_scorer

    intake = open_followed(context.config, context.store, load_scorer(context.config, context.cache).schema)
    if not isinstance(intake, FollowedTable):
        return 0, {}
    with context.store.read() as session:
        last = session.scalars(
            sa.select(Run.facts)
            .where(Run.job == "housekeeping", Run.outcome == "done")
            .order_by(Run.id.desc())
            .limit(1)
        ).first()
    before = (last or {}).get("settled")
    late = 0
    if before is not None and (again := intake.behind(before["position"])) is not None:
        late = max(0, again["rows"] - before["rows"])
    return late, {"settled": intake.behind(None)}
