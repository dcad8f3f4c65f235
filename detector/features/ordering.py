"""Where new events belong among stored ones, in order of (time, key)."""

from __future__ import annotations

from itertools import repeat
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from detector.features.track import Ints


def place_of(time: Ints, keys: tuple[Any, ...], moment: int, key: Any) -> tuple[int, tuple[Any, ...]]:
    """Where a row belongs in a past, and the keys of the last events with its own among them."""
    place = int(np.searchsorted(time, moment, side="right"))
    if key is None:
        return place, ()
    known_from = len(time) - len(keys)
    while place > known_from and time[place - 1] == moment and keys[place - 1 - known_from] > key:
        place -= 1
    at = place - known_from
    return place, (*keys[:at], key, *keys[at:]) if at >= 0 else keys


def inserted(events: Ints, place: int, value: int) -> Ints:
    """Events with one more at a place."""
    grown = np.empty(len(events) + 1, dtype=np.int64)
    grown[:place], grown[place], grown[place + 1 :] = events[:place], value, events[place:]
    return grown


def padded(tail: tuple[Any, ...], size: int) -> list[Any]:
    """One key an event; None where it is no longer kept, because no row can tie with it."""
    return [*repeat(None, size - len(tail)), *tail]


def order_of(time: Ints, entity: Ints, keys: list[Any]) -> NDArray[np.intp]:
    """Entity after entity, in order of (time, key); what has no key stays where it is."""
    if not any(key is not None for key in keys):
        return np.lexsort((time, entity))
    rank = pd.factorize(pd.Series(keys, dtype=object), sort=True)[0]
    return np.lexsort((rank, time, entity))
