"""What a channel is, and how it says that it could not send."""

from __future__ import annotations

from datetime import datetime
from typing import Literal, Protocol

from detector.errors import SinkError
from pipelines.alerts.message import Message

Trouble = Literal["later", "refused", "gone"]


class DeliveryError(SinkError):
    """An alert was not taken.

    Parameters
    ----------
    text : str
        What happened, without secrets.
    kind : {"later", "refused", "gone"}
        Whether the target has trouble and is tried again, the alert itself is at fault, or the target wants no more.
    after : float or None
        Seconds the target asked to wait.
    """

    def __init__(self, text: str, *, kind: Trouble = "later", after: float | None = None) -> None:
        super().__init__(text)
        self.kind = kind
        self.after = after


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
