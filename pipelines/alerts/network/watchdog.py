"""Ends exchanges that take too long, though bytes may still trickle in. One thread for all: a timer each is slow."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

LOOK_EVERY = 0.2


class HasSocket(Protocol):
    """A connection."""

    sock: socket.socket | None


@dataclass
class Watched:
    """An exchange under way.

    Parameters
    ----------
    connection : HasSocket
        Whose socket to shut.
    until : float
        By the monotonic clock.
    late : bool
        Whether it was shut.
    """

    connection: HasSocket
    until: float
    late: bool = False


class Watchdog:
    """Shuts the sockets of exchanges that are late."""

    def __init__(self) -> None:
        self._watched: dict[int, Watched] = {}
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    @contextmanager
    def watch(self, connection: HasSocket, seconds: float) -> Iterator[Watched]:
        """Within it, the connection has so many seconds."""
        watched = Watched(connection, time.monotonic() + seconds)
        with self._lock:
            self._watched[id(watched)] = watched
            if self._thread is None or not self._thread.is_alive():  # also after a fork
                self._thread = threading.Thread(target=self._run, name="http-watchdog", daemon=True)
                self._thread.start()
        try:
            yield watched
        finally:
            with self._lock:
                del self._watched[id(watched)]

    def _run(self) -> None:
        while True:
            time.sleep(LOOK_EVERY)
            now = time.monotonic()
            with self._lock:
                late = [each for each in self._watched.values() if now > each.until]
            for each in late:
                each.late = True
                if (raw := each.connection.sock) is not None:
                    _shut(raw)


def _shut(raw: socket.socket) -> None:
    try:
        raw.shutdown(socket.SHUT_RDWR)
    except OSError:
        return


WATCHDOG = Watchdog()
