"""Memory that the service no longer needs, given back to the system.

Every job runs in a thread, and glibc keeps what a thread has freed in an arena of its own; Python looks for cycles of
old objects only once there are many. Both grow for hours though nothing is held.
"""

from __future__ import annotations

import ctypes
import gc
import os
import time
from collections.abc import Callable

EVERY_SECONDS = 60.0
ARENAS = 2
_M_ARENA_MAX = -8  # of glibc's malloc.h


def share_arenas() -> None:
    """Have threads share two arenas, to be called before there are any: by default each of 8 a core keeps its most.

    Only glibc has them; where the variable MALLOC_ARENA_MAX is set, it decides.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None and "MALLOC_ARENA_MAX" not in os.environ:
        mallopt(_M_ARENA_MAX, ARENAS)


class FreeMemory:
    """Collects what is free every so often.

    What is there when it is made, and after the first round, are modules, settings and the detector. They are looked at
    no more: going through them takes a tenth of a second, in which no request is answered.

    >>> seconds = iter([0.0, 10.0, 70.0, 75.0])
    >>> free = FreeMemory(clock=lambda: next(seconds))
    >>> free.give_back(), free.give_back(), free.give_back()
    (False, True, False)
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last = clock()
        self._has_begun = False
        self._trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's; other systems give back by themselves
        gc.collect()
        gc.freeze()

    def give_back(self) -> bool:
        """Whether it was time, and was done."""
        now = self._clock()
        if now - self._last < EVERY_SECONDS:
            return False
        self._last = now
        gc.collect()
        if not self._has_begun:
            gc.freeze()
            self._has_begun = True
        if self._trim is not None:
            self._trim(ctypes.c_size_t(0))
        return True
