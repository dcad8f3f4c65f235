"""Which alerts wait for an answer: of each event the latest, until somebody says something of it."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.orm import Session, aliased

from pipelines.store import chunks
from pipelines.store.alert_tables import EVENTS, Alert


def is_superseded() -> sa.ColumnElement[bool]:
    """Whether there is a later alert about the same event."""
    later = aliased(Alert)
    is_later = sa.or_(
        later.created_at > Alert.created_at, sa.and_(later.created_at == Alert.created_at, later.id > Alert.id)
    )
    return sa.exists().where(later.incident == Alert.incident, later.kind.in_(EVENTS), is_later)


def only_latest_wait(session: Session, posted: Sequence[Alert]) -> None:
    """Have those that these alerts supersede wait no longer."""
    incidents = dict.fromkeys(alert.incident for alert in posted if alert.kind in EVENTS)
    for some in chunks(incidents):
        session.execute(
            sa.update(Alert)
            .where(Alert.incident.in_(some), Alert.is_waiting, is_superseded())
            .values(is_waiting=False)
            .execution_options(synchronize_session=False)
        )
