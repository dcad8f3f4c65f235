"""Answers to alerts, read from the service's state."""

from __future__ import annotations

from contextlib import closing
from datetime import datetime

import sqlalchemy as sa

from pipelines.config import Config
from pipelines.store import existing_store
from pipelines.store.alert_tables import Alert, Answer


def answered(config: Config) -> list[tuple[str, datetime, list[str]]]:
    """Every answer, the oldest first: what was said, when, and the keys of the alert's rows as it shows them.

    Raises ``StoreError`` if the state cannot be read.
    """
    store = existing_store(config.service.store)
    if store is None:
        return []
    with closing(store), store.read() as session:
        statement = (
            sa.select(Answer.verdict, Answer.at, Alert.facts)
            .join(Alert, Alert.id == Answer.alert)
            .where(Alert.source == config.name)
            .order_by(Answer.id)
        )
        return [(verdict, at, facts.get("keys", [])) for verdict, at, facts in session.execute(statement)]
