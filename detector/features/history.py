"""The incremental path: a bounded past for each entity, moved on row by row or batch by batch.

The same track and the same measures as in ``FeatureSet.compute`` answer, only the past comes from here; so both paths
agree to the last bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from detector.errors import DataError, SettingError
from detector.features import table as reading
from detector.features.calendar import calendar
from detector.features.duration import microseconds
from detector.features.feature_set import FeatureSet
from detector.features.measure import KNOWN_AT, measure
from detector.features.one_row import entity_name, read_row, to_microseconds
from detector.features.ordering import inserted, order_of, padded, place_of
from detector.features.record import EMPTY, Layout, Past, Stored
from detector.features.track import NEVER, Ints, Track

By = tuple[str, ...]


class History:
    """What is known of every entity's past.

    Parameters
    ----------
    features : FeatureSet
        What is measured; this decides what is kept.
    lateness : str, optional
        How far behind the latest row of all a row may be and still find its place; without it rows may not go back in
        time. A late row gets the features of its own time; rows that were scored before it came stay as they were.

    Attributes
    ----------
    latest : int or None
        The time of the latest row, in microseconds.

    >>> history = History(FeatureSet(("mean of amount by card over 30d",), time="time"))
    >>> first = {"time": pd.Timestamp("2024-01-01"), "card": "c", "amount": 10.0}
    >>> history.push_one(first), history.push_one(first | {"time": pd.Timestamp("2024-01-02")})
    ({'amount_mean_30d_by_card': nan}, {'amount_mean_30d_by_card': 10.0})
    """

    def __init__(self, features: FeatureSet, *, lateness: str | None = None) -> None:
        self.features = features
        self.lateness = microseconds(lateness) if lateness else 0
        self.latest: int | None = None
        self._groups = features.groups()
        self.layouts = {by: Layout.of(measured) for by, measured in self._groups.items()}
        self.entities: dict[By, dict[str, Stored]] = {by: {} for by in self._groups}
        self._keys = tuple(dict.fromkeys(key for layout in self.layouts.values() for key in layout.keys))

    def __len__(self) -> int:
        return sum(len(entities) for entities in self.entities.values())

    @property
    def events(self) -> int:
        """How many events are kept in all."""
        return sum(
            sum(len(packed) for packed, _ in entities.values()) // self.layouts[by].dtype.itemsize
            for by, entities in self.entities.items()
        )

    def faults(self, rows: pd.DataFrame, *, now: pd.Timestamp | None = None, ahead: str = "5m") -> pd.Series:
        """Why each row cannot be pushed, as ``FeatureSet.faults`` and for rows that come too late."""
        reasons = self.features.faults(rows, now=now, ahead=ahead)
        if self.latest is not None:
            late = reading.times(rows[self.features.time]) < self.latest - self.lateness
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
        return self._take(rows, answer=True)

    def learn(self, rows: pd.DataFrame) -> None:
        """Add rows to the past without asking for their features."""
        self._take(rows, answer=False)

    def push_one(self, row: Mapping[str, Any]) -> dict[str, float]:
        """The features of one row; the row goes to the past. Fast, for scoring online.

        Raises
        ------
        DataError
            If it comes too late, or has no usable time or amount.
        """
        values = read_row(self.features, row, self._keys)
        time = values["time"]
        if self.latest is not None and time < self.latest - self.lateness:
            raise DataError(f"{self._too_late()}. Set such rows aside, or allow more lateness.")
        found: dict[str, float] = {}
        latest = time if self.latest is None else max(time, self.latest)
        updates: list[tuple[By, str, Stored]] = []
        for by, measured in self._groups.items():
            name = entity_name(row, by)
            if name is None:
                found |= dict.fromkeys((feature.name for feature in measured), np.nan)
                continue
            layout, (packed, keys) = self.layouts[by], self.entities[by].get(name, EMPTY)
            past = layout.read(packed)
            place, keys = place_of(past["time"], keys, time, row[self.features.key] if self.features.key else None)
            past = {column: inserted(events, place, values[column]) for column, events in past.items()}
            track = Track(
                np.zeros(len(past["time"]), dtype=np.int64),
                past["time"],
                np.array([place]),
                self.features.most_events,
                past,
            )
            for feature in measured:
                found[feature.name] = float(measure(feature, track, scale=self.features.scale)[0])
            updates.append((by, name, self._kept(layout, past, keys, latest)))
        for by, name, stored in updates:
            self.entities[by][name] = stored
        self.latest = latest
        clock = np.array([time])
        found |= {name: float(calendar(clock, name)[0]) for name in self.features.calendar}
        return {name: found[name] for name in self.features.names}

    def report(self, rows: pd.DataFrame, *, reported: pd.Timestamp | None = None) -> pd.Series:
        """Tell that rows pushed earlier turned out to be fraud.

        Parameters
        ----------
        rows : DataFrame
            The rows, with time and entity, and when each was reported if the feature set names that column.
        reported : Timestamp, optional
            When, for all of them, instead.

        Returns
        -------
        Series of bool
            Whether each was found. One that was never pushed, or is older than any feature looks back, is not.
        """
        found = pd.Series(False, index=rows.index)
        known = [np.nan] * len(rows) if self.features.reported is None else rows[self.features.reported]
        times = reading.times(rows[self.features.time])
        for by, layout in self.layouts.items():
            if KNOWN_AT not in layout.keys:
                continue
            for position, (row, told) in enumerate(zip(rows.to_dict("records"), known, strict=True)):
                moment = reported if reported is not None else told if not pd.isna(told) else None
                when = int(times[position]) if moment is None else max(int(times[position]), to_microseconds(moment))
                found.iloc[position] |= self._mark(by, entity_name(row, by), int(times[position]), when)
        return found

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
            for name, (packed, keys) in entities.items():
                if name not in own:
                    own[name] = (packed, keys)
                    continue
                mine, my_keys = own[name]
                past = {
                    column: np.concatenate([ours, theirs])
                    for (column, ours), theirs in zip(
                        layout.read(mine).items(), layout.read(packed).values(), strict=True
                    )
                }
                n_mine, n_theirs = (len(part) // layout.dtype.itemsize for part in (mine, packed))
                every = padded(my_keys, n_mine) + padded(keys, n_theirs)
                order = order_of(past["time"], np.zeros(len(every), dtype=np.int64), every)
                past = {column: events[order] for column, events in past.items()}
                kept = tuple(key for key in (every[i] for i in order) if key is not None)
                own[name] = self._kept(layout, past, kept, self.latest or 0)

    def forget(self) -> int:
        """Drop the entities whose past no feature looks back to; say how many."""
        gone = 0
        for by, entities in self.entities.items():
            layout = self.layouts[by]
            oldest = (self.latest or 0) - self.lateness - layout.reach
            size = layout.dtype.itemsize
            idle = [
                name
                for name, (packed, _) in entities.items()
                if int.from_bytes(packed[-size : len(packed) - size + 8], "little", signed=True) <= oldest
            ]
            gone += len(idle)
            for name in idle:
                del entities[name]
        return gone

    def _too_late(self) -> str:
        latest = pd.Timestamp(self.latest, unit="us")
        return f"{self.features.time}: too late, the latest row is of {latest} already"

    def _take(self, rows: pd.DataFrame, *, answer: bool) -> pd.DataFrame:
        label = self.features.label
        given = rows if label is None or label in rows else rows.assign(**{label: np.nan})
        if self.features.reported is not None and self.features.reported not in given:
            given = given.assign(**{self.features.reported: pd.NaT})
        self.features.check(given)
        read = self.features.read(given, lasting=True)
        if not len(rows):
            return self.features.compute(rows) if answer else rows
        if self.latest is not None and int(read.time.min()) < self.latest - self.lateness:
            reasons = self.faults(given)
            row = int(np.argmin(read.time))
            raise DataError(
                f"{reasons.iloc[row]} (row {rows.index[row]}). Set such rows aside, or allow more lateness."
            )
        latest = max(int(read.time.max()), self.latest if self.latest is not None else int(read.time.max()))
        values: dict[str, NDArray[np.float64]] = {}
        for by in self._groups:
            place, track = self._extend(given, read, by, latest)
            for feature in self._groups[by] if answer else ():
                values[feature.name] = np.full(len(rows), np.nan)
                values[feature.name][place] = measure(feature, track, scale=self.features.scale)
        self.latest = latest
        if not answer:
            return rows
        values |= {name: calendar(read.time, name) for name in self.features.calendar}
        added = pd.DataFrame({name: values[name] for name in self.features.names}, index=rows.index, copy=False)
        return pd.concat([rows, added], axis="columns")

    def _extend(self, rows: pd.DataFrame, read: reading.Table, by: By, latest: int) -> tuple[NDArray[np.intp], Track]:
        """The stored past of the entities in these rows with the rows in it, which are then stored."""
        layout, own = self.layouts[by], self.entities[by]
        codes = reading.groups(rows, by)
        new = np.flatnonzero(codes >= 0)
        first = new[np.unique(codes[new], return_index=True)[1]]
        names = [str(entity_name(row, by)) for row in rows.loc[:, list(by)].iloc[first].to_dict("records")]
        stored = [own.get(name, EMPTY) for name in names]
        counts = np.array([len(packed) // layout.dtype.itemsize for packed, _ in stored], dtype=np.int64)
        past = layout.read(b"".join(packed for packed, _ in stored))
        ranked = np.unique(codes[new], return_inverse=True)[1]
        entity = np.concatenate([np.repeat(np.arange(len(names)), counts), ranked])
        events = {"time": np.concatenate([past["time"], read.time[new]])}
        events |= {key: np.concatenate([past[key], read.columns[key][new]]) for key in layout.keys}
        keys: list[Any] = []
        if self.features.key is not None:
            for (_, tail), count in zip(stored, counts, strict=True):
                keys += padded(tail, int(count))
            keys += rows[self.features.key].iloc[new].tolist()
        order = order_of(events["time"], entity, keys)
        events = {name: column[order] for name, column in events.items()}
        asked = np.flatnonzero(order >= int(counts.sum()))
        place = new[order[asked] - int(counts.sum())]
        bounds = np.searchsorted(entity[order], np.arange(len(names) + 1))
        lined = [keys[i] for i in order] if keys else []
        packed = layout.pack(events)
        starts = self._starts(events["time"], bounds, layout, latest)
        open_from = latest - self.lateness
        for number, name in enumerate(names):
            begin, end = int(starts[number]), int(bounds[number + 1])
            last: tuple[Any, ...] = ()
            if lined:
                since = begin + int(np.searchsorted(events["time"][begin:end], open_from))
                last = tuple(lined[since:end])
            own[name] = (packed[begin:end].tobytes(), last)
        return place, Track(entity[order], events["time"], asked, self.features.most_events, events)

    def _starts(self, time: Ints, bounds: NDArray[np.intp], layout: Layout, latest: int) -> Ints:
        """From which of its events on each entity is kept."""
        open_from = latest - self.lateness
        begin = np.empty(len(bounds) - 1, dtype=np.int64)
        for number, (first, end) in enumerate(pairwise(bounds)):
            own = time[first:end]
            young = int(np.searchsorted(own, open_from - layout.reach, side="right"))
            enough = int(np.searchsorted(own, open_from)) - self.features.most_events
            begin[number] = first + max(0, min(young, len(own) - 1), enough)
        return begin

    def _kept(self, layout: Layout, past: Past, keys: tuple[Any, ...], latest: int) -> Stored:
        time = past["time"]
        begin = int(self._starts(time, np.array([0, len(time)]), layout, latest)[0])
        still = len(time) - int(np.searchsorted(time, latest - self.lateness))
        tail = keys[max(0, len(keys) - still) :] if still else ()
        packed = layout.write(past if begin == 0 else {name: column[begin:] for name, column in past.items()})
        return packed, tail

    def _mark(self, by: By, name: str | None, time: int, known_at: int) -> bool:
        if name is None or name not in self.entities[by]:
            return False
        packed, keys = self.entities[by][name]
        past = self.layouts[by].read(packed)
        at = np.flatnonzero(past["time"] == time)
        if not len(at):
            return False
        unmarked = at[past[KNOWN_AT][at] == NEVER]
        if len(unmarked):
            known = past[KNOWN_AT].copy()
            known[unmarked[0]] = known_at
            self.entities[by][name] = (self.layouts[by].write(past | {KNOWN_AT: known}), keys)
        return True
