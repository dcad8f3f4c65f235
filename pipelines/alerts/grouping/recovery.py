"""Events that are over: the machine reads as usual again."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime, timedelta

import pandas as pd
import sqlalchemy as sa
from sqlalchemy.orm import Session

from pipelines.alerts.grouping.groups import EVERYTHING, group_id, times_of
from pipelines.config import Config
from pipelines.store.alert_tables import Alert, AlertGroup


def recovered(session: Session, verdicts: pd.DataFrame, *, config: Config, now: datetime) -> list[Alert]:
    """Notices for events that were told and have had no flagged row for long enough, while rows kept coming.

    A machine that falls silent has not recovered: only rows that are not flagged are evidence of it.

    Parameters
    ----------
    session : Session
        Of the transaction; the events are marked as over in it.
    verdicts : DataFrame
        The rows of a batch, flagged or not.
    config : Config
        Names the columns and the time to wait.
    now : datetime
        For rows without a time.
    """
    groups = session.scalars(
        sa.select(AlertGroup).where(
            AlertGroup.source == config.name, AlertGroup.is_open.is_(True), AlertGroup.told_severity != ""
        )
    ).all()
    if not groups:
        return []
    latest = _latest(verdicts, config, now)
    wait = timedelta(minutes=config.alerts.recovery_minutes)
    notices = []
    for group in groups:
        seen = latest.get(group.id)
        if seen is None or seen < group.last_at + wait:
            continue
        group.is_open = False
        notices.append(
            Alert(
                id=f"al_{secrets.token_hex(12)}",
                source=config.name,
                kind="recovered",
                group=group.id,
                incident=group.incident,
                label=group.label,
                severity=group.told_severity,
                created_at=now,
                first_at=group.first_at,
                last_at=group.last_at,
                rows=group.rows,
                p_value=1.0,
                amount=None,
                model_version="",
                pattern="",
                facts={"previous": group.told_severity, "seen_until": seen.isoformat()},
            )
        )
    return notices


def _latest(verdicts: pd.DataFrame, config: Config, now: datetime) -> dict[str, datetime]:
    """The time of the last row of each group in the batch."""
    by = config.alerts.group_by(config.columns)
    when = pd.Series(times_of(verdicts, config.columns.time, now), index=verdicts.index)
    if not by:
        return {group_id(config.name, [EVERYTHING]): _utc(when.max())}
    last = when.groupby([verdicts[name] for name in by], sort=False).max()
    return {
        group_id(config.name, list(key) if isinstance(key, tuple) else [key]): _utc(moment)
        for key, moment in last.items()
    }


def _utc(moment: pd.Timestamp) -> datetime:
    return datetime.fromisoformat(pd.Timestamp(moment).isoformat()).replace(tzinfo=UTC)
