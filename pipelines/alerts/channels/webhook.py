"""A receiver of one's own, by Standard Webhooks 1.0 (standardwebhooks.com): thin body, signed, two secrets at once."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Sequence
from datetime import UTC, datetime

from pipelines.alerts.message.message import Message
from pipelines.alerts.network.addresses import networks_of
from pipelines.alerts.network.errors import DeliveryError
from pipelines.alerts.network.http import Poster, expect_success
from pipelines.config.alert_channels import WebhookSection
from pipelines.config.alerting import AlertsSection

MOST_BYTES = 20_000
_MOST_WORDS = 500


def sign(body: bytes, *, id: str, now: datetime, secrets: Sequence[str]) -> dict[str, str]:  # noqa: A002 - the standard's word
    """The three headers that prove who sent a body and when.

    Parameters
    ----------
    body : bytes
        As it goes over the wire.
    id : str
        The same for every attempt.
    now : datetime
        Of this attempt, with a time zone.
    secrets : sequence of str
        ``whsec_`` and base64; the body is signed with each.

    >>> moment = datetime.fromtimestamp(1614265330, UTC)
    >>> sign(
    ...     b'{"test": 2432232314}',
    ...     id="msg_p5jXN8AQM9LWM0D4loKWxJek",
    ...     now=moment,
    ...     secrets=["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"],
    ... )["webhook-signature"]
    'v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE='
    """
    stamp = str(int(now.timestamp()))
    content = b".".join([id.encode(), stamp.encode(), body])
    marks = []
    for secret in secrets:
        key = base64.b64decode(secret.removeprefix("whsec_"))
        marks.append("v1," + base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode("ascii"))
    return {"webhook-id": id, "webhook-timestamp": stamp, "webhook-signature": " ".join(marks)}


def body_of(message: Message) -> bytes:
    """The message in a few kilobytes, never 20 or more."""
    data = {
        "id": message.id,
        "incident": message.incident,
        "kind": message.kind,
        "source": message.source,
        "about": message.label,
        "severity": message.severity,
        "text": message.sentence[:_MOST_WORDS],
        "first_at": message.first_at.isoformat(),
        "last_at": message.last_at.isoformat(),
        "rows": message.rows,
        "p_value": message.p_value,
        "amount": message.amount,
        "reasons": [line[:_MOST_WORDS] for line in message.reason_lines],
        "keys": message.facts.get("keys", [])[:10],
        "model_version": message.model_version,
        "review_url": message.review_url,
        "answer_url": message.answer_url,
    }
    if message.kind == "digest":
        data["digest"] = {name: message.facts.get(name) for name in ("why", "more", "by_severity", "day")}
    event = {"type": f"alert.{message.kind}", "timestamp": message.created_at.astimezone(UTC).isoformat(), "data": data}
    body = json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode()
    if len(body) >= MOST_BYTES:
        data |= {"keys": [], "reasons": data["reasons"][:1], "about": message.label[:100]}
        data["text"] = message.sentence[:100]
        body = json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode()
    if len(body) >= MOST_BYTES:
        raise DeliveryError("The alert is too large for a webhook.", kind="refused")
    return body


class WebhookChannel:
    """Posts signed events.

    Parameters
    ----------
    poster : Poster
        Where to.
    secrets : sequence of str
        What to sign with.
    """

    def __init__(self, poster: Poster, *, secrets: Sequence[str]) -> None:
        self.poster = poster
        self._secrets = tuple(secrets)

    def send(self, message: Message, *, now: datetime) -> None:
        """Post one event; only an answer of 2xx counts as taken."""
        body = body_of(message)
        headers = sign(body, id=message.id, now=now, secrets=self._secrets)
        reply = self.poster.post(body, headers | {"Content-Type": "application/json"})
        expect_success(reply, host=self.poster.host, now=now, permanent=(413,))

    def close(self) -> None:
        """Let go of the connection."""
        self.poster.close()


def open_channel(section: WebhookSection, alerts: AlertsSection, number: int) -> WebhookChannel:
    """The channel of a configuration."""
    del number
    poster = Poster(
        section.url.get_secret_value(), timeout=alerts.retry.timeout, allowed=networks_of(alerts.allow_addresses)
    )
    return WebhookChannel(poster, secrets=[each.get_secret_value() for each in section.secrets])
