"""Who is signed in: a key is given once, then a cookie stands for it; only the cookie's hash is kept."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.orm import Session

from pipelines.api import keys
from pipelines.api.keys import Caller
from pipelines.store.access_tables import ApiKey, SignIn
from pipelines.store.trail import write_down

MOST_COOKIE = 100


@dataclass(frozen=True)
class Visitor:
    """Who looks at a page, and what their forms must carry so that no other site can send them.

    - ``by_proxy``: whether a proxy says who it is; then there is nothing here to sign out of.
    """

    caller: Caller
    form_token: str
    by_proxy: bool = False

    def sent(self, token: str) -> bool:
        """Whether a form is one of theirs."""
        return hmac.compare_digest(token.encode("utf-8", errors="replace"), self.form_token.encode())


def sign_in(session: Session, key: str, *, hours: float, now: datetime) -> str | None:
    """A new cookie for whoever has a key; None if it is none. What a browser brought along is never made valid."""
    caller = keys.check(session, key, now=now)
    if caller is None:
        return None
    cookie = secrets.token_urlsafe(32)
    write_down(session, "sign in", actor=caller.name, arguments={"key": caller.id}, now=now)
    session.add(SignIn(hash=_hash(cookie), key=caller.id, since=now, until=now + timedelta(hours=hours)))
    return cookie


def visitor(session: Session, cookie: str, *, now: datetime) -> Visitor | None:
    """Who a cookie stands for; None if nobody, any more."""
    if not cookie or len(cookie) > MOST_COOKIE:
        return None
    found = session.get(SignIn, _hash(cookie))
    if found is None or found.until <= now:
        return None
    caller = keys.caller_of(session.get(ApiKey, found.key), now=now)
    return None if caller is None else Visitor(caller, _hash(f"form\0{cookie}"))


def sign_out(session: Session, cookie: str) -> None:
    """Have a cookie stand for nobody."""
    session.execute(sa.delete(SignIn).where(SignIn.hash == _hash(cookie)))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", errors="replace")).hexdigest()
