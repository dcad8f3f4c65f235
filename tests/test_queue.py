"""The queue over a large state: what waits is known, not found out anew, and no page sorts all that waits."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from pipelines.alerts.feedback.answers import answer
from pipelines.alerts.outbox.enqueue import post
from pipelines.alerts.review import notes, queue
from pipelines.alerts.review.queue import QueueQuery
from pipelines.config import Config
from pipelines.store import Store
from pipelines.store.alert_tables import Alert, Answer
from tests.alert_places import NOW, config_in, store_in
from tests.test_store import go_back


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return config_in(tmp_path)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return store_in(tmp_path)


def alert(config: Config, name: str, **given: Any) -> Alert:
    """An alert about an event of its own, unless it is given."""
    when = NOW + timedelta(minutes=given.pop("minutes", 0))
    values = {"kind": "opened", "incident": f"in_{name}", "severity": "medium", "amount": None, "p_value": 1e-3} | given
    values |= {"group": f"g_{values['incident']}", "label": values.get("label", name), "pattern": "amount"}
    times = {"created_at": when, "first_at": when, "last_at": when}
    return Alert(id=f"al_{name}", source=config.name, rows=1, model_version="", facts={}, **times, **values)


def names(store: Store, config: Config, **wanted: Any) -> list[str]:
    """Of the alerts on a page."""
    with store.read() as session:
        lines = queue.page(session, QueueQuery(**wanted), config=config, now=NOW)
    return [line.alert.id.removeprefix("al_") for line in lines]


def test_order_is_severity_then_amount_then_rarity(store: Store, config: Config) -> None:
    """The most severe first, of these the largest amount, of these the rarest; page after page."""
    given = [
        alert(config, "a", severity="critical"),
        alert(config, "b", severity="critical", amount=5.0),
        alert(config, "c", severity="critical", amount=70.0, p_value=1e-4),
        alert(config, "d", severity="critical", amount=70.0, p_value=1e-5),
        alert(config, "e", severity="low", amount=900.0),
    ]
    with store.write() as session:
        post(session, given, config=config, now=NOW)

    assert names(store, config) == ["d", "c", "b", "a", "e"]
    assert names(store, config, most=2) == ["d", "c"]
    assert names(store, config, most=2, after="c") == ["b", "a"]
    assert names(store, config, severity="low") == ["e"]
    assert names(store, config, about="b") == ["b"]


def test_only_the_latest_of_an_event_waits_until_it_is_answered(store: Store, config: Config) -> None:
    """A worse one takes the place of the first; a verdict on the first is none on it; its recovery waits for nobody."""
    with store.write() as session:
        post(session, [alert(config, "a", incident="in_1")], config=config, now=NOW)
        post(session, [alert(config, "b", incident="in_1", kind="worse", minutes=5)], config=config, now=NOW)
        post(session, [alert(config, "c", incident="in_1", kind="recovered", minutes=9)], config=config, now=NOW)
    said = {"reason": "", "who": "ann", "via": "test", "config": config, "now": NOW}

    assert names(store, config) == ["b"]
    with store.write() as session:
        answer(session, session.get_one(Alert, "al_a"), "fine", **said)  # type: ignore[arg-type]
    assert names(store, config) == ["b"]
    with store.write() as session:
        answer(session, session.get_one(Alert, "al_b"), "fraud", **said)  # type: ignore[arg-type]
    assert names(store, config) == []
    assert names(store, config, state="answered") == ["b"]


ASKED: list[dict[str, str]] = [
    {},
    {"severity": "high"},
    {"after": "al_a"},
    {"about": "a"},
    {"pattern": "amount"},
    {"state": "all"},
    {"state": "all", "after": "al_a"},
    {"state": "answered"},
]


@pytest.mark.parametrize("wanted", ASKED, ids=repr)
def test_page_does_not_sort_all_that_waits(store: Store, config: Config, wanted: dict[str, str]) -> None:
    """The database walks along an index from the most urgent on; it sorts only those of one entity."""
    with store.write() as session:
        post(session, [alert(config, "a")], config=config, now=NOW)
    asked: list[str] = []

    def listen(connection: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement.startswith("SELECT alerts.id"):
            found = connection.connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)
            asked.append("\n".join(str(line[-1]) for line in found))

    sa.event.listen(store.engine, "before_cursor_execute", listen)
    names(store, config, **wanted)

    plans = [each for each in asked if "ix_alerts_" in each]
    assert len(plans) == (2 if wanted.get("state") == "all" else 1)  # those that wait, and the others
    for plan in plans:
        if "about" in wanted:
            assert "ix_alerts_source_label_is_waiting" in plan
        else:
            assert f"ix_alerts_{'pattern' if 'pattern' in wanted else 'queue'} (source=? AND is_waiting=?" in plan
            assert "TEMP B-TREE" not in plan


def test_all_are_those_that_wait_and_the_others_in_one_order(store: Store, config: Config) -> None:
    """Page after page, whatever was said of them; one is among those of the person whom it was given to last."""
    given = [alert(config, name, amount=float(amount)) for name, amount in zip("abcde", range(5), strict=True)]
    said = {"reason": "", "who": "ann", "via": "test", "config": config, "now": NOW}
    with store.write() as session:
        post(session, given, config=config, now=NOW)
        for name in "bd":
            answer(session, session.get_one(Alert, f"al_{name}"), "fine", **said)  # type: ignore[arg-type]
        for name, who in (("a", "kim"), ("c", "kim"), ("c", "lou")):
            notes.assign(session, session.get_one(Alert, f"al_{name}"), who, who="ann", now=NOW)
        notes.snooze(session, session.get_one(Alert, "al_e"), hours=1, reason="known", who="ann", now=NOW)

    assert names(store, config, state="all") == ["e", "d", "c", "b", "a"]
    assert names(store, config, state="all", most=2) == ["e", "d"]
    assert names(store, config, state="all", most=2, after="d") == ["c", "b"]
    assert names(store, config, state="answered") == ["d", "b"]
    assert names(store, config, state="snoozed") == ["e"]
    assert names(store, config, assignee="kim") == ["a"]
    assert names(store, config, assignee="lou") == ["c"]
    assert names(store, config, assignee="") == []


def test_no_more_are_counted_than_are_told(store: Store, config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page says "more than", and counting does not take longer the more there are."""
    monkeypatch.setattr(queue, "MOST_COUNTED", 2)
    totals = []
    for name in "abcd":
        with store.write() as session:
            post(session, [alert(config, name)], config=config, now=NOW)
        with store.read() as session:
            totals.append(queue.count(session, QueueQuery(), config=config, now=NOW))

    assert totals == [1, 2, 3, 3]
    assert [queue.counted(each) for each in totals] == ["1", "2", "more than 2", "more than 2"]


def test_database_knows_how_many_alerts_have_which_values(each_store: Store, config: Config) -> None:
    """By a connection that has read nothing before, as that of housekeeping at night."""
    with each_store.write() as session:
        post(session, [alert(config, "a"), alert(config, "b")], config=config, now=NOW)

    each_store.analyze()

    known = {
        "sqlite": "SELECT count(*) FROM sqlite_stat1 WHERE idx = 'ix_alerts_queue'",
        "postgresql": "SELECT count(*) FROM pg_stats WHERE tablename = 'alerts' AND attname = 'urgency'",
    }
    with each_store.read() as session:
        assert session.scalar(sa.text(known[each_store.kind])) == 1


def test_earlier_states_are_filled_in(each_store: Store, config: Config) -> None:
    """After an upgrade the same alerts wait as before it, in the same order."""
    go_back(each_store, "0008")
    when = datetime(2026, 3, 1, tzinfo=UTC)
    blank = {"source": config.name, "group": "g", "label": "x", "first_at": when, "last_at": when, "rows": 1}
    blank |= {"model_version": "", "pattern": "", "facts": "{}", "amount": None, "p_value": 0.5, "created_at": when}
    old = [
        {"id": "al_a", "kind": "opened", "incident": "1", "severity": "low"},
        {"id": "al_b", "kind": "worse", "incident": "1", "severity": "high", "amount": 7.0, "p_value": 0.25},
        {"id": "al_c", "kind": "opened", "incident": "2", "severity": "critical"},
        {"id": "al_d", "kind": "recovered", "incident": "3", "severity": "medium"},
        {"id": "al_e", "kind": "opened", "incident": "4", "severity": "medium"},
    ]
    with each_store.engine.begin() as connection:
        table = sa.Table("alerts", sa.MetaData(), autoload_with=connection)
        connection.execute(sa.insert(table), [blank | each for each in old])
        said = sa.Table("alert_answers", sa.MetaData(), autoload_with=connection)
        given = {"alert": "al_c", "verdict": "fine", "reason": "", "who": "", "via": "", "at": when}
        connection.execute(sa.insert(said), [given | {"model_version": ""}])

    each_store.upgrade()

    with each_store.read() as session:
        found = session.scalars(sa.select(Alert).where(Alert.is_waiting).order_by(Alert.urgency.desc())).all()
        assert [(each.id, each.urgency, each.stake, each.rarity) for each in found] == [
            ("al_b", 2, 7.0, -0.25),
            ("al_e", 1, -1.0, -0.5),
        ]
        assert session.scalar(sa.select(sa.func.count(Answer.id))) == 1
