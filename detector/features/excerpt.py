"""The past of a few entities, taken out of a history: to look ahead in it while the whole stays as it is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from detector.arrays import Flags
from detector.features.history import By, History
from detector.features.layout import EMPTY
from detector.features.one_row import entity_name


def excerpt(history: History, rows: pd.DataFrame) -> History:
    """The past of the entities of some rows alone, to be moved on while the history stays as it is.

    Rows that are in the past already, told by their key, are left out of it.

    Parameters
    ----------
    history : History
        The whole past.
    rows : DataFrame
        With the key, if there is one, and the entities, as for ``History.push``.

    >>> from detector.features.feature_set import FeatureSet
    >>> history = History(FeatureSet(("count by card over 1d",), time="time"))
    >>> rows = pd.DataFrame({"time": [pd.Timestamp("2024-01-01")] * 2, "card": ["c", "d"]})
    >>> _ = history.push(rows)
    >>> len(history), len(excerpt(history, rows[:1]))
    (2, 1)
    """
    return excerpt_of(history, _records(history, rows))


def excerpt_of(history: History, rows: Iterable[Mapping[str, Any]]) -> History:
    """The same for rows as mappings, typed."""
    found, rows = history.emptied(), list(rows)
    for by, layout in history.layouts.items():
        for name, keys in _keys_by_entity(history, rows, by).items():
            packed, tail = history.entities[by].get(name, EMPTY), history.tails[by].get(name, ())
            known_from = len(packed) // layout.size - len(tail)
            for place in reversed([place for place, each in enumerate(tail) if each in keys]):
                cut = (known_from + place) * layout.size
                packed, tail = packed[:cut] + packed[cut + layout.size :], (*tail[:place], *tail[place + 1 :])
            if packed:
                found.entities[by][name] = packed
            if tail:
                found.tails[by][name] = tail
    return found


def known_rows(history: History, rows: pd.DataFrame) -> Flags:
    """Which rows are in the past already, told by their key; a row that is too late to be pushed is not looked for.

    >>> from detector.features.feature_set import FeatureSet
    >>> history = History(FeatureSet(("count by card over 1d",), time="time", key="id"))
    >>> rows = pd.DataFrame({"id": [1, 2], "time": [pd.Timestamp("2024-01-01")] * 2, "card": ["c", "d"]})
    >>> _ = history.push(rows[:1])
    >>> known_rows(history, rows).tolist()
    [True, False]
    """
    return np.array([is_known(history, row) for row in _records(history, rows)], dtype=bool)


def is_known(history: History, row: Mapping[str, Any]) -> bool:
    """The same of one row, typed."""
    key = history.features.key
    if key is None:
        return False
    names = ((by, entity_name(row, by)) for by in history.layouts)
    return any(name is not None and row[key] in history.tails[by].get(name, ()) for by, name in names)


def _keys_by_entity(history: History, rows: Iterable[Mapping[str, Any]], by: By) -> dict[str, set[Any]]:
    key, found = history.features.key, dict[str, set[Any]]()
    for row in rows:
        if (name := entity_name(row, by)) is not None:
            found.setdefault(name, set()).add(None if key is None else row[key])
    return found


def _records(history: History, rows: pd.DataFrame) -> list[dict[Any, Any]]:
    key, columns = history.features.key, dict.fromkeys(name for by in history.layouts for name in by)
    named = list(columns if key is None else columns | {key: None})
    records: list[dict[Any, Any]] = rows[named].to_dict("records")
    return records
