"""Held events by the entities that features know them by: those that can change what is said of an event."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

import numpy as np
import pandas as pd

from detector.cleaning.plain import NotPlainError
from detector.features.excerpt import KnownBy
from detector.features.one_row import entity_name
from pipelines.features.engine import FeatureEngine
from pipelines.features.one_row import check_one
from pipelines.features.plain_frame import framed, plain

Entity = tuple[tuple[str, ...], str]
NOTHING = (None, 0, False)
"""What a label says that says nothing."""


@dataclass(frozen=True)
class HeldRow:
    """An event that waits: as it came, and when it was scored."""

    row: Mapping[str, Any]
    at: datetime

    @classmethod
    def of(cls, row: Mapping[str, Any], columns: Iterable[str], *, now: datetime) -> Self:
        """Some columns of an event, those of them that it has."""
        return cls({name: plain(row[name]) for name in columns if name in row}, now)


class HeldByEntity:
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
        """Take in one that is not there yet."""
        typed = self._read(row)
        if typed is None:
            return
        self._typed[key] = typed
        if any(row.get(name) not in NOTHING for name in self.engine.reader.optional):
            self._labelled.add(key)
        for entity in self._entities(typed):
            self._keys.setdefault(entity, {})[key] = None

    def take_away(self, key: str) -> None:
        """Let go of one, if it is there."""
        self._labelled.discard(key)
        typed = self._typed.pop(key, None)
        for entity in () if typed is None else self._entities(typed):
            keys = self._keys.get(entity, {})
            keys.pop(key, None)
            if not keys:
                self._keys.pop(entity, None)

    def keys(self, rows: KnownBy) -> set[str]:
        """The keys of those that share an entity with some rows."""
        if not self._keys:
            return set()
        return {key for entity in rows.entities() for key in self._keys.get(entity, ())}

    def read(self, key: str, *, latest: np.datetime64) -> Mapping[str, Any]:
        """One as ``read_one`` returns it.

        Raises ``NotPlainError`` if it takes a frame to say what is known of it.
        """
        check_one(self.engine, self._typed[key], latest=latest)
        if self._is_told(key):
            raise NotPlainError
        return self._typed[key]

    def _read(self, row: Mapping[str, Any]) -> dict[str, Any] | None:
        """An event as ``read_one`` returns it; None if it has no time."""
        reader, time = self.engine.reader, self.engine.features.time
        try:
            return reader.read_one(row)
        except NotPlainError:
            (typed,) = read_held(self.engine, [row]).to_dict("records")
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


def read_held(engine: FeatureEngine, rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Held events as the engine's reader returns them; a column is missing in those held before features needed it."""
    frame = framed(rows)
    lacking = [name for name in engine.reader.needs if name not in frame and name not in engine.reader.optional]
    return engine.reader.read(frame.assign(**dict.fromkeys(lacking)))


class PendingEvents:
    """Events that were scored and are to be held, until their transaction has ended: later ones count them already.

    Threads may share it; one of them adds, and looks.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rows: dict[str, HeldRow] = {}
        self._held: dict[str, HeldRow] = {}
        self._near: HeldByEntity | None = None

    def add(self, key: str, held: HeldRow) -> None:
        """Count an event from now on; one of the same key is counted no more."""
        with self._lock:
            if self._near is not None:
                self._near.take_away(key)
                self._near.add(key, held.row)
            self._rows[key] = held

    def take_away(self, rows: Mapping[str, HeldRow]) -> None:
        """Count events no more, unless others of their keys have taken their place."""
        with self._lock:
            for key, held in rows.items():
                if self._rows.get(key) is held:
                    del self._rows[key]
                    if self._near is not None:
                        self._near.take_away(key)

    def note_held(self, rows: Mapping[str, HeldRow]) -> None:
        """Their transaction has ended well: the next look at the database has them."""
        with self._lock:
            self._held |= rows

    @contextmanager
    def settled(self) -> Iterator[None]:
        """Around a look at the database: what was held before it is pending no more after it."""
        with self._lock:
            held, self._held = self._held, {}
        try:
            yield
        except BaseException:
            self.note_held(held)
            raise
        self.take_away(held)

    def read_near(self, engine: FeatureEngine, row: KnownBy, *, latest: np.datetime64) -> dict[str, Mapping[str, Any]]:
        """Those that share an entity with an event, by their keys, as ``HeldByEntity.read`` returns them.

        Raises ``NotPlainError`` as that does.
        """
        with self._lock:
            if not self._rows:
                return {}
            if self._near is None or self._near.engine is not engine:
                self._near = HeldByEntity(engine, self._rows)
            return {key: self._near.read(key, latest=latest) for key in self._near.keys(row)}

    def __contains__(self, key: str) -> bool:
        return key in self._rows
