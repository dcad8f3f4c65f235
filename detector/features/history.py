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

from detector.arrays import Floats
from detector.errors import DataError, SettingError
from detector.features import integers
from detector.features.calendar import calendar
from detector.features.duration import microseconds, short
from detector.features.entities import Spilled
from detector.features.entity_store import By, Entities, EntityStore, Tails
from detector.features.feature_set import FeatureSet
from detector.features.join import Joined, Keys, with_columns
from detector.features.labels import reported_turns
from detector.features.measures import KNOWN_AT
from detector.features.one_row import entity_name, read_row


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
    stores : dict of EntityStore
        The events of every entity, by each way to group rows.

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
        self._names = features.names
        self.stores = {by: EntityStore(features, by, measured) for by, measured in self._groups.items()}
        self._keys = tuple(dict.fromkeys(key for store in self.stores.values() for key in store.layout.keys))

    def __reduce__(self) -> tuple[Any, ...]:
        facts = {name: getattr(self, name) for name in ("lateness", "latest", "forgot_at")}
        kept = {by: (store.entities, store.tails) for by, store in self.stores.items()}
        return _restored, (self.features, self.told_by, facts, kept)

    def emptied(self) -> History:
        """The same without what is kept of entities: a past that goes on from the same moment."""
        return self._over({by: store.over({}, {}) for by, store in self.stores.items()})

    def copy(self) -> History:
        """The same past, to go on from without changing this one; what is kept of an entity is shared until then."""
        return self._over({by: store.copy() for by, store in self.stores.items()})

    def _over(self, stores: dict[By, EntityStore]) -> History:
        """The same features at the same moment, over other entities."""
        other = History.__new__(History)
        other.__dict__.update(self.__dict__)
        other.stores = stores
        return other

    def __len__(self) -> int:
        return sum(len(store.entities) for store in self.stores.values())

    @property
    def events(self) -> int:
        """How many events are kept in all."""
        return sum(store.events for store in self.stores.values())

    @property
    def is_spilled(self) -> bool:
        """Whether what is kept lies in a folder, and only what has changed since in memory."""
        return any(isinstance(store.entities, Spilled) for store in self.stores.values())

    @property
    def bytes_in_memory(self) -> int:
        """About how many bytes of memory what is kept of entities takes."""
        return sum(store.bytes_in_memory for store in self.stores.values())

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
        updates: list[tuple[EntityStore, str, bytes, Keys]] = []
        key = None if self.features.key is None else row[self.features.key]
        for by, store in self.stores.items():
            name = entity_name(row, by)
            if name is None:
                found.update((query.name, nan) for query in store.queries)
                continue
            events, packed, tail = store.inserted(name, values, key, open_from=latest - self.lateness)
            if answer:
                found.update((query.name, query.answer(events, query)) for query in store.queries)
            updates.append((store, name, packed, tail))
        for store, name, packed, tail in updates:
            store.put(name, packed, tail)
        self._move_on(latest)
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
        for by, store in self.stores.items():
            if KNOWN_AT not in store.layout.keys:
                continue
            together: dict[tuple[str | None, int], list[int]] = {}
            for position, row in enumerate(rows[list(by)].to_dict("records")):
                together.setdefault((entity_name(row, by), int(time[position])), []).append(position)
            for (name, moment), positions in together.items():
                found[positions] |= store.write_turns(name, moment, turns[positions])
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
        for by, store in self.stores.items():
            store.merge(other.stores[by], open_from=self._open_from)

    def forget(self) -> int:
        """Drop the entities whose past no feature looks back to; say how many."""
        self.forgot_at = self.latest
        return sum(store.forget(self._open_from) for store in self.stores.values())

    def drop(self, column: str, value: str) -> int:
        """Forget what an entity did: all that is kept by a key with this value in this column; how many keys that is.

        What it did at others (a card at a terminal) stays counted there, without its name.

        >>> history = History(FeatureSet(("count by card over 30d", "count by card, shop over 30d"), time="time"))
        >>> for card in ("c", "d"):
        ...     _ = history.push_one({"time": pd.Timestamp("2024-01-01"), "card": card, "shop": "s"})
        >>> history.drop("card", "c"), history.drop("card", "c"), len(history)
        (2, 0, 2)
        """
        return sum(store.drop(column, value) for store in self.stores.values())

    @property
    def _open_from(self) -> int:
        """The earliest time that a row may still be of."""
        return (self.latest or 0) - self.lateness

    def _move_on(self, latest: int) -> None:
        self.latest = latest
        for store in self.stores.values():
            store.drop_closed_tails(self._open_from)

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
            store = self.stores[by]
            layout, tails = store.layout, store.tails
            joined = Joined.of(given, read, by=by, key=key, layout=layout, entities=store.entities, tails=tails)
            if answer:
                columns.add(measured, joined.events)
            if moves and key is not None:
                tails.update(joined.open_keys(given[key], tails, open_from=open_from))
            if moves:
                store.entities.update(
                    joined.to_store(layout, open_from=open_from, most_events=self.features.most_events)
                )
        if moves:
            self._move_on(latest)
        return columns.values


def _restored(
    features: FeatureSet, told_by: str | None, facts: dict[str, Any], kept: dict[By, tuple[Entities, Tails]]
) -> History:
    """A history that was pickled, as between processes."""
    history = History(features, told_by=told_by)
    vars(history).update(facts)
    history.stores = {by: store.over(*kept[by]) for by, store in history.stores.items()}
    return history
