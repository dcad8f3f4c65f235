"""The end of an event: reported once for each report of its beginning, whatever comes between."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pipelines.alerts.grouping import silences
from pipelines.config import Config
from pipelines.store import Store
from tests.alert_places import NOW, config_in, deliveries, give, rows, store_in


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return store_in(tmp_path)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return config_in(tmp_path, recovery=True, recovery_minutes=15, log={"enabled": True})


def odd(minute: float, severity: str = "low") -> pd.DataFrame:
    return rows(("a", minute, severity))


def normal(minute: float) -> pd.DataFrame:
    return rows(("a", minute, ""), flagged=False)


def reports(store: Store, config: Config, *batches: pd.DataFrame) -> list[tuple[str, str]]:
    """Kind and incident of all that is reported of one batch after another."""
    return [(alert["kind"], alert["incident"]) for batch in batches for alert in give(store, config, batch)]


def test_flapping_is_reported_anew_after_each_end(store: Store, config: Config) -> None:
    """Odd every 20 minutes and normal between: each end has a beginning before it, and nothing is kept back."""
    batches = [batch for minute in range(0, 120, 20) for batch in (odd(minute), normal(minute + 16))]

    found = reports(store, config, *batches)

    assert [kind for kind, _ in found] == ["opened", "recovered"] * 6
    assert [incident for _, incident in found[::2]] == [incident for _, incident in found[1::2]]
    assert len({incident for _, incident in found}) == 6


def test_late_row_of_an_event_that_is_over_opens_nothing(store: Store, config: Config) -> None:
    """It belongs to what was reported already, so its end is not reported a second time; unless it is worse."""
    reports(store, config, odd(0), odd(10), normal(30))

    assert reports(store, config, odd(5), normal(40)) == []
    assert [kind for kind, _ in reports(store, config, odd(6, "high"), normal(50))] == ["worse", "recovered"]


def test_event_that_nobody_was_notified_of_has_no_end(store: Store, config: Config) -> None:
    """Silenced from its beginning, it is opened once the silence is over and it goes on, and then it may recover."""
    with store.write() as session:
        silences.silence(session, source="payments", until=NOW + timedelta(hours=1), reason="x", who="ann", now=NOW)
    assert reports(store, config, odd(0), normal(16)) == []

    later = NOW + timedelta(hours=2)
    assert [alert["kind"] for alert in give(store, config, odd(20), now=later)] == ["opened"]
    assert [alert["kind"] for alert in give(store, config, normal(40), now=later)] == ["recovered"]


@pytest.mark.parametrize("between", [[], [normal(5)]])
def test_end_is_reported_also_where_another_event_takes_its_place(
    store: Store, config: Config, between: list[pd.DataFrame]
) -> None:
    """Whether that one is silenced or not: nothing is left open at PagerDuty for ever."""
    (opened,) = reports(store, config, odd(0))
    with store.write() as session:
        silences.silence(session, source="payments", until=NOW + timedelta(hours=1), reason="x", who="ann", now=NOW)

    found = reports(store, config, *between, odd(200))

    assert found == [("recovered", opened[1])]
    assert reports(store, config, normal(230)) == []


def test_each_event_of_one_batch_has_its_end(store: Store, config: Config) -> None:
    """In the order in which they happened, for receivers that know an alert by what it is about."""
    batch = pd.concat([odd(0), normal(20), odd(200, "high"), normal(220)], ignore_index=True)

    found = give(store, config, batch)

    assert sorted(alert["kind"] for alert in found) == ["opened", "opened", "recovered", "recovered"]
    kinds: dict[str, Any] = {alert["id"]: (alert["kind"], alert["first_at"].hour) for alert in found}
    sent = [kinds[each["alert"]] for each in deliveries(store)]
    assert sent == [("opened", 9), ("recovered", 9), ("opened", 12), ("recovered", 12)]


def test_late_event_ends_at_once_unless_another_goes_on(store: Store, config: Config) -> None:
    """Of an event before the last no normal row will ever speak."""
    reports(store, config, odd(600), normal(620))

    found = reports(store, config, odd(0))

    assert [kind for kind, _ in found] == ["opened", "recovered"]
    assert found[0][1] == found[1][1]
    reports(store, config, odd(700))
    assert [kind for kind, _ in reports(store, config, odd(300))] == ["opened"]


def test_without_recovery_no_end_is_reported(store: Store, tmp_path: Path) -> None:
    """It is off by default."""
    assert [kind for kind, _ in reports(store, config_in(tmp_path), odd(0), odd(200), normal(300))] == ["opened"] * 2
