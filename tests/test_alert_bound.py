"""A batch in which all is flagged: little is written, and nothing is lost from the count."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

import pandas as pd
import pytest
import sqlalchemy as sa

from detector.errors import StoreError
from pipelines.alerts.grouping.events import Grouping, events_of
from pipelines.alerts.outbox.enqueue import bounded, group_states
from pipelines.store import Store, engine
from pipelines.store.alert_tables import AlertDay, AlertGroup
from tests.alert_places import NOW, config_in, deliveries, give, rows, store_in


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return store_in(tmp_path)


def many(number: int, *, severity: str = "low") -> pd.DataFrame:
    """Flagged rows, each of another entity."""
    one = rows(("x", 0, severity))
    given = pd.concat([one] * number, ignore_index=True)
    names = [f"card-{severity}-{at}" for at in range(number)]
    return given.assign(card_id=names, transaction_id=names, risk=[float(at) for at in range(number)])


def test_most_severe_groups_are_kept_whole_and_the_others_counted(tmp_path: Path) -> None:
    """By their worst event; all events of a group go the same way."""
    config = config_in(tmp_path)
    given = rows(("a", 0, "low"), ("a", 300, "critical"), ("b", 0, "high"), ("c", 0, "low"), ("c", 300, "low"))

    kept, counted = bounded(events_of(given, Grouping.of(config), now=NOW), most=2)

    assert [event.severity for event in kept] == ["low", "critical", "high"]
    assert [each.event.severity for each in counted] == ["low", "low"]


def test_batch_in_which_all_is_flagged_writes_little(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cap is applied before rows are written; the digest counts all but what was alerted."""
    config = config_in(tmp_path, file={"path": "alerts.jsonl"}, a_day=5, least_severity="low")
    monkeypatch.setattr("pipelines.alerts.outbox.enqueue.bounded", lambda events: bounded(events, most=100))

    alerts = give(store, config, pd.concat([many(2_000), many(3, severity="critical")], ignore_index=True))

    assert [alert["severity"] for alert in alerts[:5]] == ["critical"] * 3 + ["low"] * 2
    assert alerts[-1]["kind"] == "digest"
    assert len(deliveries(store)) == 6
    with store.read() as session:
        assert session.scalar(sa.select(sa.func.count()).select_from(AlertGroup)) == 100
        day = session.scalars(sa.select(AlertDay).where(AlertDay.more > 0)).one()
        assert (day.told, day.more) == (5, 2_003 - 5)


def test_groups_are_found_by_their_ids(store: Store, tmp_path: Path) -> None:
    """A look at some does not read them all: the time does not grow with the square of their number."""
    config = config_in(tmp_path)
    give(store, config, many(50))
    with store.read() as session:
        seen: list[str] = []
        connection = session.connection()
        sa.event.listen(connection, "before_cursor_execute", lambda *given: seen.append(given[2]))
        group_states(session, config.name, ["a", "b"])
        plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {seen[0]}", ("a", "b")).all()

    assert "sqlite_autoindex_alert_groups_1 (id=?)" in str(plan)


def test_command_that_writes_waits_and_says_why_it_gave_up(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For as long as a service may need; then what to do."""
    assert engine.BUSY_SECONDS >= 30
    monkeypatch.setattr(engine, "BUSY_SECONDS", 1)
    waiting = Store(f"sqlite:///{tmp_path}/service.db")
    other = sqlite3.connect(tmp_path / "service.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    began = time.monotonic()
    try:
        with (
            pytest.raises(StoreError, match="Another process has been writing .* try again later"),
            waiting.write() as session,
        ):
            session.execute(sa.delete(AlertDay))
    finally:
        other.close()
        waiting.close()

    assert 0.8 < time.monotonic() - began < 5
