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
from contextlib import contextmanager

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_guard = threading.local()
_hooked = threading.Lock()
_installed: list[bool] = []


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
    return found.is_global and not found.is_multicast and not found.is_reserved


def dial(host: str, port: int, *, timeout: float, allowed: Sequence[IpNetwork]) -> socket.socket:
    """Connect to the first allowed address of a host.

    Raises
    ------
    ForbiddenAddressError
        If it has no other than forbidden addresses.
    OSError
        If none of the allowed ones answers.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
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
            connection.settimeout(timeout)
            connection.connect(address)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as error:
            connection.close()
            problem = error
            continue
        return connection
    raise problem or OSError(f"{host} has no address")


@contextmanager
def guarded(allowed: Sequence[IpNetwork]) -> Iterator[None]:
    """Within it, this thread connects to allowed addresses only, whichever library does so.

    For libraries that make connections of their own. Python reports every connection before it is made; one to a
    forbidden address is stopped there.
    """
    with _hooked:
        if not _installed:
            sys.addaudithook(_refuse)
            _installed.append(True)
    before = getattr(_guard, "allowed", None)
    _guard.allowed = tuple(allowed)
    try:
        yield
    finally:
        _guard.allowed = before


def _refuse(event: str, arguments: tuple[object, ...]) -> None:
    if event != "socket.connect":
        return
    allowed = getattr(_guard, "allowed", None)
    if allowed is None:
        return
    address = arguments[1]
    host = address[0] if isinstance(address, tuple) and address else address
    if not is_allowed(str(host), allowed):
        raise ForbiddenAddressError(f"{host} is a private address, which alerts are not sent to.")


def _innermost(address: IpAddress) -> IpAddress:
    """The address that one of these wrappings leads to."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is not None:
            return inner
        if address in _NAT64:
            return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return address
