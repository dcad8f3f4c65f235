"""What the service answers over HTTP: whether it lives, whether it is ready, and its metrics."""

from __future__ import annotations

import logging
import math
import os
import socket
import threading
import time
from collections.abc import Callable, Sequence

import anyio
import anyio.to_thread
import uvicorn
from fastapi import FastAPI, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from detector.errors import SettingError
from pipelines.service.connections import PEER, bounds
from pipelines.service.facts import Facts
from pipelines.service.metrics import Metrics

log = logging.getLogger("detector.service")

PAGES = ("/healthz", "/readyz", "/metrics")
PATIENCE = 5.0
MOST_WAITING = 4


def application(facts: Facts, metrics: Metrics) -> FastAPI:
    """The web application; more pages can be added to it."""
    app = FastAPI(title="Anomaly detector", docs_url=None, redoc_url=None, openapi_url=None)
    waiting = DatabasePages()

    @app.get("/healthz")
    async def healthz() -> JSONResponse:  # in the server's own thread: it waits for nothing
        well, found = facts.health()
        return JSONResponse({"status": "ok" if well else "stuck"} | found, status_code=200 if well else 503)

    @app.get("/readyz")
    async def readyz() -> Response:
        def answer() -> Response:
            ready, found = facts.readiness()
            return JSONResponse({"status": "ready" if ready else "not ready"} | found, 200 if ready else 503)

        return await waiting.answer(answer)

    @app.get("/metrics")
    async def read_metrics() -> Response:
        return await waiting.answer(lambda: Response(metrics.text(), media_type=CONTENT_TYPE_LATEST))

    return app


class DatabasePages:
    """Answers pages that ask the database: a few at a time, so that the jobs find connections to it, and for a while.

    A database that has stopped in the middle of a word is waited for without end, by threads that nobody can stop; so
    their number is what is limited.
    """

    def __init__(self) -> None:
        self._free = threading.BoundedSemaphore(MOST_WAITING)
        self._limiter = anyio.CapacityLimiter(math.inf)  # anyio's own counts no thread that it has given up

    async def answer(self, make: Callable[[], Response]) -> Response:
        """The page, or 503 where it cannot be had in time."""
        if not await self._is_free():
            return JSONResponse({"status": "busy", "why": "others wait for the database already"}, 503)
        try:
            with anyio.fail_after(PATIENCE):
                return await anyio.to_thread.run_sync(self._make, make, abandon_on_cancel=True, limiter=self._limiter)
        except TimeoutError:
            return JSONResponse({"status": "stuck", "why": f"no answer from the database in {PATIENCE:g} s"}, 503)

    async def _is_free(self) -> bool:
        """Whether a place could be had, within a second."""
        for _ in range(20):
            if self._free.acquire(blocking=False):
                return True
            await anyio.sleep(0.05)
        return False

    def _make(self, make: Callable[[], Response]) -> Response:
        try:
            return make()
        finally:
            self._free.release()


class WithPeer:
    """Has each request say where its connection comes from, whatever its headers say of that."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        await self.app({**scope, PEER: (scope.get("client") or ("", 0))[0]}, receive, send)


class HttpServer:
    """uvicorn in a thread of this process.

    - ``port``: 0 for any that is free.
    - ``pages``: what is said to be there.

    Raises ``SettingError`` if the port is taken or the address is not this machine's.
    """

    def __init__(self, app: ASGIApp, *, host: str, port: int, pages: Sequence[str] = PAGES) -> None:
        kind = socket.AF_INET6 if ":" in host else socket.AF_INET
        # Said outright, or asyncio does not switch the waiting for full packets off: 40 ms for every answer.
        self._socket = socket.socket(kind, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._socket.bind((host, port))
        except OSError as error:
            self._socket.close()
            raise SettingError(
                f"Nothing can be answered on {host}:{port}: {error.strerror}. Set `service.host` and `service.port`."
            ) from None
        self.address = f"http://{host}:{self._socket.getsockname()[1]}"
        # By uvicorn's own way, nothing inside could tell where a connection comes from.
        proxies = os.environ.get("FORWARDED_ALLOW_IPS", "127.0.0.1")
        known = WithPeer(ProxyHeadersMiddleware(app, trusted_hosts=proxies))  # type: ignore[arg-type]  # its own types
        self._server = uvicorn.Server(
            uvicorn.Config(known, log_config=None, access_log=False, lifespan="off", proxy_headers=False, **bounds())
        )
        self._pages = pages
        self._thread = threading.Thread(target=self._serve, name="http", daemon=True)

    def _serve(self) -> None:
        self._server.run(sockets=[self._socket])

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()
        deadline = time.monotonic() + PATIENCE
        while not self._server.started and time.monotonic() < deadline:
            time.sleep(0.01)
        log.info("answering on %s: %s", self.address, ", ".join(self._pages))

    def stop(self) -> None:
        """End, once the answers in hand are given."""
        self._server.should_exit = True
        if self._thread.is_alive():
            self._thread.join(PATIENCE)
        self._socket.close()
