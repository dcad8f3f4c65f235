"""Which addresses may be sent to: public ones, and private ones that the configuration allows.

What is checked is the address that a connection is made to, after the name has been looked up, so that a name which
points inwards, or does so the second time it is asked, is refused as well.
"""

from __future__ import annotations

import ipaddress
import socket
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cache

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

_NAT64 = ipaddress.ip_network("64:ff9b::/96")
# Public by Python 3.11's tables, and not by the registry of IANA: site-local, IETF protocols, a relay that is no more,
# and documentation.
_NOT_PUBLIC = tuple(ipaddress.ip_network(text) for text in ("fec0::/10", "192.0.0.0/24", "192.88.99.0/24", "3fff::/20"))
_CONNECTING = ("socket.connect", "socket.sendto", "socket.sendmsg")
_guard: ContextVar[_Guard | None] = ContextVar("guard", default=None)


class ForbiddenAddressError(OSError):
    """The address is private, and not allowed."""


def networks_of(texts: Sequence[str]) -> tuple[IpNetwork, ...]:
    """Networks as the configuration names them."""
    return tuple(ipaddress.ip_network(text, strict=False) for text in texts)


def is_allowed(address: str, allowed: Sequence[IpNetwork] = ()) -> bool:
    """Whether an address may be connected to.

    >>> is_allowed("93.184.215.14"), is_allowed("169.254.169.254"), is_allowed("::ffff:10.0.0.1")
    (True, False, False)
    >>> is_allowed("127.0.0.1", networks_of(["127.0.0.0/8"]))
    True
    """
    try:
        found = _innermost(ipaddress.ip_address(address.partition("%")[0]))
    except ValueError:
        return False  # a name: what it stands for cannot be known here
    if any(found in network for network in allowed):
        return True
    if any(found in network for network in _NOT_PUBLIC):
        return False
    return found.is_global and not found.is_multicast and not found.is_reserved


@contextmanager
def guarded(allowed: Sequence[IpNetwork], *, seconds: float | None = None) -> Iterator[None]:
    """Within it, this thread connects to allowed addresses only, whichever library does so, and for so long at most.

    For libraries that make connections of their own. Python reports every connection before it is made; one to a
    forbidden address is stopped there. When the time is up, a read or write in hand fails.
    """
    _install()
    guard = _Guard(tuple(allowed))
    timer = None if seconds is None else threading.Timer(seconds, guard.end)
    if timer is not None:
        timer.daemon = True
        timer.start()
    token = _guard.set(guard)
    try:
        yield
    finally:
        _guard.reset(token)
        if timer is not None:
            timer.cancel()
            timer.join()
        guard.close()


@dataclass
class _Guard:
    """What a thread may connect to, and a handle of every connection it has made since."""

    allowed: tuple[IpNetwork, ...]
    over: bool = False
    connections: list[socket.socket] = field(default_factory=list)

    def end(self) -> None:
        """Cut the connections, whoever reads from them: a byte now and then does not extend the time."""
        self.over = True
        for connection in list(self.connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Let go of the handles."""
        for connection in self.connections:
            connection.close()


@cache
def _install() -> None:
    """Once: a hook cannot be taken out again. Two of it, if two threads come at once, do no harm."""
    sys.addaudithook(_refuse)


def _refuse(event: str, arguments: tuple[object, ...]) -> None:
    if event not in _CONNECTING:
        return
    guard, (connection, address) = _guard.get(), arguments[:2]
    if guard is None or address is None:
        return
    host = address[0] if isinstance(address, tuple) and address else address
    if not is_allowed(str(host), guard.allowed):
        raise ForbiddenAddressError(f"{host} is a private address, which alerts are not sent to.")
    if guard.over:
        raise TimeoutError("The time for the whole exchange is up.")
    if event == "socket.connect" and isinstance(connection, socket.socket):
        guard.connections.append(connection.dup())  # TLS would take the socket itself from under its name


def _innermost(address: IpAddress) -> IpAddress:
    """The address that one of these wrappings leads to."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is not None:
            return inner
        if address in _NAT64:
            return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return address
