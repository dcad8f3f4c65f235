"""Connections from anywhere: so many at once, and each request read within a deadline.

Whoever opens connections and says nothing, or sends a byte now and then, gets the oldest of them closed once there are
too many, so that others are heard, and file descriptors are left for the jobs.
"""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

PEER = "detector.peer"
"""Under which a request says where its connection comes from."""
MOST_CONNECTIONS = 100
READ_SECONDS = 10.0
"""For a whole request: its headers and its body, however often a byte of it comes."""

ANSWER_SECONDS = 60.0


class BoundedProtocol(H11Protocol):
    """uvicorn's protocol of one connection, which is cut when its time is up or its place is needed."""

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        """Begin, if there is room or another connection has nothing to say."""
        self._since = self.loop.time()
        if len(self.connections) >= MOST_CONNECTIONS:
            idle = [each for each in self.connections if isinstance(each, BoundedProtocol) and not each.is_read]
            if idle:
                min(idle, key=lambda each: each._since).cut()
            else:
                transport.abort()
        super().connection_made(transport)
        self._within(READ_SECONDS)

    @property
    def is_read(self) -> bool:
        """Whether a whole request is in hand; else the other side has more to send."""
        return self.conn.their_state not in (h11.IDLE, h11.SEND_BODY)

    def handle_events(self) -> None:
        """Take what has come; once that is a whole request, the time to answer it begins."""
        was_read = self.is_read
        super().handle_events()
        if self.is_read and not was_read:
            self._within(ANSWER_SECONDS)

    def on_response_complete(self) -> None:
        """Wait for the next request; without a word of it, uvicorn closes the connection sooner."""
        self._within(READ_SECONDS)
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._within(None)
        super().connection_lost(exc)

    def cut(self) -> None:
        """End at once, whatever is in hand."""
        self.connections.discard(self)
        self.transport.abort()

    def _within(self, seconds: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if seconds is None else self.loop.call_later(seconds, self.cut)


def bounds() -> dict[str, Any]:
    """Settings of uvicorn that go with it. The backlog is what one turn of its loop accepts."""
    return {"http": BoundedProtocol, "ws": "none", "backlog": 64, "timeout_graceful_shutdown": 2}
