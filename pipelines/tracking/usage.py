"""What a long piece of work took of the machine: memory and processor, a line every second."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MOST_POINTS = 300
_PAGE = os.sysconf("SC_PAGE_SIZE")

Point = tuple[int, str, float]
"""Milliseconds since 1970, what was measured, its value."""


@contextmanager
def measured(*, every: float = 1.0) -> Iterator[list[Point]]:
    """Measure this process while the ``with`` block runs.

    - ``every``: seconds between two looks; they become rarer as the work goes on, so that there are at most 300.

    Yields a list that is filled while the block runs, and whole after it.

    >>> with measured() as points:
    ...     pass
    >>> sorted({name for _, name, _ in points})
    ['process_cpu_percentage', 'process_memory_megabytes']
    """
    points: list[Point] = []
    ended = threading.Event()

    def look() -> None:
        pause, cpu, at = every, time.process_time(), time.monotonic()
        while True:
            over = ended.wait(pause)
            now, spent = time.monotonic(), time.process_time()
            stamp = time.time_ns() // 1_000_000
            points.append((stamp, "process_cpu_percentage", 100.0 * (spent - cpu) / max(now - at, 1e-6)))
            points.append((stamp, "process_memory_megabytes", _resident()))
            cpu, at = spent, now
            if len(points) > MOST_POINTS:
                del points[2::4], points[2::3]  # both figures of every second look
                pause *= 2
            if over:
                return

    thread = threading.Thread(target=look, name="usage", daemon=True)
    thread.start()
    try:
        yield points
    finally:
        ended.set()
        thread.join()


def _resident() -> float:
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 0.0
    return pages * _PAGE / 1e6
