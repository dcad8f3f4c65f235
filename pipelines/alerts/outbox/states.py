"""What the database remembers of groups between batches."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import sqlalchemy as sa
from sqlalchemy.orm import Session

from pipelines.alerts.grouping.notify_rules import GroupState
from pipelines.store import chunks
from pipelines.store.alert_tables import AlertGroup


def group_states(session: Session, source: str, groups: Iterable[str]) -> dict[str, GroupState]:
    """What is known of each group's latest event; nothing of a group without one."""
    found = {}
    for some in chunks(set(groups)):
        # By their ids alone: with the source too, SQLite reads every group of it, for each of these queries.
        for row in session.scalars(sa.select(AlertGroup).where(AlertGroup.id.in_(some))):
            if row.source != source:
                continue
            found[row.id] = GroupState(
                row.incident,
                row.severity,
                row.told_severity,
                row.told_at,
                row.first_at,
                row.last_at,
                row.rows,
                row.is_open,
            )
    return found


def store_group_states(
    session: Session, source: str, states: Mapping[str, GroupState], labels: Mapping[str, str]
) -> None:
    """Put these states in the place of earlier ones."""
    for some in chunks(states):
        session.execute(sa.delete(AlertGroup).where(AlertGroup.id.in_(some)))
    rows = [{"id": group, "source": source, "label": labels[group], **vars(state)} for group, state in states.items()]
    if rows:
        session.execute(sa.insert(AlertGroup), rows)
