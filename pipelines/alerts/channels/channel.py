"""What a channel is."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

from pipelines.alerts.message.message import Message


class Channel(Protocol):
    """A place alerts go to."""

    def send(self, message: Message, *, now: datetime) -> None:
        """Send one alert; that it returns means that the place has it.

        Raises
        ------
        DeliveryError
            If it has not, as far as is known.
        """
        ...

    def close(self) -> None:
        """Let go of connections."""
        ...
