"""Prometheus Alertmanager, API v2: labels say which alert it is, annotations all else."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from pipelines.alerts.channels.posting import JSON, PostingChannel, as_json
from pipelines.alerts.message.message import Message
from pipelines.config.alert_channels import AlertmanagerSection
from pipelines.config.alerting import AlertsSection

NAMES = {"digest": "MoreAnomalies", "test": "AnomalyTest"}
SERVICE = "DetectorService"


def alerts_of(message: Message, *, now: datetime, lasts: timedelta) -> list[dict[str, Any]]:
    """What to post: the alert, and where it became more severe, the end of the one it replaces.

    An alert is known by its labels, so nothing that differs from one time to the next may be among them. It ends by
    itself, unless it is sent again or resolved before.
    """
    previous = str(message.facts.get("previous", ""))
    severity = previous if message.kind == "recovered" and previous else message.severity
    over = message.kind == "recovered"
    ends = min(now, max(message.last_at, message.first_at) + timedelta(seconds=1)) if over else now + lasts
    found = [_alert(message, severity, starts=message.first_at, ends=ends)]
    if message.kind in ("worse", "again") and previous and previous != severity:
        found.append(_alert(message, previous, starts=message.first_at, ends=now))
    return found


def _alert(message: Message, severity: str, *, starts: datetime, ends: datetime) -> dict[str, Any]:
    labels = {
        "alertname": SERVICE if message.is_service else NAMES.get(message.kind, "Anomaly"),
        "detector": message.source,
        "severity": severity,
    }
    if message.label:
        labels["about"] = message.label
    annotations = {
        "summary": message.title,
        "description": message.sentence,
        "reasons": "; ".join(message.reason_lines),
        "rarity": message.rarity,
        "alert_id": message.id,
        "model_version": message.model_version,
        "todo": str(message.facts["service"].get("todo", "")) if message.is_service else "",
        "answer_url": message.answer_url,
        "review_url": message.review_url,
    }
    alert: dict[str, Any] = {
        "labels": labels,
        "annotations": {name: value for name, value in annotations.items() if value},
        "startsAt": _written(min(starts, ends)),
        "endsAt": _written(ends),
    }
    if url := message.review_url or message.run_url:
        alert["generatorURL"] = url
    return alert


class AlertmanagerChannel(PostingChannel):
    """Posts to one Alertmanager."""

    path = "/api/v2/alerts"

    def __init__(self, section: AlertmanagerSection, alerts: AlertsSection) -> None:
        super().__init__(section.url.get_secret_value(), alerts)
        self._lasts = timedelta(minutes=section.lasts_minutes)
        self._until_again = timedelta(minutes=alerts.again_minutes)

    def request(self, message: Message, now: datetime) -> tuple[bytes, Mapping[str, str]]:
        """The alert, and where it became more severe, the end of the one it replaces."""
        lasts = self._lasts
        if message.kind == "service":  # its end is always reported, so it must not end before it is sent again
            lasts = max(lasts, 2 * self._until_again)
        return as_json(alerts_of(message, now=now, lasts=lasts)), JSON


def open_channel(section: AlertmanagerSection, alerts: AlertsSection, number: int) -> AlertmanagerChannel:
    """The channel of a configuration."""
    del number
    return AlertmanagerChannel(section, alerts)


def _written(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
