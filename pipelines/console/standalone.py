"""The console and the API of a project without its jobs: for pictures of the pages, and to measure them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from pipelines.config import Config
from pipelines.console.application import mount_web
from pipelines.jobs.context import ProcessCache
from pipelines.service.facts import Facts
from pipelines.service.http import HttpServer, application
from pipelines.service.metrics import Metrics
from pipelines.store import Store


@contextmanager
def served_alone(config: Config, store: Store) -> Iterator[str]:
    """Serve on a free port of this machine until the block ends; the address."""
    facts = Facts(config, store, is_leader=lambda: True, last_beat=time.monotonic, cache=ProcessCache())
    app = application(facts, Metrics(facts))
    mount_web(app, config, store, facts)
    server = HttpServer(app, host="127.0.0.1", port=0)
    server.start()
    try:
        yield server.address
    finally:
        server.stop()
