"""The real service and its scheduler by an injected clock, which is set forward and back while rows come in."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import apscheduler.executors.base
import apscheduler.schedulers.base
import pytest
import sqlalchemy as sa
import yaml

from benchmarks.soak import Site, draw
from pipelines.config import load_config
from pipelines.service import facts, instance, runs, scheduler
from pipelines.service.due_times import next_times
from pipelines.store import Batch, Lease, open_store
from pipelines.store.alert_tables import Alert, Delivery
from tests.service_sites import back_date

OFF = {name: {"enabled": False} for name in ("retrain", "drift", "housekeeping")}
SETTINGS: dict[str, Any] = {
    "jobs": OFF | {"score": {"when": "every 1s"}, "deliver": {"when": "every 1s"}},
    "lease": 3.0,
    "settle": 0,
}


class Clock:
    """The wall clock of everything that looks at one, as far from the true one as it was set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ahead = timedelta(0)
        clock = self

        class _Kind(type(datetime)):  # type: ignore[misc]
            def __instancecheck__(cls, value: object) -> bool:
                return isinstance(value, datetime)

        class Set(datetime, metaclass=_Kind):
            @classmethod
            def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
                return datetime.now(tz) + clock.ahead

        looked_at_by = (instance, facts, runs, scheduler, apscheduler.executors.base, apscheduler.schedulers.base)
        for module in looked_at_by:
            monkeypatch.setattr(module, "datetime", Set)


@pytest.mark.slow
def test_clock_that_is_set_doubles_and_holds_up_nothing(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three days forward, two days back, and right again: every row scored once, every alert sent once and soon."""
    site = Site(tmp_path / "site", tiny_bundle, "files to table", shares=True, settings=SETTINGS)
    file = site.folder / "detector.yaml"
    values = yaml.safe_load(file.read_text(encoding="utf-8"))
    alerts = {"a_day": 1_000, "window_minutes": 0.1, "log": {"enabled": False}, "file": {"path": "alerts.jsonl"}}
    values |= {"columns": {"key": "id", "time": "at"}, "policy": {"quantile": 0.9}, "alerts": alerts}
    file.write_text(yaml.safe_dump(values), encoding="utf-8")
    clock = Clock(monkeypatch)
    config = load_config(site.folder)
    store = open_store(config.service.store)
    service = instance.Service(config, store)
    thread = threading.Thread(target=service.run)
    thread.start()
    try:
        for number, days in enumerate((0, 3, -2, 0)):
            clock.ahead = timedelta(days=days)
            for half in range(2):
                first = 100 * number + 50 * half
                path = site.input / f"{first}.parquet"
                draw(50, first=first, seed=first).to_parquet(path)
                back_date(path, 10.0 - clock.ahead.total_seconds())
                assert _wait_for(lambda first=first: len(site.scored()) == first + 50), f"{days} days, {first}"
        assert _wait_for(lambda: _states(store) == {"sent"})
        due = next_times(store)
        with store.read() as session:
            told = Counter(session.scalars(sa.select(Alert.first_at).where(Alert.kind == "opened")))
            (term,) = session.scalars(sa.select(Lease.term))
            batches = session.scalars(sa.select(Batch.state)).all()
    finally:
        service.end()
        thread.join(20)
        store.close()

    assert not thread.is_alive()
    assert set(site.scored().values()) == {1}
    assert set(batches) == {"done"}
    assert set(told.values()) == {1}
    lines = (site.folder / "alerts.jsonl").read_text(encoding="utf-8").splitlines()
    assert len({json.loads(line)["id"] for line in lines}) == len(lines) == told.total()
    assert term == 1
    assert all(moment < datetime.now(UTC) + timedelta(seconds=10) for moment in due.values())


def _states(store: Any) -> set[str]:
    with store.read() as session:
        return set(session.scalars(sa.select(Delivery.state)))


def _wait_for(wanted: Any, seconds: float = 30.0) -> bool:
    end = time.monotonic() + seconds
    while not wanted() and time.monotonic() < end:
        time.sleep(0.1)
    return bool(wanted())
