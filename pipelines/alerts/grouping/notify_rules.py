"""Events → what to report. Pure functions of an event and what is known of its group.

An event is reported once: again only when it gets more severe, or lasts beyond a set time after its last report.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal

from pipelines.alerts.grouping.events import Event, rank

Kind = Literal["opened", "worse", "again"]


@dataclass(frozen=True)
class GroupState:
    """What is known of the latest event of a group."""

    incident: str  # names the event
    severity: str
    told_severity: str  # the highest one that was reported; empty if none was
    told_at: datetime | None  # the time of the rows that were reported last
    first_at: datetime
    last_at: datetime
    rows: int
    is_open: bool = True  # until its end is reported, and again once more of it is

    @property
    def is_reported(self) -> bool:
        """Whether people know of it, and not of its end."""
        return self.is_open and bool(self.told_severity)


@dataclass(frozen=True)
class Candidate:
    """An event that is worth a report, if there is room for it."""

    kind: Kind
    event: Event
    incident: str  # the name of the event it belongs to
    first_at: datetime  # when that began
    previous: str  # the severity that was reported before; empty if nothing was
    is_fresh: bool  # whether it is counted for the first time


def advance(
    event: Event, known: GroupState | None, *, name: str, window: timedelta, again: timedelta
) -> tuple[Candidate | None, GroupState]:
    """Compare an event with what is known of its group.

    ``name`` is for an event that is another one than the last, also since the end of that was reported; an event that
    goes on for ``again`` after its report is reported again. What is returned: what to report, if anything, and what
    is known from now on as long as nothing is reported (see ``reported``).
    """
    if (
        known is None
        or event.first_at > known.last_at + window
        or event.last_at < known.first_at - window
        or (not known.is_open and event.last_at > known.last_at)
    ):
        fresh = GroupState(name, event.severity, "", None, event.first_at, event.last_at, event.rows)
        late = known is not None and event.last_at < known.first_at
        candidate = Candidate("opened", event, name, event.first_at, "", is_fresh=True)
        return candidate, known if late and known is not None else fresh
    joined = replace(
        known,
        severity=max(known.severity, event.severity, key=rank),
        first_at=min(known.first_at, event.first_at),
        last_at=max(known.last_at, event.last_at),
        rows=known.rows + event.rows,
    )
    kind: Kind | None = None
    if not known.told_severity:
        kind = "opened"
    elif rank(event.severity) > rank(known.told_severity):
        kind = "worse"
    elif known.told_at is not None and event.last_at - known.told_at >= again:
        kind = "again"
    if kind is None:
        return None, joined
    counted = kind == "opened"  # as one there was no room for, or that was silenced
    return Candidate(kind, event, known.incident, joined.first_at, known.told_severity, not counted), joined


def reported(known: GroupState, candidate: Candidate) -> GroupState:
    """What is known once a candidate has been reported."""
    if known.incident != candidate.incident:
        return known
    severity = max(known.told_severity, candidate.event.severity, key=rank)
    return replace(known, told_severity=severity, told_at=candidate.event.last_at, is_open=True)


def choose(candidates: Iterable[Candidate], *, room: int) -> tuple[list[Candidate], list[Candidate]]:
    """Those there is room for, the most severe and the riskiest first, and those there is not."""
    ranked = sorted(candidates, key=lambda each: (-rank(each.event.severity), -each.event.risk, each.event.first_at))
    return ranked[: max(room, 0)], ranked[max(room, 0) :]
