"""The log of the service."""

from __future__ import annotations

import logging
from datetime import datetime
from pathlib import Path

from pipelines.alerts.message.message import Message
from pipelines.alerts.message.templating import render
from pipelines.config.alert_channels import LogSection
from pipelines.config.alerting import AlertsSection
from pipelines.escaping import one_line

_LEVELS = {"critical": logging.ERROR, "high": logging.WARNING, "medium": logging.WARNING}


class LogChannel:
    """Writes to the log ``detector.alerts``; severe alerts as warnings and errors."""

    def __init__(self, templates: Path | None = None) -> None:
        self._templates = templates
        self._log = logging.getLogger("detector.alerts")

    def send(self, message: Message, *, now: datetime) -> None:
        """Write one entry, with the alert's id beside it."""
        del now
        text = one_line(" ".join(render("log.j2", message, folder=self._templates).split()))
        level = logging.INFO if message.kind == "recovered" else _LEVELS.get(message.severity, logging.INFO)
        self._log.log(level, "%s", text, extra={"alert": message.id, "severity": message.severity})

    def close(self) -> None:
        """Nothing is held."""


def open_channel(section: LogSection, alerts: AlertsSection, number: int) -> LogChannel:
    """The channel of a configuration."""
    del section, number
    return LogChannel(alerts.templates)
