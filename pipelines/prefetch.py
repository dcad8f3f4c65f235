"""Work on one item while the next is made."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Made = TypeVar("Made")

TOGETHER = 2
"""Items worked on at the same time: while one passes through Python, the other is computed."""


def prefetch(items: Iterable[Item]) -> Iterator[Item]:
    """The same items in the same order, each made in another thread while the one before it is used.

    At most one item waits. An error while making an item is raised where the item would have come.

    >>> list(prefetch(n * n for n in range(4)))
    [0, 1, 4, 9]
    """
    iterator, done = iter(items), object()
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, iterator, done)
        while (item := coming.result()) is not done:
            coming = pool.submit(next, iterator, done)
            yield item  # type: ignore[misc]  # the end has been told apart above


def worked_on(work: Callable[[Item], Made], items: Iterable[Item]) -> Iterator[tuple[Item, Made]]:
    """Each item beside what work makes of it, in the order of the items, some worked on in other threads meanwhile.

    At most ``TOGETHER`` are worked on and one waits. An error of work is raised where its item would have come.

    >>> list(worked_on(lambda n: n * n, range(4)))
    [(0, 0), (1, 1), (2, 4), (3, 9)]
    """
    coming: deque[tuple[Item, Future[Made]]] = deque()
    with ThreadPoolExecutor(TOGETHER) as pool:
        for item in items:
            coming.append((item, pool.submit(work, item)))
            if len(coming) > TOGETHER:
                first, made = coming.popleft()
                yield first, made.result()
        for first, made in coming:
            yield first, made.result()
