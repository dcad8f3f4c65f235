"""PagerDuty, Events API v2: an event is one incident there, whatever is reported of it, and recovery resolves it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pipelines.alerts.channels.posting import JSON, PostingChannel, as_json
from pipelines.alerts.message.message import Message
from pipelines.config.alert_channels import PagerDutySection
from pipelines.config.alerting import AlertsSection

SEVERITIES = {"critical": "critical", "high": "error", "medium": "warning", "low": "info"}
MOST_SUMMARY = 1024


def event_of(message: Message, *, routing_key: str) -> dict[str, Any]:
    """What to post."""
    event: dict[str, Any] = {
        "routing_key": routing_key,
        "event_action": "resolve" if message.kind == "recovered" else "trigger",
        "dedup_key": message.incident,
    }
    if message.kind == "recovered":
        return event
    details = {"alert": message.id, "reasons": message.reason_lines, **dict(message.table)}
    if message.answer_url:
        details[message.question] = message.answer_url
    event["payload"] = {
        "summary": message.sentence[:MOST_SUMMARY],
        "source": message.label or message.source,
        "severity": SEVERITIES.get(message.severity, "info"),
        "timestamp": message.last_at.isoformat(),
        "component": message.source,
        "group": message.source,
        "class": message.kind,
        "custom_details": details,
    }
    event["client"] = "anomaly-detector"
    links = [("Review", message.review_url), ("MLflow", message.run_url), (message.question, message.answer_url)]
    event["links"] = [{"href": url, "text": text} for text, url in links if url]
    return event


class PagerDutyChannel(PostingChannel):
    """Posts events; PagerDuty joins those with the same key."""

    def __init__(self, section: PagerDutySection, alerts: AlertsSection) -> None:
        super().__init__(section.url, alerts)
        self._routing_key = section.routing_key.get_secret_value()

    def request(self, message: Message, now: datetime) -> tuple[bytes, Mapping[str, str]]:
        """The body and the headers of one event."""
        del now
        return as_json(event_of(message, routing_key=self._routing_key)), JSON


def open_channel(section: PagerDutySection, alerts: AlertsSection, number: int) -> PagerDutyChannel:
    """The channel of a configuration."""
    del number
    return PagerDutyChannel(section, alerts)
