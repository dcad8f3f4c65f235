"""What is not to be reported for a while, and why: silences that somebody set, and quiet hours."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, time

import sqlalchemy as sa
from sqlalchemy.orm import Session

from detector.errors import DataError, NotFoundError
from pipelines.alerts.grouping.events import Event, rank
from pipelines.alerts.grouping.notify_rules import Candidate
from pipelines.config.alerting import QuietSection
from pipelines.cron import zone_of
from pipelines.store.alert_tables import Silence
from pipelines.store.trail import write_down


def silence(
    session: Session,
    *,
    source: str,
    until: datetime,
    reason: str,
    who: str,
    now: datetime,
    group: str = "",
    label: str = "",
    pattern: str = "",
    below: str = "",
) -> Silence:
    """Keep something quiet from now until a time.

    ``group`` and ``label`` say what it is about, ``pattern`` only which first feature, ``below`` only what is less
    severe; each is empty for all.

    Raises ``DataError`` if there is no reason, or it would end before it begins.
    """
    if not reason.strip():
        raise DataError("A silence needs a reason: whoever finds it later will ask. Give one with --reason.")
    if until <= now:
        raise DataError(
            f"A silence must end after it begins ({now:%Y-%m-%d %H:%M} UTC), received {until:%Y-%m-%d %H:%M} UTC."
        )
    made = Silence(
        source=source,
        group=group,
        label=label,
        pattern=pattern,
        below=below,
        since=now,
        until=until,
        reason=reason,
        who=who,
        hits=0,
    )
    session.add(made)
    session.flush()
    write_down(session, "silence", actor=who, arguments={"silence": made.id, "until": until.isoformat()}, now=now)
    return made


def lift(session: Session, number: int, *, who: str, now: datetime) -> Silence:
    """End a silence now; what it was stays known.

    Raises ``NotFoundError`` if there is none of that number that goes on.
    """
    found = session.get(Silence, number)
    if found is None or found.until <= now:
        raise NotFoundError(f"There is no silence {number} that goes on. `detector alerts silence --list` shows them.")
    found.until = now
    write_down(session, "lift silence", actor=who, arguments={"silence": number}, now=now)
    session.flush()
    return found


def current(session: Session, *, source: str, now: datetime) -> list[Silence]:
    """Those that go on, the one that ends first before the others."""
    statement = sa.select(Silence).where(Silence.source == source, Silence.until > now).order_by(Silence.until)
    return list(session.scalars(statement))


def not_silenced(session: Session, candidates: Sequence[Candidate], *, source: str, now: datetime) -> list[Candidate]:
    """Those that nobody has silenced; how often each silence was needed is counted."""
    silences = session.scalars(
        sa.select(Silence).where(Silence.source == source, Silence.since <= now, Silence.until > now)
    ).all()
    loud = []
    for candidate in candidates:
        match = next((each for each in silences if _covers(each, candidate.event)), None)
        if match is None:
            loud.append(candidate)
        else:
            match.hits += 1
    return loud


def _covers(silence: Silence, event: Event) -> bool:
    return (
        silence.group in ("", event.group)
        and (not silence.below or rank(event.severity) < rank(silence.below))
        and (not silence.pattern or silence.pattern == event.pattern)
    )


def is_quiet(section: QuietSection | None, now: datetime) -> bool:
    """Whether it is one of the quiet hours.

    >>> from datetime import UTC
    >>> is_quiet(QuietSection(), datetime(2026, 3, 1, 23, tzinfo=UTC))
    True
    """
    if section is None:
        return False
    clock = now.astimezone(zone_of(section.timezone)).time()
    since, until = _clock(section.since), _clock(section.until)
    if since <= until:
        return since <= clock < until
    return clock >= since or clock < until


def waits(section: QuietSection | None, severity: str, now: datetime) -> bool:
    """Whether something of this severity waits for the end of the quiet hours."""
    return section is not None and is_quiet(section, now) and rank(severity) < rank(section.wake_from)


def _clock(text: str) -> time:
    hours, _, minutes = text.partition(":")
    return time(int(hours), int(minutes))
