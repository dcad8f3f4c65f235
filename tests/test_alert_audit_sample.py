"""Rows drawn at random become alerts, and never stand in the way of flagged ones."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from benchmarks.soak import Site
from pipelines.alerts.feedback.answers import answer, find, precision, realised
from pipelines.alerts.grouping.audit_sample import SAMPLED
from pipelines.alerts.grouping.gather import Gathered
from pipelines.alerts.message.message import message_of
from pipelines.labels.feedback import Statements
from pipelines.store import Store
from pipelines.store.alert_tables import Alert
from tests.alert_places import NOW, config_in, give, rows, run, store_in
from tests.service_sites import opened, score


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return store_in(tmp_path)


def sampled(*names: str, flagged: tuple[str, ...] = ()) -> pd.DataFrame:
    """Verdicts with some rows of each card drawn, and rows of other cards flagged."""
    told = rows(*((name, 0, "high") for name in flagged), explored=False, chance=1.0)
    others = rows(*((name, 1, "") for name in names), flagged=False, explored=True, chance=0.02)
    others["transaction_id"] = [f"d{number}" for number in range(len(names))]
    return pd.concat([told, others] if flagged else [others], ignore_index=True)


def sampled_alerts(made: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [alert for alert in made if alert["pattern"] == SAMPLED]


def test_each_sampled_row_is_an_alert_that_says_so(store: Store, tmp_path: Path) -> None:
    """One a row, also of one card, of the lowest severity, whatever is at stake."""
    config = config_in(tmp_path, amount="sum", large_amount=10)

    made = give(store, config, sampled("a", "a", "b").assign(sum=5_000.0))

    assert sorted((alert["label"], alert["severity"], alert["facts"]["keys"]) for alert in made) == [
        ("a", "low", ["d0"]),
        ("a", "low", ["d1"]),
        ("b", "low", ["d2"]),
    ]
    assert {alert["facts"]["chance"] for alert in made} == {0.02}
    with store.read() as session:
        message = message_of(find(session, made[0]["id"]), section=config.alerts, target="log")
    assert message.title.startswith("Drawn at random: ")
    assert "was drawn at random, to find out what is missed; nothing flagged it." in message.sentence


def test_sampled_rows_take_no_room_from_flagged_ones(store: Store, tmp_path: Path) -> None:
    """They come last, only while the day has room, and leave that room to what is flagged later."""
    config = config_in(tmp_path, a_day=3)

    first = give(store, config, sampled("a", "b", "c", flagged=("x", "y")))
    later = give(store, config, sampled("d", flagged=("z",)), now=NOW + timedelta(hours=1))

    assert [len(sampled_alerts(made)) for made in (first, later)] == [1, 0]
    assert [alert["label"] for alert in first[:2]] == ["x", "y"]
    assert [alert["label"] for alert in later if alert["kind"] == "opened"] == ["z"]


def test_sampled_rows_stay_out_of_alerts_that_are_to_be_severe(store: Store, tmp_path: Path) -> None:
    """Who wants nothing of low severity gets none."""
    assert give(store, config_in(tmp_path, least_severity="medium"), sampled("a")) == []


def test_answers_are_labels_and_no_precision_of_alerts(store: Store, tmp_path: Path) -> None:
    """What people say of a drawn row is a label, in a line of its own, and not held against the alerts."""
    config = config_in(tmp_path, log={"enabled": True})
    made = give(store, config, sampled("a", flagged=("x",)))
    run(store, config)
    with store.write() as session:
        for alert, verdict in zip(made, ("fraud", "fine"), strict=True):
            answer(
                session, find(session, alert["id"]), verdict, reason="", who="ann", via="cli", config=config, now=NOW
            )

    with store.read() as session:
        told = precision(session, source="payments").set_index("reason")["precision"]
    assert dict(Statements.answers(config).verdicts[["key", "label"]].to_numpy().tolist()) == {"t0": 1, "d0": 0}
    assert told.to_dict() == {"amount": 1.0, SAMPLED: 0.0}
    assert realised(config) == "Alerts that people answered and that were fraud: log 1 of 1."


def test_sampled_rows_of_a_large_batch_are_kept(tmp_path: Path) -> None:
    """Of the rows that are not flagged, those drawn do not go."""
    gathered = Gathered(config_in(tmp_path), most_rows=1)
    frame = sampled("a", "a", "a")
    frame["explored"] = [True, False, False]

    list(gathered.watch([frame]))

    assert sorted(gathered.scores()["transaction_id"]) == ["d0", "d2"]


def test_service_tells_what_it_drew(tiny_bundle: Path, tmp_path: Path) -> None:
    """From the rows that come in to the alerts, by the key."""
    policy = {"budget": {"rows": 10, "per": "batch"}, "explore": 0.5}
    site = Site(tmp_path / "site", tiny_bundle, "files to files", policy=policy)
    site.add(150)

    score(site)

    frame = pd.read_parquet(site.folder / "scores")
    with opened(site) as store, store.read() as session:
        told = [alert.facts["keys"] for alert in session.query(Alert) if alert.pattern == SAMPLED]
    assert sorted(told) == sorted([[str(key)] for key in frame.loc[frame["explored"], "id"]]) != []
