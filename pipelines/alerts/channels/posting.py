"""A channel that posts JSON over HTTP; what differs is the body, and sometimes what an answer means."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pipelines.alerts.message.message import Message
from pipelines.alerts.network.addresses import networks_of
from pipelines.alerts.network.http import Poster, Reply, expect_success
from pipelines.config.alerting import AlertsSection

JSON = {"Content-Type": "application/json"}


class PostingChannel(ABC):
    """Posts each alert to one address."""

    path = ""

    def __init__(self, url: str, alerts: AlertsSection) -> None:
        self.poster = Poster(url, timeout=alerts.retry.timeout, allowed=networks_of(alerts.allow_addresses))

    @abstractmethod
    def request(self, message: Message, now: datetime) -> tuple[bytes, Mapping[str, str]]:
        """The body to post, and its headers."""

    def check(self, reply: Reply, now: datetime) -> None:
        """Raise ``DeliveryError`` unless the answer means that the place has the alert."""
        expect_success(reply, host=self.poster.host, now=now)

    def send(self, message: Message, *, now: datetime) -> None:
        """Post one alert."""
        body, headers = self.request(message, now)
        self.check(self.poster.post(body, headers, path=self.path), now)

    def close(self) -> None:
        """Let go of the connection."""
        self.poster.close()


def as_json(value: Any) -> bytes:
    """A body; what JSON does not know, such as a time, is written as text."""
    return json.dumps(value, ensure_ascii=False, default=str).encode()
