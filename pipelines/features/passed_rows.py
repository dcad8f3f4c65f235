"""Rows of the source that lie behind the cursor, read again in parts: the whole past need not fit memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipelines.features.engine import FeatureEngine

Frames = Iterable[pd.DataFrame]


def known_rows(engine: FeatureEngine, frames: Callable[[], Frames], learnt: pd.DataFrame | None) -> pd.DataFrame | None:
    """Rows of which something is known by now, and what a history cannot tell from them; None if there are none.

    Those are rows of the same moment and entity, and all of them are reported to it together. Rows that no feature
    looks back to any more are left out.

    - ``frames``: reads the source from its beginning; asked twice, the second time only where something is known.
    - ``learnt``: the rows of training, with what is known of them; they may lie in the source as well.
    """
    features = engine.features
    if features.turns is None:
        return None
    time, turn = features.time, features.turns[0]

    def parts() -> Frames:
        yield from map(engine.typed, frames())
        if learnt is not None:
            yield learnt

    said, latest = list[pd.DataFrame](), pd.Timestamp.min
    for rows in parts():
        said.append(rows[rows[turn].notna()])
        latest = max(latest, rows[time].max()) if len(rows) else latest
    known = pd.concat(said, ignore_index=True) if said else pd.DataFrame()
    known = known if known.empty else known[known[time] > latest - engine.reach - engine.lateness]
    if known.empty:
        return None
    ways = {features.grouped_by(each) for each in features.all if each.needs_label}
    alike = [rows[rows[time].isin(known[time]) & _shares(rows, known, ways)] for rows in parts()]
    found = pd.concat(alike, ignore_index=True)
    return found[~engine.repeated(found)]


def rows_of_the_same_entities(
    engine: FeatureEngine, frames: Frames, own: pd.DataFrame, *, since: pd.Timestamp, until: pd.Timestamp
) -> pd.DataFrame:
    """The rows that features of ``own`` can look back to, as ``typed`` returns them.

    - ``frames``: the rows of the source.
    - ``since``, ``until``: within these, both included.
    """
    found = [own.iloc[:0]]
    for rows in map(engine.typed, frames):
        inside = rows[rows[engine.features.time].between(since, until)]
        found.append(inside[_shares(inside, own, engine.features.groups)])
    every = pd.concat(found, ignore_index=True)
    return every[~engine.repeated(every)]


def _shares(rows: pd.DataFrame, own: pd.DataFrame, ways: Iterable[tuple[str, ...]]) -> NDArray[np.bool_]:
    """Which rows have an entity of ``own``, by any way to group rows; of several columns, each for itself."""
    shared = np.zeros(len(rows), dtype=bool)
    for by in ways:
        shared |= np.logical_and.reduce([rows[name].isin(own[name]).to_numpy() for name in by])
    return shared
