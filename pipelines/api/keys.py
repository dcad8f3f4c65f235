"""Keys to ask with: made, listed and revoked by command; only their hashes are kept.

A key is ``det_ID_SECRET``. Its secret has 256 random bits, so one round of SHA-256 hides it well enough.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.orm import Session

from detector.errors import NotFoundError, SettingError, nearest
from pipelines.escaping import one_line
from pipelines.listing import Cell, Column, Listing
from pipelines.store.access_tables import ApiKey
from pipelines.store.trail import who, write_down

SCOPES = ("score", "view", "review", "admin")
MOST_NAME = 60
_KEY = re.compile(r"det_([0-9a-f]{12})_([0-9a-f]{64})")
_FOUND = sa.select(*ApiKey.__table__.columns).where(ApiKey.id == sa.bindparam("id"))
_NOBODY = hashlib.sha256(b"nobody").hexdigest()


@dataclass(frozen=True)
class Caller:
    """Who asks, and what they may do.

    >>> Caller("k", "ann", frozenset({"admin"})).may("score"), Caller("k", "till", frozenset({"score"})).may("review")
    (True, False)
    """

    id: str
    name: str
    scopes: frozenset[str]

    def may(self, scope: str) -> bool:
        """Whether a scope is theirs; who reviews may look, admin may do everything."""
        return scope in self.scopes or "admin" in self.scopes or (scope == "view" and "review" in self.scopes)


def create(
    session: Session, name: str, scopes: Iterable[str], *, days: float | None, now: datetime, by: str = ""
) -> str:
    """Make a key, and return it: it cannot be shown again.

    - ``name``: who has it; it stands beside all that is done with the key.
    - ``scopes``: of ``SCOPES``.
    - ``days``: how long it is valid; None for ever.
    - ``by``: who makes it; empty for whoever runs this process.

    Raises ``SettingError`` if a scope is unknown or there is none, or the name is empty.
    """
    wanted, name = sorted(set(scopes)), one_line(name).strip()[:MOST_NAME]
    for scope in wanted:
        if scope not in SCOPES:
            raise SettingError(f"There is no scope {scope!r}. {nearest(scope, SCOPES)}")
    if not wanted or not name:
        raise SettingError("A key needs a name and at least one scope: score, view, review or admin.")
    id, secret = secrets.token_hex(6), secrets.token_hex(32)  # noqa: A001 - what it is called in the key
    until = None if days is None else now + timedelta(days=days)
    key = ApiKey(id=id, name=name, hash=_hash(secret), scopes=" ".join(wanted), created_at=now, until=until)
    session.add(key)
    made = {"key": id, "name": name, "scopes": wanted, "until": until and until.isoformat()}
    write_down(session, "create key", actor=by or who(), arguments=made, now=now)
    return f"det_{id}_{secret}"


def check(session: Session, given: str, *, now: datetime) -> Caller | None:
    """Who asks with a key; None if it is none, was revoked, or is too old. Takes as long whichever it is."""
    return caller_of(_look_up(session.connection(), given), now=now)


class KnownKeys:
    """What ``check`` says of keys, each looked up once until somebody leaves a trail, as who revokes one does.

    For one thread. The keys themselves are not remembered.
    """

    def __init__(self) -> None:
        self._trail = -1
        self._found: dict[str, sa.Row[Any]] = {}

    def check(self, connection: Connection, given: str, *, trail: int, now: datetime) -> Caller | None:
        """Who asks with a key; ``trail`` is the number of the last one in the state that is looked at."""
        if trail != self._trail:
            self._found, self._trail = {}, trail
        name = _hash(given)
        found = self._found.get(name)
        if found is None and (found := _look_up(connection, given)) is not None:
            self._found[name] = found
        return caller_of(found, now=now)


def _look_up(connection: Connection, given: str) -> sa.Row[Any] | None:
    """What is kept of a key."""
    parts = _KEY.fullmatch(given)
    found = connection.execute(_FOUND, {"id": parts[1] if parts is not None else ""}).first()
    kept = _NOBODY if found is None else found.hash
    right = hmac.compare_digest(kept, _hash(parts[2] if parts is not None else given))
    return found if right else None


def caller_of(key: ApiKey | sa.Row[Any] | None, *, now: datetime) -> Caller | None:
    """Who has a key, if it is still good."""
    if key is None or key.revoked_at is not None or (key.until is not None and key.until <= now):
        return None
    return Caller(key.id, key.name, frozenset(key.scopes.split()))


def revoke(session: Session, which: str, *, now: datetime, by: str = "") -> ApiKey:
    """Have a key open nothing from now on.

    - ``which``: its id, or the key itself.

    Raises ``NotFoundError`` if there is none, or it was revoked before.
    """
    parts = _KEY.fullmatch(which)
    found = session.get(ApiKey, parts[1] if parts is not None else which)
    if found is None or found.revoked_at is not None:
        raise NotFoundError(f"There is no key {which[:16]!r} that could be revoked. `detector keys list` shows them.")
    found.revoked_at = now
    write_down(session, "revoke key", actor=by or who(), arguments={"key": found.id, "name": found.name}, now=now)
    return found


def every(session: Session) -> list[ApiKey]:
    """All keys there were, the oldest first."""
    return list(session.scalars(sa.select(ApiKey).order_by(ApiKey.created_at, ApiKey.id)))


def keys_table(session: Session, *, now: datetime) -> Listing:
    """All keys as a list, the newest first."""
    columns = (
        Column("id", head=True),
        Column("name", head=True),
        Column("scopes", is_sentence=True),
        Column("created (UTC)", key="created_at"),
        Column("state", is_sentence=True),
        *(Column(name, hidden=True) for name in ("until", "revoked_at")),
    )
    rows = [
        {
            "id": key.id,
            "name": key.name,
            "scopes": key.scopes,
            "created (UTC)": Cell(key.created_at, f"{key.created_at:%Y-%m-%d %H:%M}"),
            "state": _state(key, now),
            "until": key.until,
            "revoked_at": key.revoked_at,
        }
        for key in reversed(every(session))
    ]
    return Listing(columns, rows, title="Keys", empty="There is none yet. Make one with `detector keys create`.")


def _state(key: ApiKey, now: datetime) -> str:
    if key.revoked_at is not None:
        return f"revoked {key.revoked_at:%Y-%m-%d %H:%M}"
    if key.until is None:
        return "valid"
    return f"{'expired' if key.until <= now else 'valid until'} {key.until:%Y-%m-%d %H:%M}"


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", errors="replace")).hexdigest()
