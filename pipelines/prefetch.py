"""Work on one item while the next is made."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")


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
