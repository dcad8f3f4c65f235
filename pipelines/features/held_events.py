"""Events that were scored on request and have not come through the source yet: later ones count them all the same.

The past that is kept moves with the source alone, so a restart or a restore loses nothing of it. What was scored on
request lies beside, in the database, by its key; it is let go in the transaction of the batch that brings it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.orm import Session

from detector.features import History
from detector.features.excerpt import KnownBy, excerpt, known_rows
from pipelines.features.engine import FeatureEngine
from pipelines.features.held_by_entity import HeldByEntity, HeldRow, read_held
from pipelines.features.plain_frame import framed
from pipelines.store import Store, chunks
from pipelines.store.access_tables import HeldEvent

_WAIT = (
    HeldEvent.source == sa.bindparam("source", type_=sa.String),
    HeldEvent.at > sa.bindparam("since", type_=HeldEvent.at.type),
)
_COUNT = sa.select(sa.func.count()).select_from(HeldEvent).where(*_WAIT)
_NEW = (
    sa.select(*HeldEvent.__table__.columns)
    .where(*_WAIT, HeldEvent.id > sa.bindparam("after", type_=sa.BigInteger))
    .order_by(HeldEvent.id)
)
_REPLACED = sa.delete(HeldEvent.__table__).where(  # type: ignore[arg-type]  # it is a table
    HeldEvent.source == sa.bindparam("of", type_=sa.String), HeldEvent.key == sa.bindparam("name", type_=sa.String)
)
_KEPT = sa.insert(HeldEvent.__table__)  # type: ignore[arg-type]


class HeldEvents:
    """The events of one source that wait for it, kept in memory as the database has them.

    - ``hours``: how long one waits at most.
    """

    def __init__(self, store: Store, source: str, *, hours: float) -> None:
        self.store = store
        self.source = source
        self.hours = hours
        self._lock = threading.Lock()
        self._rows: dict[str, HeldRow] = {}
        self._last = 0
        self._gone: Hashable = None
        self._near: HeldByEntity | None = None

    def since(self, now: datetime) -> datetime:
        """Those that were scored until then wait no longer."""
        return now - timedelta(hours=self.hours)

    def frame(self, *, now: datetime) -> pd.DataFrame:
        """All of them, as they came, under their keys as text."""
        with self.store.look() as connection, self._lock:
            self._drop_old(now)
            self._take(connection, {"since": self.since(now), "after": self._last})
            self._reconcile(connection, now=now)
            rows = framed(each.row for each in self._rows.values())
            return rows.set_axis(list(self._rows), axis="index")

    def follow(self, connection: Connection, *, last: int, gone: Hashable, now: datetime) -> None:
        """Take over what a look at the state has of them.

        - ``last``: the number of the latest, of whichever source.
        - ``gone``: what changes wherever some were let go before their time: by a batch, or by somebody who leaves a
          trail. Only then are they counted, which takes longer the more there are.
        """
        with self._lock:
            self._drop_old(now)
            if last > self._last:
                self._take(connection, {"since": self.since(now), "after": self._last})
                self._last = last
            if gone != self._gone:
                self._reconcile(connection, now=now)
                self._gone = gone

    def near(self, engine: FeatureEngine, rows: KnownBy) -> dict[str, HeldRow]:
        """Those that share an entity with some event, by their keys as text: others cannot change its features."""
        with self._lock:
            found = self._by_entity(engine).keys(rows)
            return {key: self._rows[key] for key in found}

    def read_near(
        self, engine: FeatureEngine, row: KnownBy, *, latest: np.datetime64, but: Callable[[str], bool]
    ) -> list[Mapping[str, Any]]:
        """The same for one event, as ``read_one`` returns them.

        - ``latest``: the latest time that one may have.
        - ``but``: says of a key whether it is left out.

        Raises ``NotPlainError`` if it takes a frame to say what is known of one of them.
        """
        with self._lock:
            near = self._by_entity(engine)
            return [near.read(key, latest=latest) for key in near.keys(row) if not but(key)]

    def _by_entity(self, engine: FeatureEngine) -> HeldByEntity:
        if self._near is None or self._near.engine is not engine:
            self._near = HeldByEntity(engine, self._rows)
        return self._near

    def _drop_old(self, now: datetime) -> None:
        oldest = self.since(now)
        while self._rows and (first := next(iter(self._rows.items())))[1].at <= oldest:
            self._let_go(first[0])

    def _reconcile(self, connection: Connection, *, now: datetime) -> None:
        """Read all of them where there are not as many as in memory."""
        since = {"since": self.since(now)}
        if connection.execute(_COUNT, since | {"source": self.source}).scalar_one() == len(self._rows):
            return
        for key in list(self._rows):
            self._let_go(key)
        self._take(connection, since | {"after": 0})

    def _take(self, connection: Connection, given: dict[str, Any]) -> None:
        for line in connection.execute(_NEW, given | {"source": self.source}):
            self._let_go(line.key)
            self._rows[line.key] = HeldRow(line.row, line.at)
            self._last = max(self._last, line.id)
            if self._near is not None:
                self._near.add(line.key, line.row)

    def _let_go(self, key: str) -> None:
        if self._rows.pop(key, None) is not None and self._near is not None:
            self._near.take_away(key)

    def hold(self, rows: Mapping[str, HeldRow]) -> int:
        """Keep events by their keys, all or none of them; one with the same key is replaced.

        One whose key no database takes is left out. Returns how many were kept.
        """
        lines = [
            {"source": self.source, "key": key, "row": held.row, "at": held.at}
            for key, held in rows.items()
            if "\x00" not in key
        ]
        if lines:
            with self.store.write() as session:
                connection = session.connection()
                connection.execute(_REPLACED, [{"of": self.source, "name": line["key"]} for line in lines])
                connection.execute(_KEPT, lines)
        return len(lines)


def release(session: Session, source: str, keys: Iterable[str]) -> None:
    """Let go of events, as the source has brought them."""
    for some in chunks(keys):
        session.execute(sa.delete(HeldEvent).where(HeldEvent.source == source, HeldEvent.key.in_(some)))


def measure_ahead(
    engine: FeatureEngine,
    history: History,
    frame: pd.DataFrame,
    held: Mapping[str, HeldRow],
    *,
    now: datetime,
    typed: pd.DataFrame,
    known_by: KnownBy,
) -> tuple[pd.DataFrame, dict[Any, str], set[Any]]:
    """The features of rows as the next batch would give them; history and engine stay as they are.

    - ``held``: other events that count as well, by their keys as text.
    - ``typed``: the rows of ``frame`` as the engine's reader returns them; ``known_by``: what the past knows them by.

    Returns the rows with their features; by label, why some cannot have any; and the labels of those in the past.
    """
    beside = read_held(engine, [each.row for each in held.values()]).set_axis(list(held)) if held else None
    every = known_by if beside is None else known_by.joined(KnownBy.of(history, beside))
    known = known_rows(history, every)
    past = excerpt(history, every) if known.any() else history
    found = engine.peek(frame, history=past, now=pd.Timestamp(now), typed=typed, beside=beside)
    why = dict(zip(found.unusable.index.tolist(), found.why, strict=True))
    return found.rows, why, set(frame.index[known[: len(frame)]].tolist())
