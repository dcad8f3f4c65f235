"""The past of a few entities, taken out of a history: to look ahead in it while the whole stays as it is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pandas as pd

from detector.arrays import Flags
from detector.features.entities import many_of
from detector.features.entity_store import By
from detector.features.history import History
from detector.features.join import SEPARATOR, texts
from detector.features.layout import EMPTY
from detector.features.one_row import entity_name


@dataclass(frozen=True)
class KnownBy:
    """What a history knows some rows by.

    - ``keys``: of each row; None without keys.
    - ``names``: by each way to group rows, the entity of each row; None where part of it is missing.
    """

    keys: list[Any]
    names: Mapping[By, list[str | None]]

    @classmethod
    def of(cls, history: History, rows: pd.DataFrame) -> Self:
        """Of a frame with the key, if there is one, and the entities, as for ``History.push``."""
        key = history.features.key
        keys = [None] * len(rows) if key is None else rows[key].tolist()
        return cls(keys, {by: _names(rows, by) for by in history.stores})

    @classmethod
    def of_one(cls, history: History, row: Mapping[str, Any]) -> Self:
        """Of one typed row."""
        key = history.features.key
        return cls([None if key is None else row[key]], {by: [entity_name(row, by)] for by in history.stores})

    def joined(self, others: KnownBy) -> KnownBy:
        """The same of these rows and others."""
        names = {by: [*names, *others.names[by]] for by, names in self.names.items()}
        return KnownBy([*self.keys, *others.keys], names)

    def entities(self) -> Iterable[tuple[By, str]]:
        """Each entity once."""
        return ((by, name) for by, names in self.names.items() for name in dict.fromkeys(names) if name is not None)


def excerpt(history: History, rows: KnownBy) -> History:
    """The past of the entities of some rows alone, to be moved on while the history stays as it is.

    Rows that are in the past already, told by their key, are left out of it.

    >>> from detector.features.feature_set import FeatureSet
    >>> history = History(FeatureSet(("count by card over 1d",), time="time"))
    >>> rows = pd.DataFrame({"time": [pd.Timestamp("2024-01-01")] * 2, "card": ["c", "d"]})
    >>> _ = history.push(rows)
    >>> len(history), len(excerpt(history, KnownBy.of(history, rows[:1])))
    (2, 1)
    """
    found = history.emptied()
    for by, store in history.stores.items():
        size = store.layout.size
        for name, keys in _keys_by_entity(rows, by).items():
            packed, tail = store.entities.get(name, EMPTY), store.tails.get(name, ())
            known_from = len(packed) // size - len(tail)
            for place in reversed([place for place, each in enumerate(tail) if each in keys]):
                cut = (known_from + place) * size
                packed, tail = packed[:cut] + packed[cut + size :], (*tail[:place], *tail[place + 1 :])
            if packed:
                found.stores[by].put(name, packed, tail)
    return found


def known_rows(history: History, rows: KnownBy) -> Flags:
    """Which rows are in the past already, told by their key; a row that is too late to be pushed is not looked for.

    >>> from detector.features.feature_set import FeatureSet
    >>> history = History(FeatureSet(("count by card over 1d",), time="time", key="id"))
    >>> rows = pd.DataFrame({"id": [1, 2], "time": [pd.Timestamp("2024-01-01")] * 2, "card": ["c", "d"]})
    >>> _ = history.push(rows[:1])
    >>> known_rows(history, KnownBy.of(history, rows)).tolist()
    [True, False]
    """
    found = np.zeros(len(rows.keys), dtype=bool)
    if history.features.key is None:
        return found
    for by, names in rows.names.items():
        there = [name for name in names if name is not None]
        tails = dict(zip(there, many_of(history.stores[by].tails, there, ()), strict=True))
        given = zip(rows.keys, names, strict=True)
        found |= np.array([name in tails and key in tails[name] for key, name in given], dtype=bool)
    return found


def _names(rows: pd.DataFrame, by: By) -> list[str | None]:
    parts = [texts(rows[name]) for name in by]
    if len(parts) == 1:
        return parts[0]
    return [None if None in each else SEPARATOR.join(each) for each in zip(*parts, strict=True)]


def _keys_by_entity(rows: KnownBy, by: By) -> dict[str, set[Any]]:
    found: dict[str, set[Any]] = {}
    for name, key in zip(rows.names[by], rows.keys, strict=True):
        if name is not None:
            found.setdefault(name, set()).add(key)
    return found
