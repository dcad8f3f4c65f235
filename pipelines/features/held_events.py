"""Events that were scored on request and have not come through the source yet: later ones count them all the same.

The past that is kept moves with the source alone, so a restart or a restore loses nothing of it. What was scored on
request lies beside, in the database, by its key; it is let go in the transaction of the batch that brings it.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Container, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import chain
from typing import Any

import pandas as pd
import sqlalchemy as sa
from sqlalchemy.orm import Session

from detector.cleaning.plain import NotPlainError
from detector.features import History
from detector.features.excerpt import KnownBy
from detector.features.one_row import entity_name
from pipelines.features.engine import FeatureEngine, MeasuredRows
from pipelines.store import Store, chunks
from pipelines.store.access_tables import HeldEvent

Entity = tuple[tuple[str, ...], str]
NOTHING = (None, 0, False)
"""What a label says that says nothing."""
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
        self._near: _ByEntity | None = None

    def since(self, now: datetime) -> datetime:
        """Those that were scored until then wait no longer."""
        return now - timedelta(hours=self.hours)

    def frame(self, *, now: datetime) -> pd.DataFrame:
        """All of them, as they came, under their keys as text."""
        with self.store.read() as session, self._lock:
            self._drop_old(now)
            self._take(session, _NEW, {"source": self.source, "since": self.since(now), "after": self._last})
            self._reconcile(session, now=now)
            return framed_by_key(self._rows)

    def follow(self, session: Session, *, last: int, gone: Hashable, now: datetime) -> None:
        """Take over what a look at the state has of them.

        - ``last``: the number of the latest, of whichever source.
        - ``gone``: what changes wherever some were let go before their time: by a batch, or by somebody who leaves a
          trail. Only then are they counted, which takes longer the more there are.
        """
        with self._lock:
            self._drop_old(now)
            if last > self._last:
                self._take(session, _NEW, {"source": self.source, "since": self.since(now), "after": self._last})
                self._last = last
            if gone != self._gone:
                self._reconcile(session, now=now)
                self._gone = gone

    def near(self, engine: FeatureEngine, rows: KnownBy) -> dict[str, HeldRow]:
        """Those that share an entity with some event, by their keys as text: others cannot change its features."""
        with self._lock:
            found = self._by_entity(engine).keys(rows)
            return {key: self._rows[key] for key in self._rows if key in found} if found else {}

    def read_near(
        self, engine: FeatureEngine, row: KnownBy, *, now: datetime, but: Callable[[str], bool]
    ) -> list[Mapping[str, Any]]:
        """The same for one event, as ``FeatureEngine.read_one`` returns them.

        - ``but``: says of a key whether it is left out.

        Raises ``NotPlainError`` if it takes a frame to say what is known of one of them.
        """
        with self._lock:
            near = self._by_entity(engine)
            return [near.read(key, now=pd.Timestamp(now)) for key in near.keys(row) if not but(key)]

    def _by_entity(self, engine: FeatureEngine) -> _ByEntity:
        if self._near is None or self._near.engine is not engine:
            self._near = _ByEntity(engine, self._rows)
        return self._near

    def _drop_old(self, now: datetime) -> None:
        oldest = self.since(now)
        while self._rows and (first := next(iter(self._rows.items())))[1].at <= oldest:
            self._let_go(first[0])

    def _reconcile(self, session: Session, *, now: datetime) -> None:
        """Read all of them where there are not as many as in memory."""
        ours = {"source": self.source, "since": self.since(now)}
        if session.connection().execute(_COUNT, ours).scalar_one() == len(self._rows):
            return
        for key in list(self._rows):
            self._let_go(key)
        self._take(session, _NEW, ours | {"after": 0})

    def _take(self, session: Session, which: sa.Select[Any], given: Mapping[str, Any]) -> None:
        for line in session.connection().execute(which, given):
            self._let_go(line.key)
            self._rows[line.key] = HeldRow(line.row, line.at)
            self._last = max(self._last, line.id)
            if self._near is not None:
                self._near.add(line.key, line.row)

    def _let_go(self, key: str) -> None:
        if self._rows.pop(key, None) is not None and self._near is not None:
            self._near.take_away(key)

    def hold(self, rows: Mapping[str, Mapping[str, Any]], *, now: datetime) -> int:
        """Keep events, as they came, by their keys; one with the same key is replaced.

        One whose key no database takes is left out. Returns how many were kept.
        """
        lines = [
            {"source": self.source, "key": key, "row": dict(row), "at": now}
            for key, row in rows.items()
            if "\x00" not in key
        ]
        with self.store.write() as session:
            release(session, self.source, [str(line["key"]) for line in lines])
            if lines:
                session.execute(sa.insert(HeldEvent), lines)
        return len(lines)


@dataclass(frozen=True)
class HeldRow:
    """An event that waits: as it came, and when it was scored."""

    row: Mapping[str, Any]
    at: datetime


class _ByEntity:
    """Held events by the entities that features know them by.

    - ``engine``: reads them.
    """

    def __init__(self, engine: FeatureEngine, rows: Mapping[str, HeldRow]) -> None:
        self.engine = engine
        self._typed: dict[str, Mapping[str, Any]] = {}
        self._keys: dict[Entity, dict[str, None]] = {}
        self._labelled: set[str] = set()
        for key, held in rows.items():
            self.add(key, held.row)

    def add(self, key: str, row: Mapping[str, Any]) -> None:
        typed = self._read(row)
        if typed is None:
            return
        self._typed[key] = typed
        if any(row.get(name) not in NOTHING for name in self.engine.reader.optional):
            self._labelled.add(key)
        for entity in self._entities(typed):
            self._keys.setdefault(entity, {})[key] = None

    def take_away(self, key: str) -> None:
        self._labelled.discard(key)
        typed = self._typed.pop(key, None)
        for entity in () if typed is None else self._entities(typed):
            keys = self._keys.get(entity, {})
            keys.pop(key, None)
            if not keys:
                self._keys.pop(entity, None)

    def keys(self, rows: KnownBy) -> set[str]:
        if not self._keys:
            return set()
        return {key for entity in rows.entities() for key in self._keys.get(entity, ())}

    def read(self, key: str, *, now: pd.Timestamp) -> Mapping[str, Any]:
        self.engine.check_one(self._typed[key], now=now)
        if self._is_told(key):
            raise NotPlainError
        return self._typed[key]

    def _read(self, row: Mapping[str, Any]) -> dict[str, Any] | None:
        """An event as ``FeatureEngine.read_one`` returns it; None if it has no time."""
        reader, time = self.engine.reader, self.engine.features.time
        try:
            return reader.read_one(row)
        except NotPlainError:
            (typed,) = reader.read(framed([row])).to_dict("records")
        if typed[time] is pd.NaT:
            return None
        return {str(name): value for name, value in typed.items()} | {time: typed[time].to_datetime64()}

    def _is_told(self, key: str) -> bool:
        """Whether something may be known of an event already that features are made of."""
        if not self.engine.features.knows:
            return False
        return key in self._labelled or self.engine.reader.statements.may_be_about(key)

    def _entities(self, typed: Mapping[str, Any]) -> Iterator[Entity]:
        for by in self.engine.features.groups:
            if (name := entity_name(typed, by)) is not None:
                yield by, name


def release(session: Session, source: str, keys: Iterable[str]) -> None:
    """Let go of events, as the source has brought them."""
    for some in chunks(keys):
        session.execute(sa.delete(HeldEvent).where(HeldEvent.source == source, HeldEvent.key.in_(some)))


def framed(rows: Iterable[Mapping[str, Any]], columns: Container[str] | None = None) -> pd.DataFrame:
    """Rows of plain values as a frame that changes none of them, with these columns or all.

    >>> framed([{"n": 1, "x": 2}, {"n": None, "x": 3}]).dtypes.astype(str).to_dict()
    {'n': 'object', 'x': 'int64'}
    """
    listed = list(rows)
    names = dict.fromkeys(chain.from_iterable(listed))
    wanted = names if columns is None else [name for name in names if name in columns]
    found = {name: _typed([row.get(name) for row in listed]) for name in wanted}
    return pd.DataFrame(found, index=range(len(listed)))


def plain(value: Any) -> Any:
    """A value as JSON can hold it.

    >>> plain(float("nan")), plain(pd.Timestamp("2026-03-01")), plain(3)
    (None, '2026-03-01T00:00:00', 3)
    """
    if value is None or value is pd.NaT or value is pd.NA or (isinstance(value, float) and not math.isfinite(value)):
        return None
    return value.isoformat() if isinstance(value, pd.Timestamp) else value


def framed_by_key(held: Mapping[str, HeldRow]) -> pd.DataFrame:
    """Events that wait, as they came, under their keys."""
    if not held:
        return pd.DataFrame()
    return framed(each.row for each in held.values()).set_axis(list(held), axis="index")


def _typed(values: list[Any]) -> list[Any] | pd.Series:
    """Values for a column; beside a missing one a large number would be rounded, so these stay as they are."""
    return pd.Series(values, dtype=object) if None in values else values


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
    known_by: KnownBy,
) -> MeasuredRows:
    """The features of rows as the next batch would give them; history and engine stay as they are.

    - ``held``: other events that count as well, under labels that are none of ``frame``.
    - ``typed``, ``known_by``: the rows of ``frame`` as the engine's reader returns them, and what the past knows them
      by.
    """
    if held.empty:
        return engine.beside(history, known_by).push(frame, now=pd.Timestamp(now), typed=typed)
    own = [name for name in engine.reader.needs if name in held]
    joined = pd.concat([held[own].astype(object), frame.astype(object)])
    every = pd.DataFrame({name: _inferred(joined[name]) for name in joined.columns})
    typed = engine.reader.read(every)
    found = engine.beside(history, KnownBy.of(history, typed)).push(every, now=pd.Timestamp(now), typed=typed)
    asked = found.quarantine["row"].isin(frame.index)
    return replace(found, rows=found.rows[found.rows.index.isin(frame.index)], quarantine=found.quarantine[asked])
