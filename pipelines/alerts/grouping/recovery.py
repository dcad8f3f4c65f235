"""Events that are over: the machine reads as normal again, or another event has taken the place of the last."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import reduce

import pandas as pd
import sqlalchemy as sa
from sqlalchemy.orm import Session

from pipelines.alerts.grouping.events import EVERYTHING, group_id, times_of
from pipelines.alerts.grouping.notify_rules import Candidate, GroupState, reported
from pipelines.config import Config
from pipelines.store import chunks
from pipelines.store.alert_tables import AlertGroup

MOST_BY_NAME = 10_000
"""Groups of a batch that are looked up by name; for a larger batch, all that are open are read."""


@dataclass(frozen=True)
class Ended:
    """An event that was reported and is over."""

    group: str
    label: str
    incident: str
    severity: str  # the highest that was reported
    first_at: datetime
    last_at: datetime
    rows: int
    seen: datetime | None  # the last row that was normal; None if all that is known is that another event followed


def recovered(session: Session, scored: pd.DataFrame, *, config: Config, now: datetime) -> list[Ended]:
    """Reported events that have had no flagged row for long enough.

    A machine that falls silent has not recovered: only rows that are not flagged are evidence of it. The groups are
    marked as over within the caller's transaction.
    """
    candidates = sa.and_(AlertGroup.source == config.name, AlertGroup.is_open.is_(True), AlertGroup.told_severity != "")
    if session.scalar(sa.select(AlertGroup.id).where(candidates).limit(1)) is None:
        return []
    latest = _latest(scored, config, now)
    wait = timedelta(minutes=config.alerts.recovery_minutes)
    ends = _by_name(session, config.name, latest) if len(latest) <= MOST_BY_NAME else _all(session, candidates, latest)
    over = [group for group, last_at in ends if latest[group] >= last_at + wait]
    found = []
    for some in chunks(over):
        for group in session.scalars(sa.select(AlertGroup).where(AlertGroup.id.in_(some))):
            group.is_open = False
            found.append(_ended(group.id, group.label, group, latest[group.id]))
    return found


def _by_name(session: Session, source: str, latest: Mapping[str, datetime]) -> Iterator[tuple[str, datetime]]:
    """When each reported group of the batch was flagged last, however many others are open."""
    columns = sa.select(
        AlertGroup.id, AlertGroup.last_at, AlertGroup.source, AlertGroup.is_open, AlertGroup.told_severity
    )
    for some in chunks(latest):
        # By their ids alone: with the source too, SQLite reads every group of it, for each of these queries.
        for group, last_at, its_source, is_open, told in session.execute(columns.where(AlertGroup.id.in_(some))):
            if its_source == source and is_open and told:
                yield group, last_at


def _all(
    session: Session, which: sa.ColumnElement[bool], latest: Mapping[str, datetime]
) -> Iterator[tuple[str, datetime]]:
    """The same by a look at all that are open."""
    columns = sa.select(AlertGroup.id, AlertGroup.last_at).where(which)
    for group, last_at in session.execute(columns.execution_options(yield_per=10_000)):
        if group in latest:
            yield group, last_at


@dataclass(frozen=True)
class Earlier:
    """What is known of an event that is not its group's latest, without the reports of this batch."""

    group: str
    state: GroupState
    is_late: bool  # whether its rows came when a later event was known


def followed(
    earlier: Iterable[Earlier],
    chosen: Sequence[Candidate],
    states: Mapping[str, GroupState],
    labels: Mapping[str, str],
) -> list[Ended]:
    """Reported events that are not their group's latest, so that no row will ever say that they have ended.

    ``chosen`` holds what is reported now, ``states`` what is known of the latest. The end of a late one is not reported
    while the latest goes on: a receiver that knows an alert by what it is about would end that.
    """
    by_group: dict[str, list[Candidate]] = {}
    for candidate in chosen:
        by_group.setdefault(candidate.event.group, []).append(candidate)
    found = []
    for each in earlier:
        state = reduce(reported, by_group.get(each.group, ()), each.state)
        if state.is_reported and not (each.is_late and states[each.group].is_reported):
            found.append(_ended(each.group, labels[each.group], state, None))
    return found


def _ended(group: str, label: str, known: GroupState | AlertGroup, seen: datetime | None) -> Ended:
    return Ended(group, label, known.incident, known.told_severity, known.first_at, known.last_at, known.rows, seen)


def _latest(scored: pd.DataFrame, config: Config, now: datetime) -> dict[str, datetime]:
    """The time of the last row of each group in the batch."""
    by = config.alerts.group_by(config.columns)
    when = pd.Series(times_of(scored, config.columns.time, now), index=scored.index)
    if not by:
        return {group_id(config.name, [EVERYTHING]): _utc(when.max())}
    last = when.groupby([scored[name] for name in by], sort=False).max()
    return {
        group_id(config.name, list(key) if isinstance(key, tuple) else [key]): _utc(moment)
        for key, moment in last.items()
    }


def _utc(moment: pd.Timestamp) -> datetime:
    return datetime.fromisoformat(pd.Timestamp(moment).isoformat()).replace(tzinfo=UTC)
