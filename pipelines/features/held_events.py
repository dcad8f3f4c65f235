"""Events that were scored on request and have not come through the source yet: later ones count them all the same.

The past that is kept moves with the source alone, so a restart or a restore loses nothing of it. What was scored on
request lies beside, in the database, by its key; it is let go in the transaction of the batch that brings it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pandas as pd
import sqlalchemy as sa
from sqlalchemy.orm import Session

from detector.features import History
from pipelines.features.engine import FeatureEngine, MeasuredRows
from pipelines.store import Store, chunks
from pipelines.store.access_tables import HeldEvent


class HeldEvents:
    """The events of one source that wait for it.

    - ``hours``: how long one waits at most.
    """

    def __init__(self, store: Store, source: str, *, hours: float) -> None:
        self.store = store
        self.source = source
        self.hours = hours
        self._lock = threading.Lock()
        self._state: tuple[int, int] | None = None
        self._frame = pd.DataFrame()

    def frame(self, *, now: datetime) -> pd.DataFrame:
        """All of them, as they came, under their keys as text; read again only where something has changed."""
        ours = (HeldEvent.source == self.source, HeldEvent.at > now - timedelta(hours=self.hours))
        with self._lock, self.store.read() as session:
            count, last = session.execute(sa.select(sa.func.count(), sa.func.max(HeldEvent.id)).where(*ours)).one()
            if self._state != (count, last or 0):
                found = session.execute(sa.select(HeldEvent.key, HeldEvent.row).where(*ours).order_by(HeldEvent.id))
                rows = {line.key: line.row for line in found}
                self._frame = framed(rows.values()).set_axis(list(rows), axis="index") if rows else pd.DataFrame()
                self._state = (count, last or 0)
            return self._frame

    def hold(self, rows: pd.DataFrame, keys: Sequence[str], *, now: datetime) -> int:
        """Keep events, as they came; one with the same key is replaced, one whose key no database takes is left out.

        Returns how many were kept.
        """
        lines = [
            {"source": self.source, "key": key, "row": row, "at": now}
            for key, row in zip(keys, rows.to_dict("records"), strict=True)
            if "\x00" not in key
        ]
        with self.store.write() as session:
            release(session, self.source, [str(line["key"]) for line in lines])
            if lines:
                session.execute(sa.insert(HeldEvent), lines)
        return len(lines)


def release(session: Session, source: str, keys: Iterable[str]) -> None:
    """Let go of events, as the source has brought them."""
    for some in chunks(keys):
        session.execute(sa.delete(HeldEvent).where(HeldEvent.source == source, HeldEvent.key.in_(some)))


def framed(rows: Iterable[dict[str, Any]]) -> pd.DataFrame:
    """Rows of plain values as a frame that changes none of them.

    >>> framed([{"n": 1, "x": 2}, {"n": None, "x": 3}]).dtypes.astype(str).to_dict()
    {'n': 'object', 'x': 'int64'}
    """
    listed = list(rows)
    names = dict.fromkeys(name for row in listed for name in row)
    return pd.DataFrame({name: _typed([row.get(name) for row in listed]) for name in names})


def _typed(values: list[Any]) -> list[Any] | pd.Series:
    """Values for a column; beside a missing one a large number would be rounded, so these stay as they are."""
    return pd.Series(values, dtype=object) if any(value is None for value in values) else values


def _inferred(column: pd.Series) -> pd.Series:
    return column if column.isna().any() else column.infer_objects()


def measure_ahead(
    engine: FeatureEngine,
    history: History,
    frame: pd.DataFrame,
    held: pd.DataFrame,
    *,
    now: datetime,
    typed: pd.DataFrame,
) -> MeasuredRows:
    """The features of rows as the next batch would give them; history and engine stay as they are.

    - ``held``: other events that count as well, under labels that are none of ``frame``.
    - ``typed``: the rows of ``frame`` as the engine's reader returns them.
    """
    every = frame
    if not held.empty:
        own = [name for name in engine.reader.needs if name in held]
        joined = pd.concat([held[own].astype(object), frame.astype(object)])
        every = pd.DataFrame({name: _inferred(joined[name]) for name in joined.columns})
        typed = engine.reader.read(every)
    found = engine.beside(history, typed).push(every, now=pd.Timestamp(now), typed=typed)
    asked = found.quarantine["row"].isin(frame.index)
    return replace(found, rows=found.rows[found.rows.index.isin(frame.index)], quarantine=found.quarantine[asked])


def related(engine: FeatureEngine, held: pd.DataFrame, frame: pd.DataFrame) -> pd.DataFrame:
    """Those held events that share an entity with some row: others cannot change its features."""
    if held.empty:
        return held
    near = pd.Series(data=False, index=held.index)
    for by in engine.features.groups:
        same = pd.Series(data=True, index=held.index)
        for name in by:
            same &= held[name].astype(str).isin(set(frame[name].astype(str)))
        near |= same
    return held[near]
