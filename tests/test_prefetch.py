"""Work on one item while the next is made."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from pipelines.prefetch import prefetch


def test_ahead_makes_the_next_item_meanwhile() -> None:
    """While the first item is used, the second is being made."""
    made = threading.Event()

    def numbers() -> Iterator[int]:
        yield 1
        made.set()
        yield 2

    items = prefetch(numbers())

    assert next(items) == 1
    assert made.wait(timeout=10)
    assert list(items) == [2]


def test_ahead_raises_where_the_item_would_have_come() -> None:
    """Items before an error are not lost, and the error is passed on."""

    def numbers() -> Iterator[int]:
        yield 1
        raise OSError("the disk is gone")

    items = prefetch(numbers())

    assert next(items) == 1
    with pytest.raises(OSError, match="the disk is gone"):
        next(items)


def test_ahead_can_be_left_early() -> None:
    """Who stops listening is not kept waiting for the rest."""
    items = prefetch(iter(range(1_000_000)))

    assert next(items) == 0
    items.close()
    assert list(items) == []
