"""Events that are over: the machine reads as normal again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pandas as pd
import sqlalchemy as sa
from sqlalchemy.orm import Session

from pipelines.alerts.grouping.events import EVERYTHING, group_id, times_of
from pipelines.config import Config
from pipelines.store.alert_tables import AlertGroup


def recovered(
    session: Session, scored: pd.DataFrame, *, config: Config, now: datetime
) -> list[tuple[AlertGroup, datetime]]:
    """Groups whose reported event has had no flagged row for long enough, each with the time of its last row.

    A machine that falls silent has not recovered: only rows that are not flagged are evidence of it. The groups are
    marked as over within the caller's transaction.
    """
    groups = session.scalars(
        sa.select(AlertGroup).where(
            AlertGroup.source == config.name, AlertGroup.is_open.is_(True), AlertGroup.told_severity != ""
        )
    ).all()
    if not groups:
        return []
    latest = _latest(scored, config, now)
    wait = timedelta(minutes=config.alerts.recovery_minutes)
    found = []
    for group in groups:
        seen = latest.get(group.id)
        if seen is not None and seen >= group.last_at + wait:
            group.is_open = False
            found.append((group, seen))
    return found


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
