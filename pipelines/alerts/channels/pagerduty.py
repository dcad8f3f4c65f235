"""PagerDuty, Events API v2: an event is one incident there, whatever is told of it, and recovery resolves it."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from pipelines.alerts.message.message import Message
from pipelines.alerts.network.addresses import networks_of
from pipelines.alerts.network.http import Poster, expect_success
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
        details["Fraud, or fine?"] = message.answer_url
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
    links = [("Review", message.review_url), ("MLflow", message.run_url), ("Fraud, or fine?", message.answer_url)]
    event["links"] = [{"href": url, "text": text} for text, url in links if url]
    return event


class PagerDutyChannel:
    """Posts events.

    Parameters
    ----------
    poster : Poster
        Where to.
    routing_key : str
        The integration key.
    """

    def __init__(self, poster: Poster, *, routing_key: str) -> None:
        self.poster = poster
        self._routing_key = routing_key

    def send(self, message: Message, *, now: datetime) -> None:
        """Post one event; PagerDuty joins those with the same key."""
        body = json.dumps(event_of(message, routing_key=self._routing_key), ensure_ascii=False, default=str).encode()
        reply = self.poster.post(body, {"Content-Type": "application/json"})
        expect_success(reply, host=self.poster.host, now=now)

    def close(self) -> None:
        """Let go of the connection."""
        self.poster.close()


def open_channel(section: PagerDutySection, alerts: AlertsSection, number: int) -> PagerDutyChannel:
    """The channel of a configuration."""
    del number
    poster = Poster(section.url, timeout=alerts.retry.timeout, allowed=networks_of(alerts.allow_addresses))
    return PagerDutyChannel(poster, routing_key=section.routing_key.get_secret_value())
