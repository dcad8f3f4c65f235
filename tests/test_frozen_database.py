"""A real PostgreSQL that is frozen (SIGSTOP) under a running service, and thawed again."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from benchmarks.soak import Site
from pipelines.config import load_config
from pipelines.service import http
from pipelines.service.http import HttpServer, application
from pipelines.service.instance import Service
from pipelines.store import Batch, open_store
from tests.postgres_server import PostgresServer
from tests.service_sites import opened, put

ROOT = Path(__file__).parents[1]
QUIET = {name: {"enabled": False} for name in ("retrain", "drift", "deliver", "housekeeping")}
SERVED: dict[str, Any] = {"jobs": QUIET | {"score": {"when": "every 1s"}}, "lease": 2.0, "stop_within": 0.5}


@pytest.fixture
def site(postgres: PostgresServer, tiny_bundle: Path, tmp_path: Path) -> Site:
    url = postgres.url(f"frozen_{abs(hash(tmp_path))}")
    return Site(tmp_path / "site", tiny_bundle, "files to table", shares=True, store=url, settings=SERVED)


@pytest.fixture
def frozen(postgres: PostgresServer) -> Callable[[], Any]:
    """The server stands still within the block."""

    @contextmanager
    def _frozen() -> Iterator[None]:
        postgres.freeze()
        try:
            yield
        finally:
            postgres.thaw()

    return _frozen


def get(address: str, page: str) -> tuple[int, dict[str, Any], float]:
    """Status, what is said, and the seconds it took."""
    began = time.monotonic()
    try:
        with urllib.request.urlopen(address + page, timeout=10) as answer:
            status, said = answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            status, said = error.code, error.read()
    return int(status), json.loads(said), time.monotonic() - began


def counts(site: Site) -> tuple[int, int, int]:
    """Rows of scores, different keys, open batches."""
    with opened(site) as store, store.read() as session:
        if not sa.inspect(session.connection()).has_table("scores"):
            return 0, 0, 0
        rows, keys = session.execute(sa.text("SELECT count(*), count(DISTINCT id) FROM scores")).one()
        waiting = session.scalar(sa.select(sa.func.count()).where(Batch.state != "done"))
    return int(rows), int(keys), int(waiting or 0)


def wait_for(wanted: Callable[[], bool], seconds: float = 20.0) -> bool:
    end = time.monotonic() + seconds
    while not wanted() and time.monotonic() < end:
        time.sleep(0.1)
    return wanted()


def test_service_waits_for_a_frozen_database_and_goes_on(
    site: Site, frozen: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Health answers at once, readiness says why not, scoring waits; thawed, every row is scored once."""
    monkeypatch.setattr(http, "PATIENCE", 0.5)
    config = load_config(site.folder)
    store = open_store(config.service.store)
    service = Service(config, store)
    server = HttpServer(application(service.facts, service.metrics), host="127.0.0.1", port=0)
    thread = threading.Thread(target=service.run)
    server.start()
    thread.start()
    try:
        put(site, "a.parquet", 0, 50)
        assert wait_for(lambda: counts(site)[0] == 50)
        with frozen():
            for number in range(1, 4):  # one may be in hand by then, or none
                put(site, f"{number}.parquet", 50 * number, 50)
            time.sleep(1.5)
            health, ready = get(server.address, "/healthz"), get(server.address, "/readyz")
            again = get(server.address, "/healthz")
        thawed = wait_for(lambda: counts(site)[0] == 200)
        back = wait_for(lambda: get(server.address, "/readyz")[0] == 200)
    finally:
        service.end()
        thread.join(20)
        server.stop()
        store.close()

    assert (health[0], again[0], ready[0]) == (200, 200, 503)
    assert max(health[2], again[2]) < 1
    assert "database" in ready[1]["why"]
    assert thawed
    assert back
    assert counts(site) == (200, 200, 0)
    assert not thread.is_alive()


@pytest.mark.slow
def test_service_ends_though_its_database_is_frozen(site: Site, frozen: Callable[[], Any]) -> None:
    """SIGTERM ends it in time, with an exit code that says that something was left; the next one makes up for it."""
    put(site, "a.parquet", 0, 50)
    command = [sys.executable, "-m", "pipelines", "serve", str(site.folder)]
    with (site.folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stderr=log, cwd=ROOT)
    try:
        assert wait_for(lambda: counts(site)[0] == 50)
        with frozen():
            put(site, "b.parquet", 50, 50)
            time.sleep(1.5)
            process.send_signal(signal.SIGTERM)
            code = process.wait(10)
    finally:
        process.kill()
        process.wait()

    assert code == 1
    assert "did not end in time" in (site.folder / "log").read_text(encoding="utf-8")
    assert counts(site)[:2] in ((50, 50), (100, 100))
