"""Prometheus Alertmanager, API v2: labels say which alert it is, annotations all else."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from pipelines.alerts.message.message import Message
from pipelines.alerts.network.addresses import networks_of
from pipelines.alerts.network.http import Poster, expect_success
from pipelines.config.alert_channels import AlertmanagerSection
from pipelines.config.alerting import AlertsSection

PATH = "/api/v2/alerts"
NAMES = {"digest": "MoreAnomalies", "test": "AnomalyTest"}


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
        "alertname": NAMES.get(message.kind, "Anomaly"),
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


class AlertmanagerChannel:
    """Posts to one Alertmanager.

    Parameters
    ----------
    poster : Poster
        Where to.
    lasts : timedelta
        How long an alert counts as firing by itself.
    """

    def __init__(self, poster: Poster, *, lasts: timedelta) -> None:
        self.poster = poster
        self.lasts = lasts

    def send(self, message: Message, *, now: datetime) -> None:
        """Post one alert."""
        body = json.dumps(alerts_of(message, now=now, lasts=self.lasts), ensure_ascii=False).encode()
        reply = self.poster.post(body, {"Content-Type": "application/json"}, path=PATH)
        expect_success(reply, host=self.poster.host, now=now)

    def close(self) -> None:
        """Let go of the connection."""
        self.poster.close()


def open_channel(section: AlertmanagerSection, alerts: AlertsSection, number: int) -> AlertmanagerChannel:
    """The channel of a configuration."""
    del number
    poster = Poster(
        section.url.get_secret_value(), timeout=alerts.retry.timeout, allowed=networks_of(alerts.allow_addresses)
    )
    return AlertmanagerChannel(poster, lasts=timedelta(minutes=section.lasts_minutes))


def _written(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
