"""Events in order: entity after entity, each in order of (time, key)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from detector.arrays import Integers, Places, Times

HALF = 16


def by_entity(entity: Integers, order: Places) -> tuple[Places, Integers]:
    """Entity after entity, each in the order given, and how many rows each has; rows without one (-1) are left out.

    >>> by_entity(np.array([1, -1, 0, 1]), np.array([3, 2, 1, 0]))
    (array([2, 3, 0]), array([1, 2]))
    """
    if len(entity) and int(entity.min()) < 0:
        order = order[entity[order] >= 0]
    given = entity[order]
    return order[stable(given)], np.bincount(given)


def stable(entity: Integers) -> Places:
    """``argsort`` that keeps the order of equals, for codes from 0: by halves, as NumPy counts short integers.

    >>> stable(np.array([70_000, 1, 70_000, 0]))
    array([3, 1, 0, 2])
    """
    largest = int(entity.max(initial=0))
    if largest >= 1 << (2 * HALF):
        return np.argsort(entity, kind="stable")
    first = np.argsort((entity & 0xFFFF).astype(np.uint16), kind="stable")
    if largest < 1 << HALF:
        return first
    return first[np.argsort((entity[first] >> HALF).astype(np.uint16), kind="stable")]


def in_time(entity: Integers, time: Times) -> Places:
    """Entity after entity, each in order of time; equals stay as they are.

    >>> in_time(np.array([0, 0, 0]), np.array([2, 1, 2]))
    array([1, 0, 2])
    """
    order = stable(entity)
    back = (np.diff(time[order]) < 0) & (np.diff(entity[order]) == 0)
    return np.lexsort((time, entity)) if back.any() else order


def by_key(events: list[Any]) -> Places:
    """Positions in order of keys of any kind; None stays where it is.

    >>> by_key(["b", "a"])
    array([1, 0])
    """
    return np.argsort(pd.factorize(pd.Series(events, dtype=object), sort=True)[0], kind="stable")
