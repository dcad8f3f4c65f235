"""The incremental path: a bounded past for each entity, moved on row by row or batch by batch.

The same measures as in ``FeatureSet.compute`` of the same event sequences, only that the past comes from here; so both
paths agree to the last bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import nan
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from detector.arrays import Floats, Integers
from detector.errors import DataError, SettingError
from detector.features import integers
from detector.features.calendar import calendar
from detector.features.duration import microseconds, short
from detector.features.entities import Spilled, bytes_in_memory, count, discard, many_of
from detector.features.events import by_key
from detector.features.feature_set import FeatureSet
from detector.features.join import SEPARATOR, Joined, Keys, with_columns
from detector.features.labels import reported_turns, with_turns
from detector.features.layout import EMPTY, Layout
from detector.features.measures import KNOWN_AT
from detector.features.one_event import EntityEvents, Query
from detector.features.one_row import entity_name, read_row

By = tuple[str, ...]
Entities = dict[str, bytes] | Spilled[bytes]
Tails = dict[str, Keys] | Spilled[Keys]
FEW_TAILS = 1_000


class History:
    """What is known of every entity's past.

    Parameters
    ----------
    features : FeatureSet
        What is measured; this decides what is kept.
    lateness : str, optional
        How far behind the latest row of all a row may be and still find its place; without it rows may not go back in
        time. A late row gets the features of its own time; rows that were scored before it came stay as they were.
    told_by : str, optional
        Which sources say what is known of rows; kept along, so that another set of sources is noticed.

    Attributes
    ----------
    latest : int or None
        The time of the latest row, in microseconds.
    layouts : dict of Layout
        How the events of an entity are packed, by each way to group rows.
    entities : dict of dict
        The packed events of each entity, by each way to group rows: in memory, or in a folder (``features.spill``).
    tails : dict of dict
        The keys of each entity's last events. Rows of one time are in the order of their keys, so these are needed as
        long as a row may still come among them; older events have no key any more.

    >>> history = History(FeatureSet(("mean of amount by card over 30d",), time="time"))
    >>> first = {"time": pd.Timestamp("2024-01-01"), "card": "c", "amount": 10.0}
    >>> history.push_one(first), history.push_one(first | {"time": pd.Timestamp("2024-01-02")})
    ({'amount_mean_30d_by_card': nan}, {'amount_mean_30d_by_card': 10.0})
    """

    def __init__(self, features: FeatureSet, *, lateness: str | None = None, told_by: str | None = None) -> None:
        self.features = features
        self.lateness = microseconds(lateness) if lateness else 0
        self.told_by = told_by
        self.latest: int | None = None
        self.forgot_at: int | None = None
        """Up to which time ``forget`` has looked."""
        self._groups = features.groups
        self._queries = {by: [Query.of(feature) for feature in measured] for by, measured in self._groups.items()}
        self._names = features.names
        self.layouts = {by: Layout.of(measured) for by, measured in self._groups.items()}
        self.entities: dict[By, Entities] = {by: {} for by in self._groups}
        self.tails: dict[By, Tails] = {by: {} for by in self._groups}
        self._tails_kept = 0
        self._keys = tuple(dict.fromkeys(key for layout in self.layouts.values() for key in layout.keys))

    def __reduce__(self) -> tuple[Any, ...]:
        facts = {name: getattr(self, name) for name in ("lateness", "latest", "forgot_at", "entities", "tails")}
        return _restored, (self.features, self.told_by, facts)

    def emptied(self) -> History:
        """The same without what is kept of entities: a past that goes on from the same moment."""
        return self._over({by: {} for by in self._groups}, {by: {} for by in self._groups})

    def copy(self) -> History:
        """The same past, to go on from without changing this one; what is kept of an entity is shared until then."""
        entities = {by: entities.copy() for by, entities in self.entities.items()}
        return self._over(entities, {by: tails.copy() for by, tails in self.tails.items()})

    def _over(self, entities: dict[By, Entities], tails: dict[By, Tails]) -> History:
        """The same features at the same moment, over other entities; nothing of the features is prepared anew."""
        other = History.__new__(History)
        other.__dict__.update(self.__dict__)
        other.entities, other.tails, other._tails_kept = entities, tails, 0
        return other

    def __len__(self) -> int:
        return sum(len(entities) for entities in self.entities.values())

    @property
    def events(self) -> int:
        """How many events are kept in all."""
        return sum(sum(map(len, entities.values())) // self.layouts[by].size for by, entities in self.entities.items())

    @property
    def is_spilled(self) -> bool:
        """Whether what is kept lies in a folder, and only what has changed since in memory."""
        return any(isinstance(entities, Spilled) for entities in self.entities.values())

    @property
    def bytes_in_memory(self) -> int:
        """About how many bytes of memory what is kept of entities takes."""
        return sum(map(bytes_in_memory, self.entities.values()))

    def faults(self, rows: pd.DataFrame, *, now: pd.Timestamp | None = None, ahead: str = "5m") -> pd.Series:
        """Why each row cannot be pushed, as ``FeatureSet.faults`` and for rows that come too late."""
        reasons = self.features.faults(rows, now=now, ahead=ahead)
        if self.latest is not None:
            late = integers.times(rows[self.features.time]) < self.latest - self.lateness
            if late.any():
                reasons[late] = self._too_late()
        return reasons

    def push(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Add the features to each row, and the rows to the past.

        Parameters
        ----------
        rows : DataFrame
            As for ``FeatureSet.compute``, in any order; a label that is not there yet is unknown.

        Raises
        ------
        DataError
            If a row comes too late, or has no usable time or amount; then none is taken. See ``faults``.
        SchemaError
            If a column is missing, or there already.
        """
        return with_columns(rows, self._names, self.measure(rows, moves=True))

    def measure(self, rows: pd.DataFrame, *, moves: bool) -> Floats:
        """The features of rows as ``push`` gives them, by themselves, shape (n_features, n_rows).

        - ``moves``: Whether the rows go to the past; it stays as it is otherwise.
        """
        return self._go_on(rows, answer=True, moves=moves)

    def learn(self, rows: pd.DataFrame) -> None:
        """Add rows to the past without asking for their features."""
        self._go_on(rows, answer=False, moves=True)

    def push_one(self, row: Mapping[str, Any]) -> dict[str, float]:
        """The features of one row; the row goes to the past. Fast, for scoring online.

        Raises
        ------
        DataError
            If it comes too late, or has no usable time or amount.
        """
        found = self._add_one(row, answer=True)
        return {name: found[name] for name in self._names}

    def learn_one(self, row: Mapping[str, Any]) -> None:
        """Add one row to the past without asking for its features. Raises as ``push_one`` does."""
        self._add_one(row, answer=False)

    def _add_one(self, row: Mapping[str, Any], *, answer: bool) -> dict[str, float]:
        values = read_row(self.features, row, self._keys)
        time = values["time"]
        if self.latest is not None and time < self.latest - self.lateness:
            raise DataError(f"{self._too_late()}. Quarantine such rows, or allow more lateness.")
        found: dict[str, float] = {}
        latest = time if self.latest is None else max(time, self.latest)
        updates: list[tuple[By, str, bytes, Keys]] = []
        key = None if self.features.key is None else row[self.features.key]
        for by, measured in self._queries.items():
            name = entity_name(row, by)
            if name is None:
                found.update((query.name, nan) for query in measured)
                continue
            layout, packed = self.layouts[by], self.entities[by].get(name, EMPTY)
            place, tail = self._place(by, name, packed, time=time, key=key)
            cut = place * layout.size
            packed = b"".join((packed[:cut], layout.pack_one(values), packed[cut:]))
            seen = self._events(layout.events(packed), place)
            if answer:
                found.update((query.name, query.answer(seen, query)) for query in measured)
            updates.append((by, name, *self._to_store(layout, packed, seen, tail, latest)))
        for by, name, packed, tail in updates:
            self.entities[by][name] = packed
            if tail:
                self.tails[by][name] = tail
        self.latest = latest
        self._drop_closed_tails()
        if answer and self.features.calendar:
            clock = np.array([time])
            found |= {name: float(calendar(clock, name)[0]) for name in self.features.calendar}
        return found

    def report(self, rows: pd.DataFrame, *, reported: pd.Timestamp | None = None) -> pd.Series:
        """Report what has become known of rows pushed earlier; reporting it again changes nothing.

        An event is known by its entity and time, so those of one entity at the same moment must be reported together.

        Parameters
        ----------
        rows : DataFrame
            With time and entity. If the feature set names ``turns``, these say all that is known of a row by now.
            Otherwise each row turned out to be fraud, when it was reported if the feature set names that column; a
            missing date says nothing yet, and of several the first counts.
        reported : Timestamp, optional
            They all turned out to be fraud, and this is when.

        Returns
        -------
        Series of bool
            Whether each was found. One that was never pushed, or is older than any feature looks back, is not.
        """
        found = np.zeros(len(rows), dtype=bool)
        time = integers.times(rows[self.features.time])
        turns = reported_turns(self.features, rows, time, reported)
        for by, layout in self.layouts.items():
            if KNOWN_AT not in layout.keys:
                continue
            together: dict[tuple[str | None, int], list[int]] = {}
            for position, row in enumerate(rows[list(by)].to_dict("records")):
                together.setdefault((entity_name(row, by), int(time[position])), []).append(position)
            for (name, moment), positions in together.items():
                found[positions] |= self._write_turns(by, name, moment, turns[positions])
        return pd.Series(found, index=rows.index)

    def merge(self, other: History) -> None:
        """Take in the past of another history of the same features, of other rows.

        Raises
        ------
        SettingError
            If it measures other features.
        """
        if other.features != self.features or other.lateness != self.lateness:
            raise SettingError(
                "Only histories of the same features and lateness can be merged. Learn one of them again."
            )
        self.latest = max((own for own in (self.latest, other.latest) if own is not None), default=None)
        for by, entities in other.entities.items():
            layout, own = self.layouts[by], self.entities[by]
            for name, packed in entities.items():
                mine = own.get(name, EMPTY)
                if not mine:
                    own[name] = packed
                    if tail := other.tails[by].get(name):
                        self.tails[by][name] = tail
                    continue
                events = np.concatenate([layout.events(mine), layout.events(packed)])
                every = [*self._padded(by, name), *other._padded(by, name)]
                order = by_key(every)
                order = order[np.argsort(events["time"][order], kind="stable")]
                events = events[order]
                tail = tuple(key for key in (every[place] for place in order) if key is not None)
                seen = self._events(events, 0)
                own[name], tail = self._to_store(layout, events.tobytes(), seen, tail, self.latest or 0)
                self.tails[by][name] = tail

    def forget(self) -> int:
        """Drop the entities whose past no feature looks back to; say how many."""
        gone, self.forgot_at = 0, self.latest
        for by, entities in self.entities.items():
            layout = self.layouts[by]
            oldest = (self.latest or 0) - self.lateness - layout.reach
            idle = [name for name, packed in entities.items() if layout.last_time(packed) <= oldest]
            gone += len(idle)
            discard(entities, idle)
            discard(self.tails[by], idle)
        return gone

    def drop(self, column: str, value: str) -> int:
        """Forget what an entity did: all that is kept by a key with this value in this column; how many keys that is.

        What it did at others (a card at a terminal) stays counted there, without its name.

        >>> history = History(FeatureSet(("count by card over 30d", "count by card, shop over 30d"), time="time"))
        >>> for card in ("c", "d"):
        ...     _ = history.push_one({"time": pd.Timestamp("2024-01-01"), "card": card, "shop": "s"})
        >>> history.drop("card", "c"), history.drop("card", "c"), len(history)
        (2, 0, 2)
        """
        gone = 0
        for by, entities in self.entities.items():
            if column not in by:
                continue
            place = by.index(column)
            ours = [name for name in entities if name.split(SEPARATOR)[place] == value]
            gone += len(ours)
            discard(entities, ours)
            discard(self.tails[by], ours)
        return gone

    def _events(self, events: NDArray[Any], at: int) -> EntityEvents:
        return EntityEvents(events, at, most_events=self.features.most_events, scale=self.features.scale)

    def _too_late(self) -> str:
        latest = pd.Timestamp(self.latest, unit="us")
        allowed = f"{f'only {short(self.lateness)}' if self.lateness else 'nothing'} is allowed by `features.lateness`"
        return f"{self.features.time}: too late, the latest row is of {latest} already and {allowed}"

    def _go_on(self, rows: pd.DataFrame, *, answer: bool, moves: bool) -> Floats:
        """The features of rows, if they are asked for; and the rows go to the past, if they move it on."""
        unknown = {name: np.nan if name == self.features.label else pd.NaT for name in self.features.knows}
        given = rows.assign(**{name: nothing for name, nothing in unknown.items() if name not in rows})
        self.features.check(given)
        read = self.features.read(given, lasting=True)
        columns = self.features.columns_for(read.time if answer else read.time[:0])
        if not len(rows):
            return columns.values
        if self.latest is not None and int(read.time.min()) < self.latest - self.lateness:
            reasons = self.faults(given)
            row = int(np.argmin(read.time))
            raise DataError(
                f"{reasons.iloc[row]} (row {rows.index[row]}). Quarantine such rows, or allow more lateness."
            )
        latest = max(int(read.time.max()), self.latest if self.latest is not None else int(read.time.max()))
        key, open_from = self.features.key, latest - self.lateness
        for by, measured in self._groups.items():
            layout, tails, entities = self.layouts[by], self.tails[by], self.entities[by]
            joined = Joined.of(given, read, by=by, key=key, layout=layout, entities=entities, tails=tails)
            if answer:
                columns.add(measured, joined.events)
            if moves and key is not None:
                tails.update(joined.open_keys(given[key], tails, open_from=open_from))
            if moves:
                entities.update(joined.to_store(layout, open_from=open_from, most_events=self.features.most_events))
        if moves:
            self.latest = latest
            self._drop_closed_tails()
        return columns.values

    def _place(self, by: By, name: str, packed: bytes, *, time: int, key: Any) -> tuple[int, Keys]:
        """Where a row belongs among the events of its entity, and the tail with its key in it."""
        layout = self.layouts[by]
        size, tail = len(packed) // layout.size, self.tails[by].get(name, ())
        if not size or layout.last_time(packed) < time:
            return size, () if key is None else (*tail, key)
        times = layout.events(packed)["time"]
        place = int(times.searchsorted(time, "right"))
        if key is None:
            return place, ()
        known_from = size - len(tail)
        while place > known_from and times[place - 1] == time and tail[place - 1 - known_from] > key:
            place -= 1
        at = place - known_from
        return place, (*tail[:at], key, *tail[at:]) if at >= 0 else tail

    def _to_store(
        self, layout: Layout, packed: bytes, seen: EntityEvents, tail: Keys, latest: int
    ) -> tuple[bytes, Keys]:
        """What is stored of an entity from now on: its packed events, and its tail."""
        open_from, size = latest - self.lateness, len(seen.time)
        closed = int(seen.time.searchsorted(open_from))
        old = int(seen.time.searchsorted(open_from - layout.reach, "right"))
        begin = max(0, min(old, size - 1), closed - self.features.most_events)
        return packed[begin * layout.size :], tail[max(0, len(tail) - (size - closed)) :] if closed < size else ()

    def _padded(self, by: By, name: str) -> list[Any]:
        """One key for each event of an entity; None for those before its tail."""
        size, tail = len(self.entities[by][name]) // self.layouts[by].size, self.tails[by].get(name, ())
        return [None] * (size - len(tail)) + list(tail)

    def _drop_closed_tails(self) -> None:
        """Drop the tails that no row can come among any more, whenever the tails have doubled."""
        if sum(map(count, self.tails.values())) <= 2 * self._tails_kept + FEW_TAILS:
            return
        open_from = (self.latest or 0) - self.lateness
        self._tails_kept = 0
        for by, tails in self.tails.items():
            names, layout = list(tails), self.layouts[by]
            last = map(layout.last_time, many_of(self.entities[by], names, EMPTY))
            shut = [name for name, time in zip(names, last, strict=True) if time < open_from]
            discard(tails, shut)
            self._tails_kept += len(names) - len(shut)
            if isinstance(tails, Spilled):
                tails.added = len(names) - len(shut)

    def _write_turns(self, by: By, name: str | None, time: int, turns: Integers) -> bool:
        """Write down when the events of that time were known to be fraud, and no longer; whether there is any."""
        layout = self.layouts[by]
        events = layout.events(EMPTY if name is None else self.entities[by].get(name, EMPTY))
        at = np.flatnonzero(events["time"] == time)
        if name is None or not len(at):
            return False
        if (changed := with_turns(events, at, turns, earlier=self.features.turns is None)) is not None:
            self.entities[by][name] = changed.tobytes()
        return True


def _restored(features: FeatureSet, told_by: str | None, facts: dict[str, Any]) -> History:
    """A history that was pickled, as between processes."""
    history = History(features, told_by=told_by)
    vars(history).update(facts)
    return history
