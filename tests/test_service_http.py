"""Clients and a database that mean no good to the service's HTTP server: others are answered all the same."""

from __future__ import annotations

import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from fastapi import FastAPI, Request

from pipelines.service import connections, http
from pipelines.service.http import HttpServer, application


class Answers:
    """Stands for what the service knows and for its metrics; both wait for a database that may be frozen."""

    def __init__(self) -> None:
        self.database = threading.Event()
        self.database.set()
        self.asked = 0

    def health(self) -> tuple[bool, dict[str, Any]]:
        """All is well."""
        return True, {}

    def readiness(self) -> tuple[bool, dict[str, Any]]:
        """Asks the database."""
        self.database.wait()
        return True, {}

    def text(self) -> bytes:
        """Asks the database."""
        self.asked += 1
        self.database.wait()
        return b"detector_leader 1\n"


@pytest.fixture
def answers() -> Iterator[Answers]:
    found = Answers()
    yield found
    found.database.set()


@pytest.fixture
def server(answers: Answers) -> Iterator[HttpServer]:
    app: FastAPI = application(answers, answers)  # type: ignore[arg-type]  # as much of both as is asked

    @app.post("/echo")
    async def echo(request: Request) -> int:
        return len(await request.body())

    server = HttpServer(app, host="127.0.0.1", port=0)
    server.start()
    yield server
    server.stop()


def status(server: HttpServer, page: str, *, within: float = 10.0) -> int:
    try:
        with urllib.request.urlopen(server.address + page, timeout=within) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def open_connection(server: HttpServer) -> socket.socket:
    host, _, port = server.address.removeprefix("http://").partition(":")
    return socket.create_connection((host, int(port)), timeout=10)


def seconds_of(what: Callable[[], object]) -> float:
    began = time.monotonic()
    what()
    return time.monotonic() - began


def test_half_sent_requests_keep_nobody_out(server: HttpServer) -> None:
    """Of connections that say nothing more the oldest make room, so file descriptors are left."""
    held = []
    try:
        for _ in range(3 * connections.MOST_CONNECTIONS):
            held.append(open_connection(server))
            held[-1].sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Half: ")

        assert status(server, "/healthz", within=3) == 200
        assert len(server._server.server_state.connections) <= connections.MOST_CONNECTIONS
    finally:
        for each in held:
            each.close()


@pytest.mark.parametrize(
    ("start", "drop"),
    [
        (b"", b"GET /healthz"),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Filler: ", b"x"),
        (b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n", b"x"),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\nGET /healthz HTTP/1.1\r\nX-Filler: ", b"x"),
    ],
    ids=["line", "headers", "body", "second request"],
)
def test_request_that_drips_is_cut(
    server: HttpServer, monkeypatch: pytest.MonkeyPatch, start: bytes, drop: bytes
) -> None:
    """A byte now and then does not extend the time for the whole of a request."""
    monkeypatch.setattr(connections, "READ_SECONDS", 0.5)
    began = time.monotonic()
    with open_connection(server) as peer:
        peer.sendall(start)
        for at in range(100):
            try:
                peer.sendall(drop[at % len(drop) :][:1])
                time.sleep(0.1)
                peer.settimeout(0.01)
                if not peer.recv(65_536):
                    break
            except TimeoutError:
                continue
            except OSError:
                break

    assert 0.3 < time.monotonic() - began < 2


def test_client_that_goes_on_is_served(server: HttpServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time begins anew with each request over a connection that is kept."""
    import requests

    monkeypatch.setattr(connections, "READ_SECONDS", 0.5)
    with requests.Session() as session:
        session.trust_env = False
        for _ in range(6):
            assert session.post(f"{server.address}/echo", data="x" * 100_000, timeout=5).json() == 100_000
            time.sleep(0.2)


def test_frozen_database_keeps_health_and_the_jobs_alive(
    server: HttpServer, answers: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Few pages wait for a database at once, and not for long; health waits for nothing; later all is well again."""
    monkeypatch.setattr(http, "PATIENCE", 0.5)
    answers.database.clear()
    with ThreadPoolExecutor(60) as pool:
        pages = [pool.submit(status, server, "/metrics") for _ in range(60)]
        slowest = max(seconds_of(lambda: status(server, "/healthz")) for _ in range(10))
        found = {page.result() for page in pages}
    ready = status(server, "/readyz")
    answers.database.set()
    time.sleep(0.2)

    assert slowest < 1
    assert (found, ready, answers.asked) == ({503}, 503, http.MOST_WAITING)
    assert status(server, "/metrics") == 200


def test_server_ends_though_a_request_does_not(server: HttpServer, answers: Answers) -> None:
    """Neither half a request nor one that waits for a database keeps it from ending."""
    answers.database.clear()
    with open_connection(server) as half, open_connection(server) as waiting:
        half.sendall(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n")
        waiting.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        time.sleep(0.2)

        assert seconds_of(server.stop) < 4
