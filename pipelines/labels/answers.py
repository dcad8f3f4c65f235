"""Answers to alerts, read from the service's state."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Session

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


@dataclass(frozen=True)
class Stake:
    """An event that people called fraud: what was at stake in all, and its rows.

    - ``keys``: of its rows, as alerts show them; the most severe of them, if they are many.
    """

    amount: float
    keys: frozenset[str]


def frauds_at_stake(session: Session, source: str) -> list[Stake]:
    """The events whose last answer is fraud, and whose alerts say how much was at stake."""
    statement = (
        sa.select(Alert.incident, Answer.verdict, Alert.amount, Alert.facts)
        .join(Alert, Alert.id == Answer.alert)
        .where(Alert.source == source, Alert.amount.is_not(None))
        .order_by(Answer.id)
    )
    last: dict[str, str] = {}
    amounts: dict[str, float] = {}
    keys: dict[str, set[str]] = {}
    for incident, verdict, amount, facts in session.execute(statement):
        last[incident] = verdict
        amounts[incident] = max(amount, amounts.get(incident, 0.0))
        keys.setdefault(incident, set()).update(map(str, facts.get("keys", [])))
    return [Stake(amounts[each], frozenset(keys[each])) for each, verdict in last.items() if verdict == "fraud"]
