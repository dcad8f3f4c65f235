"""Failures on demand, so that tests can show what a crash leaves behind; off unless an environment variable says so.

``DETECTOR_FAULT=point:n`` kills this process, as ``kill -9`` would, the n-th time it comes to that point. A third word
asks for something else: ``point:n:full`` is a full disk, ``point:n:pause`` stands still for a minute.
"""

from __future__ import annotations

import errno
import os
import signal
import threading
import time
from collections import Counter

VARIABLE = "DETECTOR_FAULT"
PAUSE_SECONDS = 60.0

_passed: Counter[str] = Counter()
_counting = threading.Lock()


def failpoint(point: str) -> None:
    """Go on, unless a failure was asked for at this point.

    Raises ``OSError`` if the disk is full.

    >>> failpoint("score.claimed")
    """
    wanted = os.environ.get(VARIABLE)
    if not wanted:
        return
    name, _, rest = wanted.partition(":")
    if name != point:
        return
    number, _, kind = rest.partition(":")
    with _counting:
        _passed[point] += 1
        is_due = _passed[point] == int(number or 1)
    if not is_due:
        return
    if kind == "full":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if kind == "pause":
        time.sleep(PAUSE_SECONDS)
        return
    os.kill(os.getpid(), signal.SIGKILL)
