"""Any of the services that Apprise knows, each by an address of its own."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from detector.errors import MissingExtraError, SettingError
from pipelines.alerts.message.message import Message
from pipelines.alerts.message.templating import render
from pipelines.alerts.network.addresses import IpNetwork, guarded, networks_of
from pipelines.alerts.network.errors import DeliveryError
from pipelines.config.alert_channels import AppriseSection
from pipelines.config.alerting import AlertsSection

_TYPES = {"critical": "failure", "high": "failure", "medium": "warning", "low": "info"}


class AppriseChannel:
    """Sends through one service of Apprise. What it says of a failure is only that there was one.

    Raises ``MissingExtraError`` if Apprise is not installed; ``SettingError`` if it does not know the address; the
    address is not repeated, for it may hold a secret.
    """

    def __init__(
        self, url: str, *, allowed: Sequence[IpNetwork], templates: Path | None = None, timeout: float = 10.0
    ) -> None:
        try:
            library: Any = importlib.import_module("apprise")
        except ModuleNotFoundError:
            raise MissingExtraError(
                "`alerts.apprise` needs Apprise. Install it: pip install anomaly-detector[service]."
            ) from None
        logging.getLogger("apprise").setLevel(logging.CRITICAL)  # its messages hold addresses
        service = library.Apprise.instantiate(url, suppress_exceptions=True)
        if service is None:
            raise SettingError(
                f"`alerts.apprise.urls`: Apprise does not know an address that begins with "
                f"{url.partition('://')[0]}://. See its list of services."
            )
        service.socket_connect_timeout = service.socket_read_timeout = timeout
        self.service = service
        self.name = str(service.service_name)
        self._allowed = allowed
        self._timeout = timeout
        self._templates = templates

    def send(self, message: Message, *, now: datetime) -> None:
        """Send one message.

        Raises ``DeliveryError`` if the service did not take it, or is at a forbidden address.
        """
        del now
        kind = "success" if message.kind == "recovered" else _TYPES.get(message.severity, "info")
        try:
            with guarded(self._allowed, seconds=3 * self._timeout):
                taken = self.service.notify(
                    body=render("text.j2", message, folder=self._templates), title=message.title, notify_type=kind
                )
        except (OSError, TypeError, ValueError) as error:
            raise DeliveryError(f"{self.name} cannot be used: {type(error).__name__}.") from None
        if not taken:
            raise DeliveryError(f"{self.name} did not take it. Is its address valid, and an allowed one?")

    def close(self) -> None:
        """Nothing is held."""


def open_channel(section: AppriseSection, alerts: AlertsSection, number: int) -> AppriseChannel:
    """The channel of a configuration."""
    return AppriseChannel(
        section.urls[number].get_secret_value(),
        allowed=networks_of(alerts.allow_addresses),
        templates=alerts.templates,
        timeout=alerts.retry.timeout,
    )
