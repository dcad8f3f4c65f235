"""A service on loopback with all its doors, over a project whose alerts are given by hand."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import requests

from pipelines.alerts.feedback.router import answer_router
from pipelines.api import keys
from pipelines.config import Config
from pipelines.console.application import add_doors
from pipelines.jobs.context import ProcessCache
from pipelines.service.facts import Facts
from pipelines.service.http import HttpServer, application
from pipelines.service.metrics import Metrics
from pipelines.store import Store
from tests.alert_places import NOW


class Served:
    """What is served, and how to ask it."""

    def __init__(self, address: str, store: Store, config: Config, cache: ProcessCache) -> None:
        self.address, self.store, self.config, self.cache = address, store, config, cache
        self.keys: dict[str, str] = {}

    def key(self, *scopes: str, name: str = "ann", days: float | None = None, now: datetime = NOW) -> str:
        """A key with these scopes."""
        with self.store.write() as session:
            return keys.create(session, name, scopes, days=days, now=now)

    def ask(self, method: str, path: str, *, scope: str = "admin", key: str = "", **given: Any) -> requests.Response:
        """What is answered to a request with a key of a scope, or with that key."""
        if not key and scope not in self.keys:
            self.keys[scope] = self.key(scope)
        headers = {"Authorization": f"Bearer {key or self.keys[scope]}"} | given.pop("headers", {})
        return requests.request(method, self.address + path, headers=headers, timeout=20, **given)


@contextmanager
def served(config: Config, store: Store, *, leads: bool = True, answers: bool = False) -> Iterator[Served]:
    """Serve a project; with ``answers``, the pages behind the links of alerts as well."""
    cache = ProcessCache()
    facts = Facts(config, store, is_leader=lambda: leads, last_beat=time.monotonic, cache=cache)
    app = application(facts, Metrics(facts))
    if answers:
        app.include_router(answer_router(config, store, clock=lambda: datetime.now(UTC)))
    add_doors(app, config, store, facts)
    server = HttpServer(app, host="127.0.0.1", port=0)
    server.start()
    try:
        yield Served(server.address, store, config, cache)
    finally:
        server.stop()
        store.close()
