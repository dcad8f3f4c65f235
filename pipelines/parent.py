"""A process that works for another one ends with it, however that one ended: nobody is asked before SIGKILL."""

from __future__ import annotations

import multiprocessing
import os
import select
import threading
from collections.abc import Iterator
from contextlib import contextmanager

VARIABLE = "DETECTOR_PARENT"


@contextmanager
def lifeline() -> Iterator[tuple[int, dict[str, str]]]:
    """An end of a pipe to hand on to a process, and the variable by which ``end_with_parent`` finds it there.

    The other end stays open as long as this block lasts, or this process if that ends before.
    """
    handed_on, held = os.pipe()
    try:
        yield handed_on, {VARIABLE: str(handed_on)}
    finally:
        os.close(handed_on)
        os.close(held)


def end_with_parent() -> None:
    """From now on, end this process at once when the one that started it is gone.

    That is one with a ``lifeline``, or a worker of ``multiprocessing``; any other, such as a command that somebody
    typed, goes on whoever ends.
    """
    parent, handed_on = multiprocessing.parent_process(), os.environ.pop(VARIABLE, None)
    if parent is not None or handed_on is not None:
        end = int(handed_on or 0) if parent is None else parent.sentinel
        threading.Thread(target=_end_after, args=(end,), name="parent", daemon=True).start()


def _end_after(end: int) -> None:
    select.select([end], [], [])
    os._exit(1)
