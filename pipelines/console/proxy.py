"""Who a proxy says that somebody is: single sign-on, by a header that only the proxies that are named may send.

The header counts if the connection itself comes from one of their addresses. What ``X-Forwarded-For`` says does not
matter here: whoever sends the header could send that one as well.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import secrets
import threading
from datetime import datetime, timedelta

from starlette.datastructures import Headers
from starlette.types import Scope

from detector.errors import DataError
from pipelines.api.keys import MOST_NAME, Caller
from pipelines.config.service import ProxySection
from pipelines.console.sign_ins import Visitor
from pipelines.escaping import one_line
from pipelines.service.connections import PEER
from pipelines.store import Store
from pipelines.store.trail import write_down

ROLES = {"admin": "admin", "analyst": "review", "viewer": "view"}
EVERYONE, GROUP = "*", "group:"
MOST_KNOWN = 10_000


class ProxySignIn:
    """Reads who somebody is from the header of a proxy.

    - ``hours``: after which somebody who comes again is written into the audit trail anew.
    """

    def __init__(self, section: ProxySection, store: Store, *, hours: float) -> None:
        self.section = section
        self.store = store
        self.hours = hours
        self._proxies = tuple(ipaddress.ip_network(text, strict=False) for text in section.addresses)
        self._secret = secrets.token_bytes(32)
        self._seen: dict[str, datetime] = {}
        self._lock = threading.Lock()

    def visitor(self, scope: Scope, headers: Headers, *, now: datetime) -> Visitor | None:
        """Who it is; None where no header counts, so that a key is asked for.

        Raises ``DataError`` if a proxy names somebody who has no role here, or nobody clearly.
        """
        given = headers.getlist(self.section.header) if self.section.header else []
        if not given or not self._is_proxy(scope.get(PEER, "")):
            return None
        name = one_line(given[0]).strip()
        if len(given) != 1 or not name or len(name) > MOST_NAME or name.startswith(GROUP):
            raise DataError(f"{self.section.header}: expected one name of 1 to {MOST_NAME} characters from the proxy.")
        groups = headers.getlist(self.section.groups_header) if self.section.groups_header else []
        role = self.role({name, *(GROUP + group.strip() for line in groups for group in line.split(","))})
        if role is None:
            raise DataError(f"{name} has no role here. Add the name or a group to `service.console.proxy`.")
        self._note(name, role, now=now)
        caller = Caller(f"proxy:{name}", name, frozenset({ROLES[role]}))
        return Visitor(caller, hmac.new(self._secret, name.encode(), hashlib.sha256).hexdigest(), by_proxy=True)

    def role(self, names: set[str]) -> str | None:
        """The highest role that a name or a group of somebody has."""
        given = {"admin": self.section.admins, "analyst": self.section.analysts, "viewer": self.section.viewers}
        return next((role for role, has in given.items() if EVERYONE in has or not names.isdisjoint(has)), None)

    def _is_proxy(self, peer: str) -> bool:
        try:
            address = ipaddress.ip_address(peer.partition("%")[0])
        except ValueError:
            return False
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return any(address.version == network.version and address in network for network in self._proxies)

    def _note(self, name: str, role: str, *, now: datetime) -> None:
        """Write down that somebody has come, once a sign-in's time."""
        with self._lock:
            since = self._seen.get(f"{role} {name}")
            if since is not None and now - since < timedelta(hours=self.hours):
                return
            while len(self._seen) >= MOST_KNOWN:
                self._seen.pop(next(iter(self._seen)))
            self._seen[f"{role} {name}"] = now
        with self.store.write() as session:
            write_down(session, "sign in", actor=name, arguments={"by": "proxy", "role": role}, now=now)
