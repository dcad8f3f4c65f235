"""Targets that mean no good: they point inwards, drip, flood, redirect, or never answer. None of it may hurt."""

from __future__ import annotations

import gzip
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from pipelines.alerts.channels.apprise import AppriseChannel
from pipelines.alerts.channels.email import EmailChannel
from pipelines.alerts.network import connection
from pipelines.alerts.network.addresses import guarded, is_allowed, networks_of
from pipelines.alerts.network.errors import DeliveryError
from pipelines.alerts.network.http import MOST_READ, Poster, Reply
from pipelines.config.alerting import EmailSection
from tests.alert_places import NOW, receiver
from tests.test_alert_channels import message

LOOPBACK = networks_of(["127.0.0.0/8", "::1"])
PUBLIC = "93.184.215.14"
Talk = Callable[[socket.socket], None]


def request(peer: socket.socket) -> bytes:
    """All of one request whose body is ``{}``; nothing if the other side has closed."""
    got = b""
    while not got.endswith(b"{}") and (more := peer.recv(65_536)):
        got += more
    return got


@contextmanager
def listening(talk: Talk, *, family: int = socket.AF_INET, hear: bool = True) -> Iterator[int]:
    """A port where each connection is answered with ``talk``, once a request was heard."""
    server = socket.create_server(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0), family=family)

    def answer(peer: socket.socket) -> None:
        with peer:
            try:
                if hear:
                    request(peer)
                talk(peer)
            except OSError:
                return

    def run() -> None:
        while True:
            try:
                peer, _ = server.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(peer,), daemon=True).start()

    threading.Thread(target=run, daemon=True).start()
    try:
        yield int(server.getsockname()[1])
    finally:
        server.close()


def drip(data: bytes, *, start: bytes = b"", every: float = 0.1) -> Talk:
    """First all of ``start``, then a byte now and then, over and over."""

    def talk(peer: socket.socket) -> None:
        peer.sendall(start)
        for _ in range(100):
            for i in range(len(data)):
                peer.sendall(data[i : i + 1])
                time.sleep(every)

    return talk


def post(url: str, *, timeout: float = 0.3, body: bytes = b"{}", **more: Any) -> Reply:
    """One request; gives up after three times the timeout."""
    poster = Poster(url, timeout=timeout, allowed=LOOPBACK, **more)
    try:
        return poster.post(body, {})
    finally:
        poster.close()


@pytest.mark.parametrize(
    ("start", "data"),
    [
        (b"", b"HTTP/1.1 200 OK\r\n" + b"X-Filler: 0123456789\r\n" * 20),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", b"x"),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", b"x"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffff\r\n", b"x"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"Trailer-Header: 0123456789\r\n"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    ],
    ids=["headers", "length", "no length", "chunks", "one chunk", "trailers", "continue"],
)
def test_answer_that_drips_ends_with_the_deadline(start: bytes, data: bytes) -> None:
    """Bytes that come faster than the timeout do not extend the whole exchange."""
    with listening(drip(data, start=start)) as port:
        began = time.monotonic()
        with pytest.raises(DeliveryError, match="did not answer within 0.3 seconds"):
            post(f"http://127.0.0.1:{port}/")

    assert 0.8 < time.monotonic() - began < 1.5


@pytest.mark.parametrize("hear", [True, False], ids=["mute", "deaf"])
def test_target_that_never_answers_ends_with_the_timeout(hear: bool) -> None:
    """Neither one that takes the request and says nothing, nor one that does not even take it."""
    with listening(lambda _: time.sleep(5), hear=hear) as port:
        began = time.monotonic()
        with pytest.raises(DeliveryError, match="did not answer within"):
            post(f"http://127.0.0.1:{port}/", body=b"{}" if hear else b"x" * 50_000_000)

    assert time.monotonic() - began < 1.5


def test_target_that_takes_the_request_slowly_ends_with_the_deadline() -> None:
    """A little room now and then does not extend the time for sending."""

    def sip(peer: socket.socket) -> None:
        for _ in range(100):
            peer.recv(65_536)
            time.sleep(0.05)

    with listening(sip, hear=False) as port:
        began = time.monotonic()
        with pytest.raises(DeliveryError, match="did not answer within"):
            post(f"http://127.0.0.1:{port}/", body=b"x" * 50_000_000)

    assert time.monotonic() - began < 1.5


@pytest.mark.parametrize("data", [b"\x16", b"\x16\x03\x03\x10\x00" + b"\x02" * 100], ids=["silence", "drip"])
def test_handshake_ends_with_the_deadline(data: bytes) -> None:
    """TLS that never gets anywhere is no way to hold a delivery."""
    with listening(drip(data, every=0.1 if len(data) > 1 else 5), hear=False) as port:
        began = time.monotonic()
        with pytest.raises(DeliveryError, match=r"did not answer within|cannot be reached"):
            post(f"https://127.0.0.1:{port}/")

    assert time.monotonic() - began < 1.5


def test_bad_tls_is_no_answer() -> None:
    """A server that speaks plain HTTP behind https gets nothing."""
    heard: list[bytes] = []

    def talk(peer: socket.socket) -> None:
        peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        heard.append(peer.recv(65_536))

    with listening(talk, hear=False) as port, pytest.raises(DeliveryError, match="cannot be reached"):
        post(f"https://127.0.0.1:{port}/")

    assert not any(b"POST" in each for each in heard)


@pytest.mark.parametrize("chunked", [False, True])
def test_huge_answer_is_cut_off(chunked: bool) -> None:
    """Its status counts; of its body no more than a little is read, and the connection is given up."""
    sent = []

    def talk(peer: socket.socket) -> None:
        peer.sendall(b"HTTP/1.1 200 OK\r\n" + (b"Transfer-Encoding: chunked\r\n\r\n" if chunked else b"\r\n"))
        block = b"x" * 100_000
        for _ in range(10_000):
            peer.sendall(b"186a0\r\n" + block + b"\r\n" if chunked else block)
            sent.append(len(block))

    with listening(talk) as port:
        found = post(f"http://127.0.0.1:{port}/", timeout=2)

    assert (found.status, len(found.body)) == (200, MOST_READ)
    assert sum(sent) < 100_000_000


def test_huge_headers_are_no_answer() -> None:
    """Headers without end are not collected."""

    def talk(peer: socket.socket) -> None:
        peer.sendall(b"HTTP/1.1 200 OK\r\n")
        for _ in range(1000):
            peer.sendall(b"X: " + b"y" * 10_000 + b"\r\n")

    with listening(talk) as port, pytest.raises(DeliveryError, match="not HTTP"):
        post(f"http://127.0.0.1:{port}/", timeout=2)


def test_packed_answer_is_not_unpacked() -> None:
    """A few bytes cannot become gigabytes."""
    with receiver() as server:
        packed = gzip.compress(b"x" * 10_000_000)
        server.answer = lambda _: (200, {"Content-Encoding": "gzip"}, packed)

        found = post(server.url, timeout=2)

    assert found.body == packed


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (b"", "closed the connection without an answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Le", "closed the connection without an answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", "broke off in the middle"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nhalf", "broke off in the middle"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nno number\r\n", "not HTTP|broke off"),
        (b"220 mail.example.com ESMTP\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n", "not HTTP"),
    ],
)
def test_answer_that_is_none(data: bytes, match: str) -> None:
    """Half an answer, and what is no HTTP, is reported as such."""
    with listening(lambda peer: peer.sendall(data)) as port, pytest.raises(DeliveryError, match=match):
        post(f"http://127.0.0.1:{port}/", timeout=2)


@pytest.mark.parametrize(
    "location", ["/elsewhere", "http://169.254.169.254/latest", "http://x:y/", "\\\\x", "file:///x"]
)
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirect_is_not_followed(status: int, location: str) -> None:
    """Wherever it leads, also where that has no meaning."""
    with receiver() as server:
        server.answer = lambda _: (status, {"Location": location}, b"")
        if location == "http://x:y/":
            with pytest.raises(DeliveryError, match="not HTTP"):
                post(server.url, timeout=2)
        else:
            assert post(server.url, timeout=2).status == status

        assert [path for path, _, _ in server.got] == ["/"]


def test_connection_closed_between_two_alerts_is_made_anew() -> None:
    """A server need not keep a connection; an alert is not lost for it, nor sent twice where it had been answered."""
    heard = []

    def talk(peer: socket.socket) -> None:
        heard.append(1)
        peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        if request(peer):  # the second request, on the kept connection: hang up instead of an answer
            heard.append(2)

    with listening(talk) as port:
        poster = Poster(f"http://127.0.0.1:{port}/", timeout=2, allowed=LOOPBACK)
        first, second = poster.post(b"{}", {}), poster.post(b"{}", {})
        poster.close()

    assert (first.status, second.status, heard) == (200, 200, [1, 2, 1])


def test_half_an_answer_on_a_kept_connection_is_not_asked_for_again() -> None:
    """Once an answer has begun the target has the alert: the next attempt is the courier's to decide."""
    heard = []

    def talk(peer: socket.socket) -> None:
        heard.append(1)
        peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        request(peer)
        heard.append(2)
        peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")

    with listening(talk) as port:
        poster = Poster(f"http://127.0.0.1:{port}/", timeout=2, allowed=LOOPBACK)
        poster.post(b"{}", {})
        with pytest.raises(DeliveryError, match="broke off"):
            poster.post(b"{}", {})
        poster.close()

    assert heard == [1, 2]


def test_early_refusal_is_heard() -> None:
    """A server that answers 413 and hangs up before it has taken all is understood."""

    def talk(peer: socket.socket) -> None:
        peer.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        time.sleep(0.1)
        while peer.recv(1_000_000):
            pass

    with listening(talk, hear=False) as port:
        assert post(f"http://127.0.0.1:{port}/", timeout=2, body=b"x" * 200_000).status == 413


# Where a name leads ---------------------------------------------------------------------------------------------------


class Names:
    """A resolver that answers as told, and a network that notes who is connected to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *answers: list[str]) -> None:
        self.connected: list[str] = []
        self.looked_up = 0
        names = self

        def getaddrinfo(host: str, port: int, **_: Any) -> list[Any]:
            found = answers[min(names.looked_up, len(answers) - 1)]
            names.looked_up += 1
            return [
                (socket.AF_INET6 if ":" in each else socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port))
                for each in found
            ]

        class Socket(socket.socket):
            def connect(self, address: Any) -> None:
                names.connected.append(address[0])
                raise ConnectionRefusedError(111, "Connection refused")

        monkeypatch.setattr(connection.socket, "getaddrinfo", getaddrinfo)
        monkeypatch.setattr(connection.socket, "socket", Socket)


def test_rebinding_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that is public when it is checked and inner when it is used: it is looked up once, and that is used."""
    names = Names(monkeypatch, [PUBLIC], ["127.0.0.1"])
    poster = Poster("http://rebind.example.com/", timeout=1, allowed=())

    with pytest.raises(DeliveryError, match="cannot be reached"):
        poster.post(b"{}", {})
    first = (names.looked_up, list(names.connected))
    with pytest.raises(DeliveryError, match="is at a private address"):
        poster.post(b"{}", {})

    assert first == (1, [PUBLIC])
    assert names.connected == [PUBLIC]


def test_only_allowed_addresses_of_a_name_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """One inner address among public ones is passed over."""
    names = Names(monkeypatch, ["10.0.0.1", PUBLIC, "::ffff:127.0.0.1", "2606:4700::1111", "fec0::1"])

    with pytest.raises(DeliveryError, match="cannot be reached"):
        Poster("https://mixed.example.com/", timeout=1, allowed=()).post(b"{}", {})

    assert names.connected == [PUBLIC, "2606:4700::1111"]


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "2130706433", "0x7f.1", "127.1", "0", "[::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "localhost"],
)
def test_loopback_in_any_writing_is_refused(host: str) -> None:
    """However the host is written, what counts is the address it leads to."""
    with receiver() as server:
        poster = Poster(f"http://{host}:{server.port}/", timeout=1, allowed=())
        with pytest.raises(DeliveryError, match=r"is at a private address|cannot be looked up"):
            poster.post(b"{}", {})
        poster.close()

        assert server.got == []


@pytest.mark.parametrize(
    "address",
    ["fec0::1", "feff::1", "192.0.0.1", "192.0.0.9", "192.0.0.170", "192.88.99.1", "3fff::1", "64:ff9b:1::1",
     "::ffff:192.0.0.9", "64:ff9b::a00:1", "2002:c000:0009::", "198.18.0.1", "240.0.0.1", "2001:db8::1", "::"],
)  # fmt: skip
def test_addresses_that_are_not_public(address: str) -> None:
    """Also those which Python's own tables call global."""
    assert not is_allowed(address)
    assert is_allowed("192.0.1.1")


def test_ipv6_is_reached() -> None:
    """An address in brackets, where its network is allowed."""
    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")

    def talk(peer: socket.socket) -> None:
        peer.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")

    try:
        with listening(talk, family=socket.AF_INET6) as port:
            assert post(f"http://[::1]:{port}/", timeout=2).status == 204
    except OSError as error:
        if isinstance(error, DeliveryError):
            raise
        pytest.skip("no IPv6 here")


def test_guard_holds_for_datagrams_too() -> None:
    """A library that sends without connecting is stopped as well."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        with guarded(()), pytest.raises(OSError, match="is a private address"):
            sender.sendto(b"x", ("127.0.0.1", 9))
        with guarded(LOOPBACK):
            assert sender.sendto(b"x", ("127.0.0.1", 9)) == 1


# What is sent, and what is not ----------------------------------------------------------------------------------------


def test_environment_decides_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a proxy nor a netrc nor other certificates."""
    with receiver() as server, receiver() as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "HTTPS_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        post(server.url, timeout=2)

        assert (len(server.got), len(proxy.got)) == (1, 0)


def test_user_and_password_are_basic_authentication_and_nothing_is_remembered() -> None:
    """A target can set no cookie."""
    with receiver() as server:
        server.answer = lambda _: (200, {"Set-Cookie": "a=b"}, b"")
        poster = Poster(f"http://us%40er:p%3Aw@127.0.0.1:{server.port}/x?y=%2Fz", timeout=2, allowed=LOOPBACK)
        for _ in range(2):
            poster.post(b"{}", {})
        poster.close()

    for path, headers, _ in server.got:
        assert path == "/x?y=%2Fz"
        assert headers["authorization"] == "Basic dXNAZXI6cDp3"
        assert headers["host"] == f"127.0.0.1:{server.port}"
        assert headers["accept-encoding"] == "identity"
        assert "cookie" not in headers


def test_address_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    """A token in the path stays out of the log, whatever the level of the program."""
    with caplog.at_level(logging.DEBUG), receiver() as server:
        post(f"{server.url}/services/secret-token", timeout=2)

    assert "secret-token" not in caplog.text


@pytest.mark.parametrize("url", ["ftp://x/", "http://", "example.com", "http://x:99999/", "http://x:y/", ""])
def test_address_without_meaning_is_refused(url: str) -> None:
    """Before anything is looked up."""
    with pytest.raises(DeliveryError, match="none that can be posted to"):
        Poster(url, timeout=1, allowed=())


# Mail -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("every", [0.1, 5], ids=["drip", "silence"])
def test_mail_server_that_drips_ends_with_the_deadline(every: float) -> None:
    """A reply that comes a byte at a time holds its thread no longer than a web server could."""
    section = EmailSection.model_construct(
        host="127.0.0.1", tls="none", user="", password=None, sender="a@example.com", to=("b@example.com",)
    )
    with listening(drip(b"220 " + b"x" * 1000, every=every), hear=False) as port:
        channel = EmailChannel(section.model_copy(update={"port": port}), timeout=0.3, allowed=LOOPBACK)
        began = time.monotonic()
        with pytest.raises(DeliveryError, match="127.0.0.1 cannot be used"):
            channel.send(message(), now=NOW)

    assert time.monotonic() - began < 1.5


@pytest.mark.filterwarnings("ignore:.*imghdr.*:DeprecationWarning")  # Apprise loads it
@pytest.mark.parametrize("scheme", ["json", "form"])
def test_library_that_waits_for_each_byte_ends_with_the_deadline(scheme: str) -> None:
    """Apprise has a timeout for each read only; the whole of it ends with ours."""
    start = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    with listening(drip(b"1\r\nx\r\n", start=start), hear=False) as port:
        channel = AppriseChannel(f"{scheme}://127.0.0.1:{port}/", allowed=LOOPBACK, timeout=0.3)
        began = time.monotonic()
        with pytest.raises(DeliveryError, match="did not take it"):
            channel.send(message(), now=NOW)

    assert 0.5 < time.monotonic() - began < 2
