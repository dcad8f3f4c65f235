"""The clock is set while alerts wait: nothing is stuck, given up untried, or sent twice."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from pipelines.config import Config
from pipelines.jobs.context import Context
from pipelines.service.runs import run_job
from pipelines.store import Store
from tests.alert_places import NOW, SECRET, Receiver, config_in, deliveries, give, receiver, rows, run, store_in


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = store_in(tmp_path)
    yield made
    made.close()


@pytest.fixture(autouse=True)
def secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK", SECRET)


def hooked(folder: Path, server: Receiver) -> Config:
    return config_in(folder, webhook={"url": server.url, "secrets": ["${HOOK}"]})


def test_clock_set_back_keeps_no_alert_waiting(store: Store, tmp_path: Path) -> None:
    """What failed, was claimed or was made while the clock was days ahead is sent soon after it is set right."""
    ahead = NOW + timedelta(days=3)
    with receiver() as server:
        config = hooked(tmp_path, server)
        server.answer = lambda _: (500, {}, b"")
        give(store, config, rows(("a", 0, "high")), now=NOW)
        give(store, config, rows(("b", 0, "high")), now=ahead)
        run_job(Context(config, store, ahead), "deliver", trigger="schedule", instance="here")
        server.answer = lambda _: (200, {}, b"ok")

        run(store, config, now=NOW + timedelta(minutes=1))
        run(store, config, now=NOW + timedelta(minutes=2))

    assert [each["state"] for each in deliveries(store)] == ["sent", "sent"]
    assert len(set(server.ids)) == 2


def test_clock_set_back_still_minds_what_a_target_asks(store: Store, tmp_path: Path) -> None:
    """While the clock is right, a pause of hours that a target asked for is kept."""
    with receiver() as server:
        config = hooked(tmp_path, server)
        server.answer = lambda _: (503, {"Retry-After": "36000"}, b"")
        give(store, config, rows(("a", 0, "high")))
        run_job(Context(config, store, NOW), "deliver", trigger="schedule", instance="here")
        run(store, config, now=NOW + timedelta(hours=5))

        assert len(server.got) == 1


def test_clock_set_forward_gives_up_no_alert_untried(store: Store, tmp_path: Path) -> None:
    """What seems to have waited for a week was never tried: it is sent first, and only what fails is put aside."""
    with receiver() as server:
        config = hooked(tmp_path, server)
        give(store, config, rows(("a", 0, "high")))
        run(store, config, now=NOW + timedelta(days=7))

    assert [each["state"] for each in deliveries(store)] == ["sent"]
