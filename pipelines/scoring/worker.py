"""A thread that does what has come, all at once, as long as something comes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

Thing = TypeVar("Thing")

PATIENCE = 10.0
"""Seconds without anything to do after which the thread ends."""


class Worker(Generic[Thing]):
    """Does things in the order in which they come, by a thread of its own.

    - ``work``: does some at once; it must not raise.
    - ``most``: how many at once; all that wait by default.

    >>> done, together = threading.Event(), list[list[int]]()
    >>> worker = Worker("example", lambda some: (together.append(list(some)), done.set()))
    >>> worker.put([1, 2])
    >>> done.wait(5), together
    (True, [[1, 2]])
    """

    def __init__(self, name: str, work: Callable[[Sequence[Thing]], object], *, most: int | None = None) -> None:
        self._name = name
        self._work = work
        self._most = most
        self._changed = threading.Condition(threading.Lock())
        self._waiting: list[Thing] = []
        self._runs = False

    def put(self, things: Sequence[Thing], *, first: bool = False) -> None:
        """Have things done, before those that wait if they are to be first."""
        if not things:
            return
        with self._changed:
            self._waiting = [*things, *self._waiting] if first else [*self._waiting, *things]
            if not self._runs:
                self._runs = True
                threading.Thread(target=self._run, name=self._name, daemon=True).start()
            self._changed.notify()

    def take_back(self) -> list[Thing]:
        """The things that wait, which will not be done here."""
        with self._changed:
            some, self._waiting = self._waiting, []
            return some

    def _run(self) -> None:
        try:
            while some := self._next():
                self._work(some)
        except BaseException:
            with self._changed:
                self._runs = False
            raise

    def _next(self) -> list[Thing]:
        """Those to be done now; none once the thread is to end."""
        with self._changed:
            if not self._waiting:
                self._changed.wait(PATIENCE)
            some, self._waiting = self._waiting[: self._most], self._waiting[self._most or len(self._waiting) :]
            self._runs = bool(some)
            return some
