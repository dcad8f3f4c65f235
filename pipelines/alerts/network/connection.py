"""Connections to hosts that may be hostile: to the very address that was checked, and over when their time is up.

Nothing here trusts that the other side hurries: every single read and write may take no longer than what is left of one
deadline, so that a byte now and then does not extend it, and no second thread is needed to end it.
"""

from __future__ import annotations

import select
import socket
import ssl
import time
from collections.abc import Iterable, Sequence
from typing import Any

import httpcore

from pipelines.alerts.network.addresses import ForbiddenAddressError, IpNetwork, is_allowed


class Deadline:
    """When an exchange must be over, by the monotonic clock. Not for several threads at once.

    - ``seconds``: For the whole exchange, from ``start`` on.
    - ``step``: For each connect, read and write, if the whole has as much left.
    """

    def __init__(self, seconds: float, *, step: float) -> None:
        self.seconds = seconds
        self.step = step
        self.start()

    def start(self) -> None:
        """Begin an exchange."""
        self._until = time.monotonic() + self.seconds

    def left(self) -> float:
        """Seconds for the next step, more than 0.

        Raises ``TimeoutError`` if the time is up.
        """
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError("The time for the whole exchange is up.")
        return min(left, self.step)


def dial(host: str, port: int, *, deadline: Deadline, allowed: Sequence[IpNetwork]) -> socket.socket:
    """Connect to the first allowed address of a host that answers.

    The name is looked up once, and what it leads to is checked and connected to. The lookup itself is the system's, and
    ends when that gives up.

    Raises ``ForbiddenAddressError`` if it has no other than forbidden addresses; ``OSError`` if none of the allowed
    ones answers.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError:
        raise socket.gaierror(socket.EAI_NONAME, "no name that can be looked up") from None
    usable = [each for each in found if is_allowed(str(each[4][0]), allowed)]
    if not usable:
        raise ForbiddenAddressError(
            f"{host} is at a private address, which alerts are not sent to. If it is meant, add its network to "
            f"`alerts.allow_addresses`."
        )
    problem: OSError | None = None
    for family, kind, protocol, _, address in usable:
        connection = socket.socket(family, kind, protocol)
        try:
            connection.settimeout(deadline.left())
            connection.connect(address)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as error:
            connection.close()
            problem = error
            continue
        return connection
    raise problem or OSError(f"{host} has no address")


class Backend(httpcore.NetworkBackend):
    """How httpcore connects: to allowed addresses, before the deadline. An OSError goes through as it is.

    - ``deadline``: Of the exchanges over these connections.
    - ``allowed``: Private networks that may be connected to.
    """

    def __init__(self, deadline: Deadline, *, allowed: Sequence[IpNetwork]) -> None:
        self.stream: Stream | None = None
        self._deadline = deadline
        self._allowed = allowed

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """Connect; the time is the deadline's."""
        del timeout, local_address, socket_options
        self.stream = None
        self.stream = Stream(dial(host, port, deadline=self._deadline, allowed=self._allowed), self._deadline)
        return self.stream


class Stream(httpcore.NetworkStream):
    """A socket whose every read and write ends with the deadline; ``ended`` once the other side has closed."""

    def __init__(self, connection: socket.socket, deadline: Deadline) -> None:
        self.ended = False
        self._socket = connection
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """What has come; empty if the other side has closed."""
        del timeout
        self._socket.settimeout(self._deadline.left())
        received = self._socket.recv(max_bytes)
        self.ended = not received
        return received

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send all of it.

        Raises ``WriteError`` if the other side takes no more; httpcore then reads what it may have answered before.
        """
        del timeout
        while buffer:
            self._socket.settimeout(self._deadline.left())
            try:
                sent = self._socket.send(buffer)
            except TimeoutError:
                raise
            except OSError as error:
                raise httpcore.WriteError(str(error)) from error
            buffer = buffer[sent:]

    def close(self) -> None:
        """Let go of the socket."""
        self._socket.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        """The same connection with TLS; the whole handshake is one step."""
        del timeout
        try:
            self._socket.settimeout(self._deadline.left())
            self._socket = ssl_context.wrap_socket(self._socket, server_hostname=server_hostname)
        except BaseException:
            self.close()
            raise
        return self

    def get_extra_info(self, info: str) -> Any:
        """Whether there is something to read, which on an idle connection means that it is closed."""
        if info == "is_readable":
            poll = select.poll()
            poll.register(self._socket, select.POLLIN)
            return bool(poll.poll(0))
        return None
