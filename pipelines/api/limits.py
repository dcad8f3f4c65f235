"""What bounds how much and how often somebody asks: rates by key, failures by address, the size of a body."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable

from fastapi import HTTPException
from starlette.types import Message, Receive

from pipelines.api.problems import ProblemError

BURST_SECONDS = 10.0
MOST_KNOWN = 10_000


class Rate:
    """So many a second on average, and what ten seconds bring at once; by name.

    >>> moment = [0.0]
    >>> rate = Rate(per_second=0.2, clock=lambda: moment[0])
    >>> rate.wait("ann"), rate.wait("ann"), rate.wait("ann")
    (0.0, 0.0, 5.0)
    >>> moment[0] = 6.0
    >>> rate.wait("ann"), rate.wait("bob")
    (0.0, 0.0)
    """

    def __init__(self, per_second: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.per_second = per_second
        self._room = max(1.0, per_second * BURST_SECONDS)
        self._clock = clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._lock = threading.Lock()

    def wait(self, name: str) -> float:
        """Take one of what is left, or say in how many seconds there will be one; 0.0 if it was taken."""
        with self._lock:
            now = self._clock()
            left, since = self._left.get(name, (self._room, now))
            left = min(self._room, left + (now - since) * self.per_second)
            if left < 1:
                return (1 - left) / self.per_second
            self._left[name] = (left - 1, now)
            self._left.move_to_end(name)
            while len(self._left) > MOST_KNOWN:
                self._left.popitem(last=False)
            return 0.0


def bounded(receive: Receive, *, most: int) -> Receive:
    """The same body, until it is longer than allowed.

    Raises ``HTTPException`` then.
    """
    got = 0

    async def _receive() -> Message:
        nonlocal got
        message = await receive()
        if message["type"] == "http.request":
            got += len(message.get("body", b""))
            if got > most:
                raise too_large(most)
        return message

    return _receive


def too_large(most: int) -> HTTPException:
    """What is said of a body that is too long; of FastAPI's own kind, or it would be taken for a body of no JSON."""
    return HTTPException(
        413, f"A request may have {most:,} bytes. Send less at once, or raise `service.api.most_megabytes`."
    )


def check_number(events: int, *, most: int) -> None:
    """Raise ``ProblemError`` if there are more events than allowed."""
    if events > most:
        text = f"expected at most {most:,} (`service.api.most_events`), received {events:,}"
        raise ProblemError(422, "Too many events.", fields={"events": text})
