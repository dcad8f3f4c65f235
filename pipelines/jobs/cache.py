"""What a process keeps between the runs of its jobs: loaded detectors, feature state."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from typing import Any, TypeVar, cast

Kept = TypeVar("Kept")


class ProcessCache:
    """Keeps one value a name, as long as it is asked for under the same token. Threads may share it.

    >>> cache = ProcessCache()
    >>> cache.of("detector", "version 1", list) is cache.of("detector", "version 1", list)
    True
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._kept: dict[Hashable, tuple[object, Any]] = {}

    def of(self, name: Hashable, token: object, make: Callable[[], Kept]) -> Kept:
        """The value of that name, made anew if it was kept under another token."""
        with self._lock:
            found = self._kept.get(name)
            if found is None or found[0] != token:
                found = (token, make())
                self._kept[name] = found
            return cast("Kept", found[1])
