"""A receiver of one's own, by Standard Webhooks 1.0 (standardwebhooks.com): thin body, signed, two secrets at once."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from pipelines.alerts.channels.posting import JSON, PostingChannel
from pipelines.alerts.message.message import Message
from pipelines.alerts.network.errors import DeliveryError
from pipelines.alerts.network.http import Reply, expect_success
from pipelines.config.alert_channels import WebhookSection
from pipelines.config.alerting import AlertsSection

MOST_BYTES = 20_000
_MOST_WORDS = 500


def sign(body: bytes, *, id: str, now: datetime, secrets: Sequence[str]) -> dict[str, str]:  # noqa: A002 - the standard's word
    """The three headers that prove who sent a body and when.

    ``id`` is the same for every attempt, ``now`` the time of this one; ``secrets`` are ``whsec_`` and base64.

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
    data: dict[str, Any] = message.to_dict() | {
        "text": message.sentence[:_MOST_WORDS],
        "reasons": [line[:_MOST_WORDS] for line in message.reason_lines],
        "keys": message.facts.get("keys", [])[:10],
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


class WebhookChannel(PostingChannel):
    """Posts signed events; only an answer of 2xx counts as taken."""

    def __init__(self, section: WebhookSection, alerts: AlertsSection) -> None:
        super().__init__(section.url.get_secret_value(), alerts)
        self._secrets = [each.get_secret_value() for each in section.secrets]

    def request(self, message: Message, now: datetime) -> tuple[bytes, Mapping[str, str]]:
        """The body of one event, and headers with a signature by each secret."""
        body = body_of(message)
        return body, sign(body, id=message.id, now=now, secrets=self._secrets) | JSON

    def check(self, reply: Reply, now: datetime) -> None:
        """A body that is too large will not shrink; all else may be mended at the receiver."""
        expect_success(reply, host=self.poster.host, now=now, permanent=(413,))


def open_channel(section: WebhookSection, alerts: AlertsSection, number: int) -> WebhookChannel:
    """The channel of a configuration."""
    del number
    return WebhookChannel(section, alerts)
