"""The sequence view: each row with the last events of its entity before it, for encoders of sequences."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from detector.errors import SchemaError, SettingError, nearest
from detector.features import table as reading
from detector.schema import Schema


def latest_events(rows: pd.DataFrame, schema: Schema, columns: Sequence[str], *, k: int) -> NDArray[np.float64]:
    """The last k events of each row's entity, the row itself the last of them.

    A row sees only what comes before it in the order of (time, key). Where there are fewer than k events the window
    begins with NaN, which ``RecurrentAutoencoder`` and ``TransformerAutoencoder`` skip: so windows are of any length.

    Parameters
    ----------
    rows : DataFrame of shape (n_rows, ...)
        As ``clean`` returns them.
    schema : Schema
        Names entity and time, and the key if there is one.
    columns : sequence of str
        Numbers: amounts, ratios, minutes since the event before.
    k : int
        Longest window.

    Returns
    -------
    array of shape (n_rows, k, n_columns)
        In the order of the rows; a row without an entity sees itself only.

    Raises
    ------
    SchemaError
        If the schema names no entity or time, or a column is missing.
    SettingError
        If ``k`` is below 1.

    >>> rows = pd.DataFrame({"card": ["a", "b", "a"], "amount": [1.0, 2.0, 3.0]})
    >>> rows["time"] = pd.to_datetime(["2024-01-01", "2024-01-02", "2024-01-03"])
    >>> latest_events(rows, Schema(entity="card", time="time"), ["amount"], k=2)[:, :, 0]
    array([[nan,  1.],
           [nan,  2.],
           [ 1.,  3.]])
    """
    if schema.entity is None or schema.time is None:
        raise SchemaError("Latest events need an entity and a time. Name both in the schema.")
    if k < 1:
        raise SettingError(f"k must be at least 1. Received: k={k}.")
    for name in (schema.entity, schema.time, *columns):
        if name not in rows.columns:
            raise SchemaError(f"Column {name!r} is missing from the table. {nearest(name, map(str, rows.columns))}")
    order = reading.ordered(reading.times(rows[schema.time]), rows[schema.key] if schema.key else None)
    entity = reading.groups(rows, [schema.entity])
    entity = np.where(entity < 0, len(rows) + np.arange(len(rows)), entity)
    order = order[np.argsort(entity[order], kind="stable")]
    first = np.searchsorted(entity[order], entity[order])
    place = np.arange(len(rows))[:, None] - np.arange(k - 1, -1, -1)
    values = rows[list(columns)].to_numpy(dtype=np.float64, na_value=np.nan)[order]
    there = place >= first[:, None]
    windows = np.where(there[:, :, None], values[np.maximum(place, 0)], np.nan)
    found = np.empty_like(windows)
    found[order] = windows
    return found
