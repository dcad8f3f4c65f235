"""POST to an address: checked where it leads, TLS verified, no redirects, bounded in time and size.

The standard library's client, because it lets go of nothing here: the socket is ours, so the address that is connected
to is the one that was checked. Proxies of the environment are not used, as they would hide that address.
"""

from __future__ import annotations

import base64
import http.client
import random
import socket
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import unquote, urlsplit

from pipelines.alerts.network.addresses import ForbiddenAddressError, IpNetwork, dial
from pipelines.alerts.network.errors import DeliveryError
from pipelines.alerts.network.watchdog import WATCHDOG

MOST_READ = 65_536
MOST_WAIT = 86_400.0
USER_AGENT = "anomaly-detector"
_PERMANENT = (400, 413, 415, 422)


@dataclass(frozen=True)
class Reply:
    """What a target answered."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Poster:
    """Posts to one address, over one connection that is kept while it lasts. Not for several threads at once.

    Parameters
    ----------
    url : str
        http or https. A user and a password in it are sent as basic authentication.
    timeout : float
        Seconds to connect, and between two signs of life; three times as long for the whole exchange.
    allowed : sequence of networks
        Private networks that may be sent to.
    context : SSLContext, optional
        Another one than the system's, for tests.
    """

    def __init__(
        self, url: str, *, timeout: float, allowed: Sequence[IpNetwork], context: ssl.SSLContext | None = None
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise DeliveryError("The address is none that can be posted to. Expected https://host/path.", kind="later")
        self.host = parts.hostname
        self.port = parts.port or (443 if parts.scheme == "https" else 80)
        self.path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self.timeout = timeout
        self._allowed = allowed
        self._context = (context or ssl.create_default_context()) if parts.scheme == "https" else None
        default = parts.port is None or parts.port == (443 if parts.scheme == "https" else 80)
        name = f"[{self.host}]" if ":" in self.host else self.host
        self._headers = {"Host": name if default else f"{name}:{self.port}", "User-Agent": USER_AGENT}
        if parts.username is not None:
            pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            self._headers["Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode("ascii")
        self._connection: http.client.HTTPConnection | None = None

    def post(self, body: bytes, headers: Mapping[str, str], *, path: str = "") -> Reply:
        """Send, and read the answer, whatever its status.

        Raises
        ------
        DeliveryError
            If no whole answer came: nothing is known then of what the target did.
        """
        wanted = self.path.rstrip("/") + path if path else self.path
        kept = self._connection is not None
        try:
            return self._exchange(body, headers, wanted)
        except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError) as error:
            # A connection that was kept may have been closed by the other side meanwhile: that is no failure yet.
            self.close()
            if not kept:
                raise DeliveryError(f"{self.host} closed the connection without an answer.") from error
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise self._failure(error) from None
        try:
            return self._exchange(body, headers, wanted)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise self._failure(error) from None

    def close(self) -> None:
        """Let go of the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _exchange(self, body: bytes, headers: Mapping[str, str], path: str) -> Reply:
        connection = self._connection or self._connect()
        self._connection = connection
        with WATCHDOG.watch(connection, 3 * self.timeout) as watched:
            try:
                connection.request("POST", path, body=body, headers=self._headers | dict(headers))
                answer = connection.getresponse()
                content = answer.read(MOST_READ)
                rest = answer.read(1) if len(content) == MOST_READ else b""
                if answer.length and not rest:
                    raise http.client.IncompleteRead(content, answer.length)
                found = {name.lower(): value for name, value in answer.getheaders()}
            except (OSError, http.client.HTTPException):
                if watched.late:
                    raise TimeoutError from None
                raise
        if rest or answer.will_close:
            self.close()
        return Reply(answer.status, found, content)

    def _connect(self) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=self.timeout)
        raw = dial(self.host, self.port, timeout=self.timeout, allowed=self._allowed)
        if self._context is not None:
            try:
                raw = self._context.wrap_socket(raw, server_hostname=self.host)
            except OSError:
                raw.close()
                raise
        connection.sock = raw
        return connection

    def _failure(self, error: Exception) -> DeliveryError:
        if isinstance(error, ForbiddenAddressError):
            return DeliveryError(str(error))
        if isinstance(error, ssl.SSLCertVerificationError):
            return DeliveryError(f"The certificate of {self.host} is not to be trusted: {error.verify_message}.")
        if isinstance(error, TimeoutError):
            return DeliveryError(f"{self.host} did not answer within {self.timeout:g} seconds.")
        if isinstance(error, socket.gaierror):
            return DeliveryError(f"The name {self.host} cannot be looked up.")
        if isinstance(error, http.client.IncompleteRead):
            return DeliveryError(f"{self.host} broke off in the middle of its answer.")
        if isinstance(error, http.client.HTTPException):
            return DeliveryError(f"{self.host} gave an answer that is not HTTP ({type(error).__name__}).")
        reason = getattr(error, "strerror", None) or type(error).__name__
        return DeliveryError(f"{self.host} cannot be reached: {reason}.")


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
