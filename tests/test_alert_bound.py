"""A batch in which all is flagged: little is written, and nothing is lost from the count."""

from __future__ import annotations

import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest
import sqlalchemy as sa

from detector.errors import StoreError
from pipelines.alerts.delivery.digests import end_quiet
from pipelines.alerts.grouping import recovery
from pipelines.alerts.grouping.events import Grouping, events_of
from pipelines.alerts.outbox.enqueue import group_states, most_severe_groups
from pipelines.store import Store, engine
from pipelines.store.alert_tables import Alert, AlertDay, AlertGroup, Delivery
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

    kept, counted = most_severe_groups(events_of(given, Grouping.of(config), now=NOW), most=2)

    assert [event.severity for event in kept] == ["low", "critical", "high"]
    assert [each.event.severity for each in counted] == ["low", "low"]


def test_batch_in_which_all_is_flagged_writes_little(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cap is applied before rows are written; the digest counts all but what was alerted."""
    config = config_in(tmp_path, file={"path": "alerts.jsonl"}, a_day=5, least_severity="low")
    monkeypatch.setattr(
        "pipelines.alerts.outbox.enqueue.most_severe_groups", lambda events: most_severe_groups(events, most=100)
    )

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


@contextmanager
def loads(*tables: type) -> Iterator[Counter[str]]:
    """How many rows of some tables are made objects within the block."""
    found = Counter[str]()

    def count(made: object, _: object) -> None:
        found[type(made).__name__] += 1

    for table in tables:
        sa.event.listen(table, "load", count)
    try:
        yield found
    finally:
        for table in tables:
            sa.event.remove(table, "load", count)


@pytest.mark.parametrize("most", [10_000, 1], ids=["by name", "all"])
def test_open_events_cost_a_batch_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    """Only those that the batch has rows of and that are over are read, however many others are open."""
    monkeypatch.setattr(recovery, "MOST_BY_NAME", most)
    store, config = store_in(tmp_path), config_in(tmp_path, recovery=True, recovery_minutes=15, a_day=1_000)
    give(store, config, rows(*((f"c{number}", 0, "high") for number in range(600))))
    normal = rows(("c1", 30, ""), ("c2", 30, ""), ("c3", 5, ""), ("stranger", 30, ""), flagged=False)

    with loads(AlertGroup) as loaded:
        made = give(store, config, normal)

    assert sorted((alert["kind"], alert["label"]) for alert in made) == [("recovered", "c1"), ("recovered", "c2")]
    assert loaded == {"AlertGroup": 2}
    assert give(store, config, normal) == []
    store.close()


def test_long_night_ends_in_one_digest_that_reads_few(tmp_path: Path) -> None:
    """Of thousands that waited a hundred are named and ten shown, the most severe first; all of them are counted."""
    (tmp_path / "apprise.txt").write_text("json://127.0.0.1:9")
    quiet = {"since": "22:00", "until": "07:00"}
    config = config_in(tmp_path, quiet=quiet, a_day=1_000, apprise={"urls": ["file:apprise.txt"]})
    store = store_in(tmp_path)
    given = [(f"c{number}", 0, "high" if number in (300, 400) else "low") for number in range(500)]
    give(store, config, rows(*given), now=NOW.replace(hour=23))

    with loads(Alert, Delivery) as loaded, store.write() as session:
        assert end_quiet(session, config=config, now=NOW.replace(day=3, hour=8)) == 1

    assert loaded["Alert"] <= 100
    assert loaded["Delivery"] <= 1
    with store.read() as session:
        digest = session.scalars(sa.select(Alert).where(Alert.kind == "digest")).one()
    assert (digest.facts["more"], digest.facts["by_severity"], digest.rows) == (500, {"high": 2, "low": 498}, 500)
    assert (len(digest.facts["alerts"]), len(digest.facts["top"])) == (100, 10)
    assert sorted(line.split()[0] for line in digest.facts["top"][:2]) == ["c300", "c400"]
    assert Counter(each["state"] for each in deliveries(store)) == {"digested": 500, "waiting": 1}
    store.close()
