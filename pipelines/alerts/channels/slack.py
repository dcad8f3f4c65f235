"""Slack, by an incoming webhook: a headline, what happened, why, and buttons that are links."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from pipelines.alerts.channels.posting import PostingChannel, as_json
from pipelines.alerts.message.message import Message
from pipelines.alerts.message.templating import render
from pipelines.alerts.network.errors import DeliveryError
from pipelines.alerts.network.http import Reply
from pipelines.config.alert_channels import SlackSection
from pipelines.config.alerting import AlertsSection

MOST_HEADER, MOST_SECTION, MOST_FIELD, MOST_FIELDS = 150, 3_000, 2_000, 10
_SIGNS = {"critical": "🔴", "high": "🟠", "medium": "🟡", "low": "🔵"}


def escape(text: str) -> str:
    """Slack's three signs, so that no value can ring everybody or pretend to be a link.

    >>> escape("<!channel> & co")
    '&lt;!channel&gt; &amp; co'
    """
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def payload_of(message: Message, *, templates: Path | None = None) -> dict[str, Any]:
    """What to post."""
    sign = "🟢" if message.kind == "recovered" else _SIGNS.get(message.severity, "⚪")
    body = escape(render("slack.j2", message, folder=templates).strip())
    blocks: list[dict[str, Any]] = [
        {"type": "header", "text": _plain(f"{sign} {message.title}", MOST_HEADER)},
        {"type": "section", "text": _text(body, MOST_SECTION)},
    ]
    fields = [
        _text(f"*{escape(name)}*\n{escape(value)}", MOST_FIELD) for name, value in message.table if name != "How rare"
    ]
    if fields and message.kind not in ("digest", "test"):
        blocks.append({"type": "section", "fields": fields[:MOST_FIELDS]})
    buttons = [(message.question, message.answer_url), ("Review", message.review_url), ("MLflow", message.run_url)]
    if elements := [_button(text, url) for text, url in buttons if url]:
        blocks.append({"type": "actions", "elements": elements})
    blocks.append({"type": "context", "elements": [_plain(f"{message.source} · {message.id}", MOST_FIELD)]})
    text = _cut(escape(message.sentence), MOST_SECTION)
    return {"text": text, "blocks": blocks, "unfurl_links": False, "unfurl_media": False}


def _text(text: str, most: int) -> dict[str, Any]:
    """Verbatim, or Slack would make a link of every address, name of a channel or person that a value holds."""
    return {"type": "mrkdwn", "text": _cut(text, most), "verbatim": True}


def _plain(text: str, most: int) -> dict[str, Any]:
    return {"type": "plain_text", "text": _cut(text, most), "emoji": True}


def _button(text: str, url: str) -> dict[str, Any]:
    return {"type": "button", "text": _plain(text, 75), "url": url, "action_id": text.split(",")[0].lower()}


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


class SlackChannel(PostingChannel):
    """Posts to a channel of Slack, which keeps no ids: after a crash at the wrong moment it may show one twice."""

    def __init__(self, section: SlackSection, alerts: AlertsSection) -> None:
        super().__init__(section.url.get_secret_value(), alerts)
        self._templates = alerts.templates

    def request(self, message: Message, now: datetime) -> tuple[bytes, Mapping[str, str]]:
        """The body and the headers of one message."""
        del now
        return as_json(payload_of(message, templates=self._templates)), {
            "Content-Type": "application/json; charset=utf-8"
        }

    def check(self, reply: Reply, now: datetime) -> None:
        """Of a status of 400 some answers are about the address, which can be mended, and not about the alert."""
        if reply.status == 400 and reply.body.strip() in (b"no_text", b"invalid_token", b"user_not_found"):
            raise DeliveryError(f"{self.poster.host} answered 400: check `alerts.slack.url`.")
        super().check(reply, now)


def open_channel(section: SlackSection, alerts: AlertsSection, number: int) -> SlackChannel:
    """The channel of a configuration."""
    del number
    return SlackChannel(section, alerts)
