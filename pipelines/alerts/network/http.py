"""POST to an address: checked where it leads, TLS verified, no redirects, bounded in time and size.

httpx over connections of our own, so that the address that is connected to is the one that was checked. Nothing is
taken from the environment: a proxy would hide that address.
"""

from __future__ import annotations

import logging
import random
import socket
import ssl
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpcore
import httpx

from pipelines.alerts.network.addresses import ForbiddenAddressError, IpNetwork
from pipelines.alerts.network.connection import Backend, Deadline
from pipelines.alerts.network.errors import DeliveryError

MOST_READ = 65_536
MOST_WAIT = 86_400.0
USER_AGENT = "anomaly-detector"
_PERMANENT = (400, 413, 415, 422)
_FAILURES = (OSError, httpcore.ProtocolError, httpcore.NetworkError, httpx.HTTPError, httpx.InvalidURL)


@dataclass(frozen=True)
class Reply:
    """What a target answered."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Poster:
    """Posts to one address, over one connection that is kept while it lasts. Not for several threads at once.

    - ``url``: http or https. A user and a password in it are sent as basic authentication.
    - ``timeout``: Seconds to connect, and between two signs of life; three times as long for the whole exchange.
    - ``allowed``: Private networks that may be sent to.
    - ``context``: Another one than the system's, for tests.
    """

    def __init__(
        self, url: str, *, timeout: float, allowed: Sequence[IpNetwork], context: ssl.SSLContext | None = None
    ) -> None:
        try:
            self._url = httpx.URL(url)
        except httpx.InvalidURL:
            self._url = httpx.URL("")
        port = self._url.port or 443
        if self._url.scheme not in ("http", "https") or not self._url.host or not 0 < port < 65_536:
            raise DeliveryError("The address is none that can be posted to. Expected https://host/path.", kind="later")
        logging.getLogger("httpx").setLevel(logging.WARNING)  # its messages hold addresses, which may hold a token
        self.host = self._url.host
        self.timeout = timeout
        self._deadline = Deadline(3 * timeout, step=timeout)
        self._backend = Backend(self._deadline, allowed=allowed)
        self._client = httpx.Client(
            transport=_Transport(self._backend, context or ssl.create_default_context()),
            headers={"User-Agent": USER_AGENT, "Accept-Encoding": "identity"},
            timeout=None,
            follow_redirects=False,
            trust_env=False,
        )

    def post(self, body: bytes, headers: Mapping[str, str], *, path: str = "") -> Reply:
        """Send, and read the answer, whatever its status; its body is cut off where it is long.

        Raises ``DeliveryError`` if no whole answer came: nothing is known then of what the target did.
        """
        self._deadline.start()
        url = self._url.copy_with(raw_path=self._url.raw_path.rstrip(b"/") + path.encode()) if path else self._url
        kept = self._backend.stream
        try:
            try:
                return self._exchange(url, body, headers)
            except _FAILURES as error:
                if kept is None or self._backend.stream is not kept or not self._is_closed(error):
                    raise
            # A connection that was kept had been closed by the other side meanwhile: that is no failure yet.
            return self._exchange(url, body, headers)
        except DeliveryError:
            raise
        except _FAILURES as error:
            raise self._failure(error) from None

    def close(self) -> None:
        """Let go of the connection."""
        self._client.close()

    def _exchange(self, url: httpx.URL, body: bytes, headers: Mapping[str, str]) -> Reply:
        self._client.cookies.clear()
        with self._client.stream("POST", url, content=body, headers=headers) as response:
            content = b""
            try:
                for part in response.iter_raw():
                    content += part
                    if len(content) > MOST_READ:
                        break
            except _FAILURES as error:
                if self._is_closed(error):
                    raise DeliveryError(f"{self.host} broke off in the middle of its answer.") from None
                raise self._failure(error) from None
        found = {name.lower(): value for name, value in response.headers.items()}
        return Reply(response.status_code, found, content[:MOST_READ])

    def _is_closed(self, error: Exception) -> bool:
        if isinstance(error, DeliveryError):  # an answer had begun
            return False
        ended = self._backend.stream is not None and self._backend.stream.ended
        return ended or isinstance(error, ConnectionResetError | BrokenPipeError)

    def _failure(self, error: Exception) -> DeliveryError:
        if isinstance(error, ForbiddenAddressError):
            return DeliveryError(str(error))
        if isinstance(error, ssl.SSLCertVerificationError):
            return DeliveryError(f"The certificate of {self.host} is not to be trusted: {error.verify_message}.")
        if isinstance(error, TimeoutError):
            return DeliveryError(f"{self.host} did not answer within {self.timeout:g} seconds.")
        if isinstance(error, socket.gaierror):
            return DeliveryError(f"The name {self.host} cannot be looked up.")
        if self._is_closed(error):
            return DeliveryError(f"{self.host} closed the connection without an answer.")
        if isinstance(error, OSError):
            return DeliveryError(f"{self.host} cannot be reached: {error.strerror or type(error).__name__}.")
        return DeliveryError(f"{self.host} gave an answer that is not HTTP ({type(error).__name__}).")


class _Transport(httpx.BaseTransport):
    """httpx's own has no room for a backend. Errors of httpcore and the system go through as they are."""

    def __init__(self, backend: Backend, context: ssl.SSLContext) -> None:
        self._pool = httpcore.ConnectionPool(ssl_context=context, max_connections=1, network_backend=backend)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        url = request.url
        answer = self._pool.handle_request(
            httpcore.Request(
                request.method,
                httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
                headers=request.headers.raw,
                content=request.read(),
            )
        )
        assert isinstance(answer.stream, Iterable)
        return httpx.Response(answer.status, headers=answer.headers, stream=_Body(answer))

    def close(self) -> None:
        self._pool.close()


class _Body(httpx.SyncByteStream):
    def __init__(self, answer: httpcore.Response) -> None:
        self._answer = answer

    def __iter__(self) -> Iterator[bytes]:
        yield from self._answer.iter_stream()

    def close(self) -> None:
        self._answer.close()


def expect_success(reply: Reply, *, host: str, now: datetime, permanent: Sequence[int] = _PERMANENT) -> None:
    """Nothing for a status of 200 to 299.

    Raises
    ------
    DeliveryError
        Otherwise, saying what it means for this alert and this target.
    """
    status = reply.status
    if 200 <= status < 300:
        return
    if status == 410:
        raise DeliveryError(f"{host} answered 410: it wants no more alerts.", kind="gone")
    if status in permanent:
        raise DeliveryError(f"{host} answered {status}: it does not take this alert.", kind="refused")
    hints = {
        401: "its credential is not valid any more",
        403: "its credential is not valid any more",
        404: "there is nothing at this address",
        429: "too many alerts at once",
    }
    what = hints.get(status, "it moved, and redirects are not followed" if 300 <= status < 400 else "it has trouble")
    raise DeliveryError(f"{host} answered {status}: {what}.", after=retry_after(reply.headers, now))


def retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """The seconds a target asked to wait, a day at most; None if it did not.

    >>> retry_after({"retry-after": "120"}, datetime(2026, 3, 1, tzinfo=UTC))
    120.0
    >>> retry_after({"retry-after": "Sun, 01 Mar 2026 00:01:00 GMT"}, datetime(2026, 3, 1, tzinfo=UTC))
    60.0
    """
    text = headers.get("retry-after", "").strip()
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        try:
            moment = parsedate_to_datetime(text)
        except ValueError:
            return None
        moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
        seconds = (moment - now).total_seconds()
    return min(max(seconds, 0.0), MOST_WAIT) if seconds == seconds else None


def backoff(failures: int, *, first: float, most: float, draw: random.Random) -> float:
    """Seconds to wait after so many failures in a row: doubling, and up to half of it left out at random.

    >>> backoff(3, first=5, most=900, draw=random.Random(0)) <= 20
    True
    """
    longest = min(most, first * 2.0 ** min(failures - 1, 60))
    return longest * (0.5 + 0.5 * draw.random())
