"""Somebody asks for the file of the configuration to be read at once, and is told what became of it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from detector.errors import DataError, DetectorError
from pipelines.config.difference import listed
from pipelines.service.configuration_file import FoundConfiguration
from pipelines.store import Store
from pipelines.store.trail import write_down

PATIENCE = 10.0
"""Seconds to wait: the service looks once a second, and a file must not have changed for one."""


class RefusedError(DetectorError, ValueError):
    """The file cannot be taken over; the configuration before goes on."""


@dataclass(frozen=True)
class Reloaded:
    """What became of it.

    - ``changed``: settings that differ; they serve as soon as the batch in hand is done.
    - ``text``: the same in words.
    """

    changed: tuple[str, ...]
    text: str


class Reloads:
    """The desk for it between those who ask and the loop that reads.

    - ``ask``: has the next look read the file, whether it has changed or not.
    """

    def __init__(self, ask: Callable[[], None] | None) -> None:
        self._ask = ask
        self._looks = 0
        self._found: FoundConfiguration | None = None
        self._changed = threading.Condition()

    def looked(self, found: FoundConfiguration) -> None:
        """The file was read; called by the loop."""
        with self._changed:
            self._looks, self._found = self._looks + 1, found
            self._changed.notify_all()

    def reload(self, store: Store, *, who: str, reason: str, clock: Callable[[], datetime]) -> Reloaded:
        """Have the file read, wait for what becomes of it, and write down who asked.

        Raises ``RefusedError`` if it cannot be taken over, with the reason; ``DataError`` if this service has no file.
        """
        if self._ask is None:
            raise DataError("This service was given its configuration by a program, and has no file to read again.")
        with self._changed:
            before = self._looks
            self._ask()
            self._changed.wait_for(lambda: self._looks > before, timeout=PATIENCE)
            found = self._found if self._looks > before else None
        outcome = "not read yet" if found is None else "refused" if found.refused else "taken over"
        with store.write() as session:
            facts = {"outcome": outcome, "changed": list(found.changed if found else ()), "refused": ""}
            facts["refused"] = found.refused[:2_000] if found else ""
            write_down(session, "ask to reload", actor=who, reason=reason, arguments=facts, now=clock())
        if found is None:
            return Reloaded((), f"Not read within {PATIENCE:g} s; it is read as soon as the service comes to it.")
        if found.refused:
            raise RefusedError(f"The file is not taken over, the configuration before goes on: {found.refused}")
        if not found.changed:
            return Reloaded((), "The file says what serves already.")
        return Reloaded(found.changed, f"Taken over, as soon as the batch in hand is done: {listed(found.changed)}.")
