from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import sqlalchemy as sa

from detector.detectors.table.detector import TabularDetector
from detector.errors import SettingError
from detector.explain.reason import Reason
from pipelines.alerts import enqueue
from pipelines.alerts.delivery.digests import end_quiet
from pipelines.alerts.grouping.events import Grouping, events_of
from pipelines.alerts.grouping.notify_rules import GroupState, advance
from pipelines.config import Config, load_config
from pipelines.scoring.load import scorer_of
from pipelines.store import Store
from pipelines.store.alert_tables import Alert, AlertGroup, Delivery, Silence
from tests.alert_places import NOW, config_in, deliveries, give, rows, run, store_in


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return store_in(tmp_path)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return config_in(tmp_path, log={"enabled": True})


def silence(store: Store, **values: Any) -> None:
    with store.write() as session:
        session.add(
            Silence(
                **{
                    "source": "payments",
                    "group": "",
                    "label": "",
                    "pattern": "",
                    "below": "",
                    "since": NOW,
                    "until": NOW + timedelta(hours=1),
                    "reason": "planned",
                    "who": "ann",
                    "hits": 0,
                }
                | values
            )
        )


def test_nothing_flagged_is_no_alert(store: Store, config: Config) -> None:
    """On a quiet day nothing is reported: zero alerts are possible."""
    quiet = rows(("a", 0, ""), ("b", 1, ""), flagged=False)

    assert give(store, config, quiet) == []
    assert deliveries(store) == []


def test_flags_of_one_entity_are_one_alert(store: Store, config: Config) -> None:
    """Rows no further apart than the window belong together; the worst says how severe it is."""
    made = give(store, config, rows(("a", 0, "low"), ("a", 30, "high"), ("b", 5, "low"), ("a", 80, "low")))

    assert [(alert["label"], alert["rows"], alert["severity"]) for alert in made] == [("a", 3, "high"), ("b", 1, "low")]
    assert made[0]["p_value"] == 5e-5
    assert made[0]["first_at"] == datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
    assert made[0]["facts"]["keys"] == ["t0", "t1", "t3"]


def test_longer_pause_begins_another_event(store: Store, config: Config) -> None:
    """After more than the window, the same entity is reported anew, under another name."""
    made = give(store, config, rows(("a", 0, "low"), ("a", 61, "low")))

    assert len(made) == 2
    assert made[0]["incident"] != made[1]["incident"]


def test_event_is_reported_once_over_batches(store: Store, config: Config) -> None:
    """A later batch that goes on with an event says nothing, but what is known of it grows."""
    give(store, config, rows(("a", 0, "medium")))

    assert give(store, config, rows(("a", 30, "medium"), ("a", 50, "low"))) == []
    with store.read() as session:
        assert session.scalars(sa.select(AlertGroup.rows)).all() == [3]


def test_higher_severity_breaks_through(store: Store, config: Config) -> None:
    """An event that gets worse is reported again, under the same name, with what was said before."""
    first = give(store, config, rows(("a", 0, "low")))
    worse = give(store, config, rows(("a", 10, "critical")))
    after = give(store, config, rows(("a", 20, "high")))

    assert [alert["kind"] for alert in worse] == ["worse"]
    assert worse[0]["incident"] == first[0]["incident"]
    assert worse[0]["facts"]["previous"] == "low"
    assert after == []


def test_lasting_event_is_reported_again(store: Store, tmp_path: Path) -> None:
    """An event that lasts beyond the set time is reported once more, not each time."""
    config = config_in(tmp_path, again_minutes=120)
    kinds = [
        [alert["kind"] for alert in give(store, config, rows(("a", minutes, "low")))] for minutes in range(0, 300, 30)
    ]

    assert kinds == [["opened"], [], [], [], ["again"], [], [], [], ["again"], []]


def test_late_row_of_an_older_event_is_reported(store: Store, config: Config) -> None:
    """A row that comes late and belongs to no known event is reported, and the latest event stays what it is."""
    give(store, config, rows(("a", 600, "low")))
    late = give(store, config, rows(("a", 0, "low")))

    assert [alert["kind"] for alert in late] == ["opened"]
    assert give(store, config, rows(("a", 620, "low"))) == []


def test_amount_moves_the_severity(store: Store, tmp_path: Path) -> None:
    """What is at stake over the event raises its severity, and little lowers it."""
    config = config_in(tmp_path, amount="amount", large_amount=1000, small_amount=10)
    verdicts = rows(("a", 0, "medium"), ("a", 1, "medium"), ("b", 0, "medium"), ("c", 0, "medium"))

    made = give(store, config, verdicts.assign(amount=[600.0, 600.0, 5.0, 100.0]))

    assert {alert["label"]: (alert["severity"], alert["amount"]) for alert in made} == {
        "a": ("high", 1200.0),
        "b": ("low", 5.0),
        "c": ("medium", 100.0),
    }


def test_missing_amount_column_is_named(store: Store, tmp_path: Path) -> None:
    """A column that the verdicts lack is an error that names it."""
    config = config_in(tmp_path, amount="amuont")

    with pytest.raises(SettingError, match=r"the column 'amuont', which the scores do not have. Did you mean 'amount'"):
        give(store, config, rows(("a", 0, "low"), amount=3.0))


@pytest.mark.parametrize("setting", [{"shown": ["amuont"]}, {"key": ["amuont"]}, {"amount": "amuont"}])
def test_column_that_is_not_at_hand_is_reported_at_the_start(
    quick: TabularDetector, tmp_path: Path, setting: dict[str, Any]
) -> None:
    """Before anything is scored, and not when the first row is flagged."""
    with pytest.raises(SettingError, match="names the column 'amuont', which the detector does not learn.*'amount'"):
        scorer_of(quick.scorer_, version="1", config=config_in(tmp_path, **setting))

    assert scorer_of(quick.scorer_, version="1", config=config_in(tmp_path, shown=["fee"])).version == "1"


def test_key_can_be_other_columns(store: Store, tmp_path: Path) -> None:
    """Alerts are about what the configuration says, such as the shop."""
    config = config_in(tmp_path, key=["shop", "country"])
    made = give(store, config, rows(("a", 0, "low"), ("b", 1, "low"), shop="s1", country="de"))

    assert [alert["label"] for alert in made] == ["shop s1, country de"]


@pytest.mark.parametrize("key", ["transaction_id", "time", "risk", "p_value"])
def test_key_is_never_a_unique_id_or_the_score(tmp_path: Path, key: str) -> None:
    """A key that differs from row to row is refused when the configuration is read."""
    with pytest.raises(SettingError, match="every row would be an alert"):
        config_in(tmp_path, key=[key])


def test_cap_holds_and_one_digest_says_the_rest(store: Store, tmp_path: Path) -> None:
    """Of many events the most severe and riskiest are reported, and one digest counts the others."""
    config = config_in(tmp_path, a_day=3, file={"path": "alerts.jsonl"})
    given = [(f"c{i}", 0, "critical" if i in (7, 9) else "low") for i in range(20)]

    made = give(store, config, rows(*given))
    later = give(store, config, rows(("x", 200, "critical")))

    assert [alert["kind"] for alert in made] == ["opened"] * 3 + ["digest"]
    assert [alert["label"] for alert in made[:3]] == ["c7", "c9", "c0"]
    assert made[3]["facts"]["more"] == 17
    assert later == []
    assert give(store, config, rows(*given)) == []


def test_next_day_has_room_and_hears_what_else_there_was(store: Store, tmp_path: Path) -> None:
    """The cap is a day's; once the day is over, a second digest tells what came after the first."""
    config = config_in(tmp_path, a_day=1, file={"path": "alerts.jsonl"})
    give(store, config, rows(("a", 0, "low"), ("b", 0, "low")))
    give(store, config, rows(("c", 0, "high")))

    tomorrow = NOW + timedelta(days=1)
    made = give(store, config, rows(("d", 1440, "low")), now=tomorrow)
    run(store, config, now=tomorrow)

    assert [alert["label"] for alert in made] == ["d"]
    with store.read() as session:
        digests = session.scalars(sa.select(Alert).where(Alert.kind == "digest").order_by(Alert.created_at)).all()
        assert [digest.facts["more"] for digest in digests] == [1, 2]


def test_event_without_room_is_reported_when_it_goes_on(store: Store, tmp_path: Path) -> None:
    """What the cap kept back is not forgotten: if it lasts until there is room, it is reported."""
    config = config_in(tmp_path, a_day=1, window_minutes=3000)
    give(store, config, rows(("a", 0, "high"), ("b", 0, "low")))

    made = give(store, config, rows(("b", 1440, "low"), ("a", 1440, "low")), now=NOW + timedelta(days=1))

    assert [(alert["label"], alert["kind"]) for alert in made[:1]] == [("b", "opened")]


@pytest.mark.slow
def test_fifty_thousand_flags_are_few_alerts(store: Store, config: Config) -> None:
    """A storm in one batch: the cap holds, one digest says how many more, within seconds."""
    rng = np.random.default_rng(0)
    n = 50_000
    verdicts = pd.DataFrame(
        {
            "transaction_id": np.arange(n),
            "time": pd.Timestamp("2026-03-02") + pd.to_timedelta(rng.integers(0, 3600, n), unit="s"),
            "card_id": rng.integers(0, 40_000, n).astype(str),
            "risk": rng.random(n),
            "p_value": 1e-3,
            "flagged": True,
            "severity": "medium",
            "reasons": [[Reason("amount", "9", "about 1", 0.9)]] * n,
        }
    )
    events = verdicts["card_id"].nunique()

    made = give(store, config, verdicts)

    assert [alert["kind"] for alert in made] == ["opened"] * 50 + ["digest"]
    assert made[-1]["facts"]["more"] == events - 50
    assert len(deliveries(store)) == 51


def test_silence_keeps_quiet_until_it_ends(store: Store, config: Config) -> None:
    """A silence holds for its entity and its time, and counts how often it was needed; then the event is reported."""
    made = give(store, config, rows(("a", 0, "low")))
    silence(store, group=made[0]["group"])

    during = give(store, config, rows(("a", 200, "low"), ("b", 200, "low")), now=NOW + timedelta(minutes=5))
    after = give(store, config, rows(("a", 210, "low")), now=NOW + timedelta(hours=2))

    assert [alert["label"] for alert in during] == ["b"]
    assert [(alert["label"], alert["kind"]) for alert in after] == [("a", "opened")]
    with store.read() as session:
        assert session.scalars(sa.select(Silence.hits)).all() == [1]


def test_silence_can_be_about_a_pattern_or_below_a_severity(store: Store, config: Config) -> None:
    """Only the first reason's feature is silenced, and only what is less severe."""
    silence(store, pattern="amount", below="high")
    other = [Reason("country", "pl", "de", 0.7)]

    verdicts = pd.concat([rows(("a", 0, "low"), ("b", 0, "high")), rows(("c", 0, "low"), reasons=other)])
    made = give(store, config, verdicts.reset_index(drop=True))

    assert sorted(alert["label"] for alert in made) == ["b", "c"]


def test_quiet_hours_end_in_one_digest(store: Store, tmp_path: Path) -> None:
    """At night people hear only of what is critical; in the morning one digest tells the rest. Machines hear all."""
    config = (
        config_in(
            tmp_path,
            quiet={"since": "22:00", "until": "07:00"},
            file={"path": "alerts.jsonl"},
            apprise={"urls": ["file:apprise.txt"]},
        )
        if (tmp_path / "apprise.txt").write_text("json://127.0.0.1:9")
        else None
    )
    assert config is not None
    night, morning = NOW.replace(hour=23), NOW.replace(day=3, hour=7, minute=1)

    give(store, config, rows(("a", 0, "low"), ("b", 0, "critical"), ("c", 0, "high")), now=night)

    assert [each["state"] for each in deliveries(store, target="file")] == ["waiting"] * 3
    assert sorted(each["state"] for each in deliveries(store, target="apprise")) == ["held", "held", "waiting"]
    with store.write() as session:
        assert end_quiet(session, config=config, now=night) == 0
        assert end_quiet(session, config=config, now=morning) == 1
    states = [each["state"] for each in deliveries(store, target="apprise")]
    assert sorted(states) == ["digested", "digested", "waiting", "waiting"]
    with store.read() as session:
        digest = session.scalars(sa.select(Alert).where(Alert.kind == "digest")).one()
        assert (digest.facts["more"], digest.severity) == (2, "high")
        assert len(digest.facts["top"]) == 2


def test_recovery_is_reported_for_sensors(store: Store, tmp_path: Path) -> None:
    """Once rows are normal for long enough the event is over; a machine that falls silent is not."""
    config = config_in(tmp_path, recovery=True, recovery_minutes=15)
    first = give(store, config, rows(("m1", 0, "high"), ("m2", 0, "high")))
    normal = rows(("m1", 5, ""), ("m1", 10, ""), flagged=False)

    early = give(store, config, normal)
    over = give(store, config, rows(("m1", 16, ""), flagged=False))
    again = give(store, config, rows(("m1", 30, ""), flagged=False))

    assert early == []
    assert [(alert["kind"], alert["label"]) for alert in over] == [("recovered", "m1")]
    assert over[0]["incident"] in {alert["incident"] for alert in first}
    assert again == []


def test_alert_and_scores_are_one_transaction(store: Store, config: Config) -> None:
    """If the transaction of the scores fails, there is no alert, no delivery, and nothing is known of the event."""

    def score() -> None:
        with store.write() as session:
            assert enqueue(session, rows(("a", 0, "low")), config=config, now=NOW)
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        score()

    with store.read() as session:
        counts = [
            session.scalar(sa.select(sa.func.count()).select_from(table)) for table in (Alert, Delivery, AlertGroup)
        ]
    assert counts == [0, 0, 0]


def test_switched_off_alerts_do_nothing(store: Store, tmp_path: Path) -> None:
    """With ``enabled: false`` nothing becomes an alert."""
    assert give(store, config_in(tmp_path, enabled=False), rows(("a", 0, "critical"))) == []


def test_rows_without_time_or_entity_are_one_event(tmp_path: Path) -> None:
    """Where the table has neither, all flagged rows are reported at once."""
    verdicts = rows(("a", 0, "low"), ("b", 90, "high"))[["risk", "p_value", "flagged", "severity"]].assign(row=[3, 4])
    found = events_of(verdicts, Grouping("x", (), None, timedelta(hours=1)), now=NOW)

    assert [(event.rows, event.severity, event.first_at) for event in found] == [(2, "high", NOW)]


def test_advance_needs_no_memory_of_its_own() -> None:
    """The decision is a function of the event and of what is known."""
    grouping = Grouping("x", ("card_id",), "time", timedelta(hours=1))
    (event,) = events_of(rows(("a", 0, "low")), grouping, now=NOW)
    known = GroupState("in_1", "low", "low", event.first_at, event.first_at, event.last_at, 1)
    times = {"window": timedelta(hours=1), "again": timedelta(days=1)}

    assert advance(event, known, name="in_2", **times) == advance(event, known, name="in_2", **times)
    assert advance(event, known, name="in_2", **times)[0] is None


def test_default_configuration_needs_nothing(tmp_path: Path) -> None:
    """Without any setting, alerts go to a file beside the configuration and to the log."""
    (tmp_path / "detector.yaml").write_text("source: {path: a.csv}\n", encoding="utf-8")

    alerts = load_config(tmp_path).alerts

    assert (alerts.file.path, alerts.file.enabled, alerts.log.enabled) == (tmp_path / "alerts.jsonl", True, True)
