"""Work on one item while the next is made."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from pipelines.prefetch import TOGETHER, prefetch, worked_on


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


def test_worked_on_keeps_the_order_and_works_meanwhile() -> None:
    """The second item is worked on while the first still is, and yet comes second."""
    second = threading.Event()

    def work(number: int) -> int:
        if number == 1:
            assert second.wait(timeout=10)
        if number == 2:
            second.set()
        return 10 * number

    assert list(worked_on(work, iter([1, 2, 3]))) == [(1, 10), (2, 20), (3, 30)]


def test_worked_on_takes_no_more_than_it_can_hold() -> None:
    """However many there are, and however slow whoever uses them is."""
    taken = []

    def numbers() -> Iterator[int]:
        for number in range(100):
            taken.append(number)
            yield number

    found = worked_on(str, numbers())

    assert next(found) == (0, "0")
    assert len(taken) == TOGETHER + 1
    assert next(found) == (1, "1")
    assert len(taken) == TOGETHER + 2


def test_worked_on_raises_where_the_item_would_have_come() -> None:
    """What was worked on before is not lost."""
    found = worked_on(lambda number: 1 // number, iter([1, 0, 1]))

    assert next(found) == (1, 1)
    with pytest.raises(ZeroDivisionError):
        next(found)
