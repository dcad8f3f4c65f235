"""The cap on alerts a day, where what is scored happened long ago."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pandas as pd
import pytest
import sqlalchemy as sa

from pipelines.alerts.outbox.cap import reported_today
from pipelines.config import Config
from pipelines.store import Store
from pipelines.store.alert_tables import Alert
from tests.alert_places import NOW, config_in, give, rows, run, store_in

DAY = 24 * 60


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return store_in(tmp_path)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return config_in(tmp_path, a_day=3, file={"path": "alerts.jsonl"}, mask={"card_id": "hide"})


def old(day: int) -> pd.DataFrame:
    """Five cards, one event each, on a day before."""
    return rows(*((f"c{i}", -day * DAY, "critical" if i == 4 else "low") for i in range(5)))


def test_backlog_leaves_the_room_of_today_alone(store: Store, config: Config) -> None:
    """Three weeks of old files: as many as a day has, one digest with a list, and today's alerts as ever."""
    backlog = [alert for day in range(21, 2, -1) for alert in give(store, config, old(day))]
    today = give(store, config, rows(*((f"n{i}", 0, "low") for i in range(5))))

    assert [alert["kind"] for alert in backlog] == ["opened"] * 3 + ["digest"]
    assert backlog[0]["severity"] == "critical"
    assert [alert["kind"] for alert in today] == ["opened"] * 3 + ["digest"]
    assert (backlog[3]["facts"]["more"], today[3]["facts"]["more"]) == (2, 2)
    with store.read() as session:
        assert reported_today(session, config=config, now=NOW) == 6
        assert reported_today(session, config=config, now=NOW + timedelta(days=1)) == 0


def test_mixed_batch_reports_the_most_severe_first(store: Store, config: Config) -> None:
    """What is old and what is new may come in one batch: what is new goes first."""
    made = give(store, config, pd.concat([old(9), rows(("x", 0, "high"), ("y", 0, "low"))], ignore_index=True))

    found = [(alert["severity"], alert["kind"]) for alert in made]
    assert {alert["first_at"].date() for alert in made[1:3]} == {NOW.date()}
    assert found[:2] == [("critical", "opened"), ("high", "opened")]
    assert [kind for _, kind in found] == ["opened"] * 3 + ["digest"]


def test_digest_lists_what_there_was_no_room_for(store: Store, config: Config) -> None:
    """The most severe first, with when it happened, masked as everywhere; one more digest when the day is over."""
    for day in range(21, 2, -1):
        give(store, config, old(day))
    run(store, config)
    run(store, config, now=NOW + timedelta(days=1))
    run(store, config, now=NOW + timedelta(days=1, minutes=1))

    with store.read() as session:
        digests = session.scalars(sa.select(Alert).where(Alert.kind == "digest").order_by(Alert.created_at)).all()
    assert [digest.facts["more"] for digest in digests] == [2, 19 * 5 - 3]
    assert digests[0].facts["top"] == ["(hidden) (low): 1 flagged row, 2026-02-09 09:00 UTC"] * 2
    assert digests[1].facts["by_severity"] == {"low": 74, "critical": 18}
    lines = digests[1].facts["top"]
    assert len(lines) == 10
    assert all(line.startswith("(hidden) (critical): 1 flagged row, 2026-02-") for line in lines)
    text = Path(str(config.alerts.file.path)).read_text("utf-8")
    assert "more than 48 hours late, were not sent one by one (18 critical, 74 low): the limit is 3 a day" in text


def test_what_counts_as_old_can_be_set(store: Store, tmp_path: Path) -> None:
    """Where files come a week late, a week is no backlog."""
    config = config_in(tmp_path, a_day=3, backlog_hours=24 * 8)
    give(store, config, old(7))

    assert [alert["kind"] for alert in give(store, config, rows(("x", 0, "critical")))] == []
