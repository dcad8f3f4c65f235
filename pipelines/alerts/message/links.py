"""Links that answer an alert: signed, so that nobody can make one up, and valid for a while."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from dataclasses import dataclass
from datetime import UTC, datetime

from detector.errors import DataError

PATH = "/alerts/answer"
CONSOLE = "/console/alerts"
"""Where the console has a page of each alert."""
MOST_CHARACTERS = 500
_CONTEXT = b"alert-answer-v1\0"


@dataclass(frozen=True)
class Claim:
    """What a link stands for: an alert, the target that the link was sent to, and how long it is valid."""

    alert: str
    via: str
    until: datetime


def sign(claim: Claim, secret: str) -> str:
    """The part of a link that says what it is about, and proves it.

    >>> claim = Claim("al_1", "slack", datetime(2026, 3, 1, tzinfo=UTC))
    >>> read(
    ...     sign(claim, "a secret to sign with"), "a secret to sign with", now=datetime(2026, 2, 1, tzinfo=UTC)
    ... ) == claim
    True
    """
    values = [claim.alert, claim.via, int(claim.until.timestamp())]
    payload = json.dumps(values, separators=(",", ":")).encode()
    return f"{_text(payload)}.{_text(_mark(payload, secret))}"


def read(token: str, secret: str, *, now: datetime) -> Claim:
    """The inverse of ``sign``.

    Raises ``DataError`` if the link was not made here, was changed, or is too old.
    """
    head, _, tail = token.partition(".") if len(token) <= MOST_CHARACTERS else ("", "", "")
    try:
        payload, mark = _bytes(head), _bytes(tail)
    except (binascii.Error, ValueError):
        payload, mark = b"", b""
    if not hmac.compare_digest(mark, _mark(payload, secret)):
        raise DataError("This link is not valid. Open it from the alert again, without changes.")
    alert, via, until = json.loads(payload)
    claim = Claim(alert, via, datetime.fromtimestamp(until, UTC))
    if now > claim.until:
        raise DataError(
            f"This link was valid until {claim.until:%Y-%m-%d %H:%M} UTC. Answer by `detector alerts answer {alert}`."
        )
    return claim


def _mark(payload: bytes, secret: str) -> bytes:
    return hmac.new(secret.encode(), _CONTEXT + payload, hashlib.sha256).digest()


def _text(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode("ascii")


def _bytes(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
