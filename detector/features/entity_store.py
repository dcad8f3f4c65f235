"""The events of every entity of one way to group rows, as far back as features look."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detector.arrays import Integers
from detector.features.entities import Spilled, bytes_in_memory, count, discard, many_of
from detector.features.events import by_key
from detector.features.feature import Feature
from detector.features.feature_set import FeatureSet
from detector.features.join import SEPARATOR, Keys
from detector.features.labels import with_turns
from detector.features.layout import EMPTY, Layout
from detector.features.one_event import EntityEvents, Query

By = tuple[str, ...]
Entities = dict[str, bytes] | Spilled[bytes]
Tails = dict[str, Keys] | Spilled[Keys]
FEW_TAILS = 1_000


class EntityStore:
    """What a history keeps of the entities that rows are grouped by in one way.

    - ``layout``: how the events of an entity are packed.
    - ``queries``: what is asked of them.
    - ``entities``: the packed events of each entity: in memory, or in a folder (``features.spill``).
    - ``tails``: the keys of each entity's last events. Rows of one time are in the order of their keys, so these are
      needed as long as a row may still come among them; older events have no key any more.
    """

    def __init__(self, features: FeatureSet, by: By, measured: Iterable[Feature]) -> None:
        measured = list(measured)
        self.features = features
        self.by = by
        self.layout = Layout.of(measured)
        self.queries = [Query.of(feature) for feature in measured]
        self.entities: Entities = {}
        self.tails: Tails = {}
        self._tails_kept = 0

    def over(self, entities: Entities, tails: Tails) -> EntityStore:
        """The same way to group rows over other entities; nothing of the features is prepared anew."""
        other = EntityStore.__new__(EntityStore)
        other.__dict__.update(self.__dict__)
        other.entities, other.tails, other._tails_kept = entities, tails, 0
        return other

    def copy(self) -> EntityStore:
        """The same, to be changed apart; what is kept of an entity is shared until then."""
        return self.over(self.entities.copy(), self.tails.copy())

    @property
    def events(self) -> int:
        """How many events are kept."""
        return sum(map(len, self.entities.values())) // self.layout.size

    @property
    def bytes_in_memory(self) -> int:
        """About how many bytes of memory the events take."""
        return bytes_in_memory(self.entities)

    def put(self, name: str, packed: bytes, tail: Keys) -> None:
        """Keep this of an entity."""
        self.entities[name] = packed
        if tail:
            self.tails[name] = tail

    def inserted(
        self, name: str, values: Mapping[str, int], key: Any, *, open_from: int
    ) -> tuple[EntityEvents, bytes, Keys]:
        """An entity's events up to a row that comes to them, and what ``put`` is to keep of them from now on."""
        packed = self.entities.get(name, EMPTY)
        place, tail = self._place(name, packed, time=values["time"], key=key)
        cut = place * self.layout.size
        packed = b"".join((packed[:cut], self.layout.pack_one(values), packed[cut:]))
        events = self._events(self.layout.events(packed), place)
        return events, *self._in_reach(packed, events, tail, open_from)

    def merge(self, other: EntityStore, *, open_from: int) -> None:
        """Take in the events of other rows."""
        for name, added in other.entities.items():
            packed, tail = added, other.tails.get(name, ())
            if mine := self.entities.get(name, EMPTY):
                events = np.concatenate([self.layout.events(mine), self.layout.events(added)])
                every = [*self._padded(name), *other._padded(name)]
                order = by_key(every)
                order = order[np.argsort(events["time"][order], kind="stable")]
                events = events[order]
                tail = tuple(key for key in (every[place] for place in order) if key is not None)
                packed, tail = self._in_reach(events.tobytes(), self._events(events, 0), tail, open_from)
                discard(self.tails, [name])
            self.put(name, packed, tail)

    def forget(self, open_from: int) -> int:
        """Drop the entities whose events no feature looks back to; how many there were."""
        oldest = open_from - self.layout.reach
        return self._discard(
            [name for name, packed in self.entities.items() if self.layout.last_time(packed) <= oldest]
        )

    def drop(self, column: str, value: str) -> int:
        """Drop the entities with this value in this column; how many there were."""
        if column not in self.by:
            return 0
        place = self.by.index(column)
        return self._discard([name for name in self.entities if name.split(SEPARATOR)[place] == value])

    def write_turns(self, name: str | None, time: int, turns: Integers) -> bool:
        """Write down when the events of that time were known to be fraud, and no longer; whether there is any."""
        events = self.layout.events(EMPTY if name is None else self.entities.get(name, EMPTY))
        at = np.flatnonzero(events["time"] == time)
        if name is None or not len(at):
            return False
        if (changed := with_turns(events, at, turns, earlier=self.features.turns is None)) is not None:
            self.entities[name] = changed.tobytes()
        return True

    def drop_closed_tails(self, open_from: int) -> None:
        """Drop the tails that no row can come among any more, whenever the tails have doubled."""
        if count(self.tails) <= 2 * self._tails_kept + FEW_TAILS:
            return
        names = list(self.tails)
        last = map(self.layout.last_time, many_of(self.entities, names, EMPTY))
        shut = [name for name, time in zip(names, last, strict=True) if time < open_from]
        discard(self.tails, shut)
        self._tails_kept = len(names) - len(shut)
        if isinstance(self.tails, Spilled):
            self.tails.added = self._tails_kept

    def _discard(self, names: list[str]) -> int:
        discard(self.entities, names)
        discard(self.tails, names)
        return len(names)

    def _events(self, events: NDArray[Any], at: int) -> EntityEvents:
        return EntityEvents(events, at, most_events=self.features.most_events, scale=self.features.scale)

    def _place(self, name: str, packed: bytes, *, time: int, key: Any) -> tuple[int, Keys]:
        """Where a row belongs among the events of its entity, and the tail with its key in it."""
        size, tail = len(packed) // self.layout.size, self.tails.get(name, ())
        if not size or self.layout.last_time(packed) < time:
            return size, () if key is None else (*tail, key)
        times = self.layout.events(packed)["time"]
        place = int(times.searchsorted(time, "right"))
        if key is None:
            return place, ()
        known_from = size - len(tail)
        while place > known_from and times[place - 1] == time and tail[place - 1 - known_from] > key:
            place -= 1
        at = place - known_from
        return place, (*tail[:at], key, *tail[at:]) if at >= 0 else tail

    def _in_reach(self, packed: bytes, events: EntityEvents, tail: Keys, open_from: int) -> tuple[bytes, Keys]:
        """What is stored of an entity from now on: its packed events, and its tail."""
        size = len(events.time)
        closed = int(events.time.searchsorted(open_from))
        old = int(events.time.searchsorted(open_from - self.layout.reach, "right"))
        begin = max(0, min(old, size - 1), closed - self.features.most_events)
        kept = tail[max(0, len(tail) - (size - closed)) :] if closed < size else ()
        return packed[begin * self.layout.size :], kept

    def _padded(self, name: str) -> list[Any]:
        """One key for each event of an entity; None for those before its tail."""
        size, tail = len(self.entities[name]) // self.layout.size, self.tails.get(name, ())
        return [None] * (size - len(tail)) + list(tail)
