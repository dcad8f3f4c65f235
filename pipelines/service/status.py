"""How things stand: which detector serves, what runs, what failed, what waits, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from detector.errors import DetectorError, StoreError
from detector.persist import bundle
from pipelines.alerts.channels.targets import targets_of
from pipelines.config import Config
from pipelines.config.reading import store_named_in
from pipelines.disk import is_short, room
from pipelines.ingest.file_changes import UNREADABLE
from pipelines.ingest.known_files import broken_files
from pipelines.listing import Cell, Column, Listing
from pipelines.progress import counted
from pipelines.registry.registry import ModelRegistry
from pipelines.service.due_times import next_times
from pipelines.service.leader import NAME, is_dead
from pipelines.service.reload_record import last_record
from pipelines.service.resources import places_of
from pipelines.service.scheduler import sections_of
from pipelines.store import JobState, Lease, Run, SourceFile, Store, existing_store
from pipelines.store.alert_tables import Alert, Answer, Delivery, TargetState
from pipelines.tracking.messages import spool_of

COLOURS = {"ok": "green", "waits": "yellow", "failed": "bold red", "off": "dim"}
BROKEN = ("broken", "changed", UNREADABLE)
MOST_NAMED = 5


@dataclass(frozen=True)
class StatusLine:
    """One thing and how it stands: ok, waits, failed or off; ``todo`` is the command or the step that helps."""

    what: str
    state: str
    said: str
    todo: str = ""


@dataclass(frozen=True)
class Status:
    """All of them, in the order in which rows go through."""

    name: str
    at: datetime
    matters: list[StatusLine] = field(default_factory=list)

    @property
    def well(self) -> bool:
        """Whether nothing has failed."""
        return all(each.state != "failed" for each in self.matters)

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        return {"name": self.name, "at": self.at, "well": self.well, "matters": self.matters}

    def summary(self) -> list[object]:
        """A list, and what to do next."""
        columns = (
            Column("what", head=True),
            Column("state", head=True),
            Column("details", is_sentence=True),
        )
        rows = [
            {"what": each.what, "state": Cell(each.state, each.state, COLOURS[each.state]), "details": each.said}
            for each in self.matters
        ]
        todo = [each.todo for each in self.matters if each.todo]
        nothing = ["Nothing to do."] if not todo else ["", "To do:", *(f"  {step}" for step in dict.fromkeys(todo))]
        return [Listing(columns, rows, title=f"{self.name}, {self.at.astimezone():%Y-%m-%d %H:%M %Z}"), *nothing]


def status_of(config: Config, *, now: datetime, place: str) -> Status:
    """Look at the detector, the state of the service and what waits for MLflow; nothing is changed or made.

    - ``place``: how the configuration is named in a command, for what to do.
    """
    place = "" if place == "." else f" {place}"
    matters = [_detector(config, place), *_disks(config)]
    try:
        store = existing_store(config.service.store)
        if store is None:
            todo = f"detector serve{place}" if matters[0].state == "ok" else ""
            matters.append(StatusLine("service", "off", "it has not run yet", todo))
        else:
            with closing(store):
                matters += _service(config, store, place)
    except StoreError as error:  # what can be said without the state is said
        matters.append(StatusLine("service", "failed", str(error)))
    matters += _tracking(config, place)
    return Status(config.name, now, matters)


def _detector(config: Config, place: str) -> StatusLine:
    if not config.bundle.exists():
        return StatusLine("detector", "waits", f"not trained yet ({config.bundle})", f"detector train{place}")
    try:
        scorer = bundle.load(config.bundle.resolve())
    except DetectorError as error:
        return StatusLine("detector", "failed", str(error), f"detector train{place}")
    made, rows = str(scorer.metrics.get("made_at", ""))[:16].replace("T", " "), scorer.metrics.get("rows_learnt")
    said = f"{bundle.fingerprint(config.bundle.resolve())} serves"
    said += f", trained {made} UTC" if made else ""
    said += f" on {counted(int(rows))}" if rows else ""
    challenger = ModelRegistry(config.bundle).state().challenger
    if challenger is None:
        return StatusLine("detector", "ok", said)
    return StatusLine("detector", "ok", f"{said}; the challenger is {challenger}", f"detector models compare{place}")


def _disks(config: Config) -> Iterator[StatusLine]:
    """Those with hardly any room: a service that cannot write anything down cannot say so here."""
    short = [place for place in places_of(config) if is_short(place)]
    if short:
        said = f"is full, or soon will be: {room(short)}"
        yield StatusLine("disk", "failed", said, "Make room, or set `service.keep_scores`; nothing is lost meanwhile")


def _service(config: Config, store: Store, place: str) -> Iterator[StatusLine]:
    with store.read() as session:
        lease = session.get(Lease, NAME)
        runs = lease is not None and bool(lease.holder) and not is_dead(lease.holder)
        if runs:
            yield StatusLine("service", "ok", f"runs ({lease.holder})" if lease is not None else "runs")
            yield from _configuration(config, session)
        else:
            yield StatusLine("service", "off", "not running", f"detector serve{place}")
        yield from _jobs(config, store, session, place)
        yield from _files(config, session)
        yield from _alerts(config, session, place)


def _configuration(config: Config, session: Session) -> Iterator[StatusLine]:
    last = last_record(session)
    if last is None:
        return
    said = f"{last.started_at.astimezone():%Y-%m-%d %H:%M} "
    if last.outcome == "failed":
        said += f"not taken over, the one before goes on: {last.error}"
        yield StatusLine("configuration", "failed", said, f"Mend {config.file}, or start the service anew")
    else:
        yield StatusLine("configuration", "ok", said + last.note)


def unreadable_status(file: Path, error: DetectorError, *, now: datetime) -> Status | None:
    """How a service stands whose configuration cannot be read any more; None if there is none to be found.

    - ``error``: why it cannot be read.
    """
    place = store_named_in(file)
    store = None if place is None else existing_store(place)
    if store is None:
        return None
    with closing(store), store.read() as session:
        lease = session.get(Lease, NAME)
        if lease is None or not lease.holder or is_dead(lease.holder):
            return None
        matters = [
            StatusLine("service", "ok", f"runs ({lease.holder}) with the configuration that it took over last"),
            StatusLine("configuration", "failed", str(error), f"Mend {file}"),
        ]
    return Status(file.parent.absolute().name, now, matters)


def _jobs(config: Config, store: Store, session: Session, place: str) -> Iterator[StatusLine]:
    due = next_times(store)
    paused = set(session.scalars(sa.select(JobState.job).where(JobState.paused)))
    for name, section in sections_of(config.service).items():
        running, last = _last_runs(session, name)
        when = f"next {due[name].astimezone():%Y-%m-%d %H:%M %Z}" if name in due and name not in paused else ""
        when = f"runs since {running.started_at.astimezone():%Y-%m-%d %H:%M}" if running is not None else when
        if not section.enabled or name in paused:
            todo = f"detector jobs resume{place} {name}" if name in paused else ""
            yield StatusLine(name, "off", "is paused" if name in paused else "is switched off", todo)
        elif last is None and running is not None:
            yield StatusLine(name, "ok", when)
        elif last is None:
            yield StatusLine(name, "waits", ", ".join(part for part in ("has not run yet", when) if part))
        elif last.outcome in ("failed", "lost", "missed"):
            told = (last.error or last.note or last.outcome).strip().splitlines()[-1]
            said = f"{last.outcome} {last.started_at.astimezone():%Y-%m-%d %H:%M}: {told}"
            said += f" (it {when})" if running is not None else ""
            yield StatusLine(name, "failed", said, f"detector jobs run{place} {name}")
        else:
            told = last.note or last.outcome
            said = f"{last.started_at.astimezone():%Y-%m-%d %H:%M} {told}"
            yield StatusLine(name, "ok", "; ".join(part for part in (said, when) if part))


def _last_runs(session: Session, job: str) -> tuple[Run | None, Run | None]:
    """The run of a job that goes on, and the last one that ended, which says how things stand."""
    of_job = sa.select(Run).where(Run.job == job, Run.outcome != "overlapped").order_by(Run.id.desc()).limit(1)
    newest = session.scalars(of_job).first()
    if newest is None or newest.outcome != "running":
        return None, newest
    return newest, session.scalars(of_job.where(Run.outcome != "running")).first()


def _files(config: Config, session: Session) -> Iterator[StatusLine]:
    of_source = sa.select(SourceFile.state, sa.func.count()).where(SourceFile.source == config.name)
    found = {row[0]: int(row[1]) for row in session.execute(of_source.group_by(SourceFile.state))}
    if broken := broken_files(session, config, states=BROKEN):
        names = [name for name, _, _ in reversed(broken)]
        more = f" and {len(names) - MOST_NAMED:,} more" if len(names) > MOST_NAMED else ""
        said = f"{counted(len(names), 'file')} cannot be used: {', '.join(names[:MOST_NAMED])}{more}"
        reason = broken[-1][1] or "see the log"
        yield StatusLine("input", "failed", f"{said}; the first: {reason}", "Mend the files, or move them away")
    elif waiting := found.get("waiting", 0) + found.get("claimed", 0):
        yield StatusLine("input", "waits", f"{counted(waiting, 'file')} not scored yet")
    elif found:
        yield StatusLine("input", "ok", f"{counted(found.get('scored', 0), 'file')} scored")


def _alerts(config: Config, session: Session, place: str) -> Iterator[StatusLine]:
    states = sa.select(Delivery.state, sa.func.count()).group_by(Delivery.state)
    found = {row[0]: int(row[1]) for row in session.execute(states)}
    names = [target.name for target in targets_of(config)]
    off = session.scalars(sa.select(TargetState).where(TargetState.name.in_(names), TargetState.state != "up"))
    for target in off:
        said = f"is {target.state} since {target.since.astimezone():%Y-%m-%d %H:%M}"
        said += f", is tried again at {target.retry_at.astimezone():%Y-%m-%d %H:%M %Z}" if target.retry_at else ""
        todo = "retry" if target.state == "disabled" else "test"
        todo = f"detector alerts {todo}{place} --target {target.name}"
        yield StatusLine(f"target {target.name}", "failed", f"{said}: {target.error}", todo)
    waiting = found.get("waiting", 0) + found.get("held", 0)
    if dead := found.get("dead", 0):
        said = f"{dead:,} given up" + (f", {waiting:,} not delivered yet" if waiting else "")
        yield StatusLine("alerts", "failed", said, f"detector alerts retry{place}")
    elif waiting:
        yield StatusLine("alerts", "waits", f"{waiting:,} not delivered yet")
    elif found:
        yield StatusLine("alerts", "ok", f"{found.get('sent', 0):,} delivered")
    asked = sa.select(sa.func.count()).where(
        Alert.source == config.name,
        Alert.kind.in_(("opened", "worse", "again")),
        Alert.id.not_in(sa.select(Answer.alert)),
    )
    if unanswered := int(session.scalar(asked) or 0):
        yield StatusLine(
            "answers",
            "waits",
            f"{counted(unanswered, 'alert')} without an answer",
            f"detector alerts list{place}, then: detector alerts answer{place} ALERT",
        )


def _tracking(config: Config, place: str) -> Iterator[StatusLine]:
    if not config.tracking.enabled:
        return
    spool = spool_of(config)
    if refused := spool.refused():
        said = f"refused {counted(len(refused), 'record')}, the last: {refused[-1][1]}"
        yield StatusLine("MLflow", "failed", said, f"Mend the cause, then: detector models flush{place} --refused")
    elif waiting := spool.waiting():
        yield StatusLine(
            "MLflow", "waits", f"{counted(waiting, 'record')} not sent yet", f"detector models flush{place}"
        )
