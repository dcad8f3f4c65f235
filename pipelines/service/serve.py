"""``detector serve``: an instance of the service with its HTTP server, in this process, until a signal ends it."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from types import FrameType

from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from pipelines.alerts.feedback.router import answer_router
from pipelines.config import Config
from pipelines.service.facts import Facts
from pipelines.service.http import PAGES, HttpServer, application
from pipelines.service.instance import Service
from pipelines.service.memory import share_arenas
from pipelines.store import Store

log = logging.getLogger("detector.service")

LAST_SECONDS = 5.0
"""What is left to let go of the lease and of connections, once the job in hand was given its time."""


class _CurrentApplication:
    """The web application that answers now; another one can take its place, and requests in hand end in theirs."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        await self.app(scope, receive, send)

    def turn_to(self, app: ASGIApp) -> None:
        """Have another one answer."""
        self.app = app


def serve(
    config: Config, store: Store, *, mount: Callable[[FastAPI, Config, Store, Facts], Sequence[str]] = lambda *_: ()
) -> None:
    """Run an instance, with its HTTP server, until SIGTERM or SIGINT; SIGHUP has it read its configuration again.

    ``mount`` puts what lies above the service under its web application, the API and the console, and returns their
    paths.

    Raises ``SettingError`` if the port is taken.
    """
    share_arenas()
    service = Service(config, store)

    def opened(config: Config) -> tuple[FastAPI, list[str]]:
        app = application(service.facts, service.metrics)
        app.include_router(answer_router(config, store, clock=lambda: datetime.now(UTC)))
        return app, [*mount(app, config, store, service.facts), *PAGES]

    def prepare(config: Config) -> Callable[[], None]:
        app, _ = opened(config)
        return lambda: serving.turn_to(app)

    app, pages = opened(config)
    serving, service.prepare = _CurrentApplication(app), prepare
    server = HttpServer(serving, host=config.service.host, port=config.service.port, pages=pages)

    last = threading.Timer(2 * config.service.stop_within + LAST_SECONDS, _give_up)
    last.daemon = True

    def end(number: int, _: FrameType | None) -> None:
        log.info("%s", signal.Signals(number).name)
        service.end()
        if last.ident is None:
            last.start()

    def read_again(*_: object) -> None:
        if service.file is not None:
            service.file.read_again()

    previous = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}
    if not sys.stdin.isatty():  # else it says that the terminal was closed
        previous[signal.SIGHUP] = signal.signal(signal.SIGHUP, read_again)
    server.start()
    try:
        service.run()
    finally:
        server.stop()
        store.close()
        last.cancel()
        for number, handler in previous.items():
            signal.signal(number, handler)
    if service.is_busy:
        _give_up()


def _give_up() -> None:
    """End the process, whatever waits: a job that does not end, or a database that says nothing."""
    log.error("the service did not end in time; what it had in hand is undone, and done anew by the next")
    logging.shutdown()
    os._exit(1)
