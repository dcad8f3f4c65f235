"""Rows of the source that lie behind the cursor, read again in parts: the whole past need not fit memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import pandas as pd

from pipelines.features.engine import FeatureEngine

Frames = Iterable[pd.DataFrame]


def known_rows(engine: FeatureEngine, frames: Callable[[], Frames], learnt: pd.DataFrame | None) -> pd.DataFrame | None:
    """Rows of which something is known by now, and all others of the same moments; None if there are none.

    A history cannot tell rows of one moment apart, so all of them are reported to it together.

    - ``frames``: reads the source from its beginning; asked twice, the second time only where something is known.
    - ``learnt``: the rows of training, with what is known of them; they may lie in the source as well.
    """
    features = engine.features
    if features.turns is None:
        return None
    time, known = features.time, features.turns[0]

    def parts() -> Frames:
        yield from map(engine.typed, frames())
        if learnt is not None:
            yield learnt

    moments = np.unique(np.concatenate([rows.loc[rows[known].notna(), time].unique() for rows in parts()] or [[]]))
    if not len(moments):
        return None
    found = pd.concat([rows[rows[time].isin(moments)] for rows in parts()], ignore_index=True)
    return found[~engine.repeated(found)]


def rows_of_the_same_entities(
    engine: FeatureEngine, frames: Frames, own: pd.DataFrame, *, since: pd.Timestamp, until: pd.Timestamp
) -> pd.DataFrame:
    """The rows that features of ``own`` can look back to, as ``typed`` returns them.

    - ``frames``: the rows of the source.
    - ``since``, ``until``: within these, both included.
    """
    features = engine.features
    ways = [{name: own[name].unique() for name in by} for by in features.groups]
    found = []
    for frame in frames:
        rows = engine.typed(frame)
        rows = rows[rows[features.time].between(since, until)]
        shared = np.zeros(len(rows), dtype=bool)
        for way in ways:
            shared |= np.logical_and.reduce([rows[name].isin(values) for name, values in way.items()])
        found.append(rows[shared])
    every = pd.concat(found, ignore_index=True) if found else own.iloc[:0]
    return every[~engine.repeated(every)]
