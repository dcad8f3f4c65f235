"""How a target says that it has not taken an alert."""

from __future__ import annotations

from typing import Literal

from detector.errors import SinkError

Trouble = Literal["later", "refused", "gone"]


class DeliveryError(SinkError):
    """An alert was not taken.

    - ``text``: What happened, without secrets.
    - ``kind``: "later", "refused" or "gone": whether the target has trouble and is tried again, the alert itself is at
      fault, or the target wants no more.
    - ``after``: Seconds the target asked to wait.
    """

    def __init__(self, text: str, *, kind: Trouble = "later", after: float | None = None) -> None:
        super().__init__(text)
        self.kind = kind
        self.after = after
