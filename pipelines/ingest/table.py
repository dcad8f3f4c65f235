"""A table that grows: rows after the cursor, and late ones within the allowed lateness, each once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pandas as pd
import sqlalchemy as sa
from sqlalchemy.orm import Session

from detector.cleaning.values import read_names
from detector.errors import SchemaError, SettingError, SourceError, nearest
from pipelines.config.formats import FormatSection
from pipelines.ingest.batch import InputBatch, ReadFacts
from pipelines.ingest.contract import Lag, LeftOut, Proposal
from pipelines.ingest.rows import WindowReader
from pipelines.sources.formats import frame_with_formats
from pipelines.sources.source import Source
from pipelines.store import Cursor, RecentKey, Store, upsert
from pipelines.testing.failpoints import failpoint

BATCH = 65_536
REPEATED = 3_600.0
"""Seconds that clocks on the wall go back."""


class FollowedTable:
    """Rows of a table in the order of a column that grows with every row that comes in.

    Transactions end in another order than they began in, and clocks differ; so rows may come in behind the cursor. They
    are looked for as far back as ``lateness`` says, and the keys of the rows scored there are remembered. A row whose
    column is empty is never read.

    - ``store``: Holds the cursor.
    - ``name``: Under which it is kept there.
    - ``url``, ``table``: The database and the table or view.
    - ``cursor``, ``key``: The column that grows, and the one that names a row.
    - ``lateness``: In seconds for a column of times, else in its own numbers.
    - ``starts_new``: Whether rows that are there at the very first look are left out.
    - ``batch_rows``: Rows of one batch, about: rows with the same value of the column are never parted.
    - ``formats``: How the values of some columns are written.
    """

    def __init__(
        self,
        store: Store,
        *,
        name: str,
        url: str,
        table: str,
        cursor: str,
        key: str,
        lateness: float,
        starts_new: bool,
        batch_rows: int,
        formats: Mapping[str, FormatSection] | None = None,
    ) -> None:
        self.store = store
        self.name = name
        self.cursor = cursor
        self.key = key
        # A cursor by the clock on the wall goes back an hour in autumn, and the rows of that hour come behind it.
        is_by_the_clock = formats is not None and cursor in formats and formats[cursor].timezone is not None
        self.lateness = lateness + REPEATED * is_by_the_clock
        self.starts_new = starts_new
        self.batch_rows = batch_rows
        self.formats = formats or {}
        self.notices: list[str] = []
        self._reader = WindowReader(url, table=table, cursor=cursor)
        for column in (cursor, key):
            if column not in self._reader.columns():
                hint = nearest(column, self._reader.columns())
                raise SchemaError(f"Column {column!r} is not in {self._reader.describe()}. {hint}")

    def propose(self, now: datetime) -> Proposal | None:
        """Propose the rows after the cursor, as many as a batch holds, with the late ones."""
        low = self._position()
        if low is None and self.starts_new and (newest := self._reader.highest(None, limit=None)) is not None:
            low = to_json(newest, self.cursor)
            with self.store.write() as session:
                session.merge(Cursor(source=self.name, position=low, rows=0, moved_at=now))
        after = from_json(low, self.cursor)
        newest = self._reader.highest(after, limit=None)
        high = self._reader.highest(after, limit=self.batch_rows)
        failpoint("score.looked")
        if high is None:
            if after is None or not self._has_late(after):
                return None
            high = newest = after
        self._refuse_text(high)
        is_last = newest is not None and high >= newest
        return Proposal({"after": low, "upto": to_json(high, self.cursor)}, is_last=is_last)

    def is_intact(self, window: Mapping[str, Any]) -> bool:
        """Whether the cursor is still where the window begins."""
        return bool(window.get("backfill")) or self._position() == window["after"]

    def release(self, session: Session, window: Mapping[str, Any]) -> None:
        """Nothing was marked."""

    def open(self, window: Mapping[str, Any]) -> InputBatch:
        """Read the rows between the two positions, and the late ones before them."""
        batch = InputBatch(self._reader.columns(), lambda facts: self._frames(window, facts))
        return batch.map(lambda frames: (frame_with_formats(frame, self.formats) for frame in frames))

    def _frames(self, window: Mapping[str, Any], facts: ReadFacts) -> Iterator[pd.DataFrame]:
        after, upto = from_json(window["after"], self.cursor), from_json(window["upto"], self.cursor)
        is_backfill = bool(window.get("backfill"))
        start = after if after is None or is_backfill else self._back(after)
        recent = self._recent() if start is not None else set()
        kept: list[tuple[str, float]] = []
        newest = from_json(self._position(), self.cursor) if is_backfill else upto
        edge = as_number(self._back(newest))
        self._reader.bounds = (start, upto)
        source = Source(self._reader)
        if not self._reader.count():
            return
        for batch in source.batches(BATCH):
            frame, places = batch, numbers_of(batch[self.cursor])
            if after is not None and not is_backfill:
                late = places <= as_number(after)
                names = read_names(frame[self.key])
                known = names.astype(str).isin(recent) | names.isna()
                frame, places = frame[~(late & known)], places[~(late & known)]
            keys = read_names(frame[self.key])
            near = (places >= edge) & keys.notna()  # of numbers beyond 2**53 some beside the edge are equal to it
            kept.extend(zip(keys[near].astype(str), places[near], strict=True))
            frame.index = pd.RangeIndex(facts.rows, facts.rows + len(frame))
            facts.rows += len(frame)
            if len(frame):
                yield frame
        facts.state.update(keys=kept, edge=edge)

    def refuse(self, window: Mapping[str, Any], error: Exception, *, now: datetime) -> str | None:
        """A table is read or it is not; there is no part of it to quarantine."""
        del window, error, now
        return None

    def settle(self, session: Session, window: dict[str, Any], facts: ReadFacts, *, batch: int, now: datetime) -> None:
        """Move the cursor, and remember the keys that late rows are told apart by."""
        del batch
        if window.get("backfill"):
            self._remember(session, facts)
            return
        cursor = session.get(Cursor, self.name)
        if (None if cursor is None else cursor.position) != window["after"]:
            raise SourceError(f"The cursor of {self.name} was moved by another run; nothing of this one was kept.")
        if cursor is None:
            cursor = Cursor(source=self.name, rows=0)
            session.add(cursor)
        cursor.position, cursor.moved_at = dict(window["upto"]), now
        cursor.rows += facts.rows
        session.execute(
            sa.delete(RecentKey).where(
                RecentKey.source == self.name, RecentKey.place < facts.state.get("edge", float("-inf"))
            )
        )
        self._remember(session, facts)

    def skipped(self) -> Iterator[pd.DataFrame]:
        """None: the position tells what is new."""
        return iter(())

    def left_out(self, wanted: LeftOut, now: datetime) -> list[Proposal]:
        """What lies behind the cursor, from one position to another; the first and the cursor by default.

        Raises ``SettingError`` if nothing was scored yet, or a position cannot be read.
        """
        del now
        if wanted.files:
            raise SettingError("A table has no files. Say from where to where with --since and --until.")
        since, until = wanted.since, wanted.until
        position = self._position()
        if position is None:
            raise SettingError("Nothing was scored yet, so there is nothing to make up for: the first run scores it.")
        newest = from_json(position, self.cursor)
        end = newest if until is None else min(parse_position(until, newest), newest)
        after = None if since is None else parse_position(since, newest)
        found: list[Proposal] = []
        while after is None or after < end:
            upto = self._reader.highest(after, limit=self.batch_rows)
            if upto is None:
                break
            upto = min(upto, end)
            first = None if after is None else to_json(after, self.cursor)
            found.append(Proposal({"after": first, "upto": to_json(upto, self.cursor), "backfill": True}))
            after = upto
        return found

    def can_replay(self, window: Mapping[str, Any]) -> bool:
        """A table cannot tell: rows that are gone are not scored again."""
        del window
        return True

    def replayed(self, window: Mapping[str, Any]) -> dict[str, Any]:
        """The window of a batch that was scored, widened to where its late rows came from; the cursor stays."""
        after = from_json(window["after"], self.cursor)
        if after is not None and not window.get("backfill"):
            after = self._back(after)
        return {
            "after": None if after is None else to_json(after, self.cursor),
            "upto": window["upto"],
            "backfill": True,
        }

    def behind(self, position: Mapping[str, Any] | None) -> dict[str, Any] | None:
        """How many rows there are up to a position, or up to where late rows are no longer looked for.

        If a later count up to the same position is larger, rows came too late.
        """
        if position is None:
            newest = from_json(self._position(), self.cursor)
            if newest is None:
                return None
            position = to_json(self._back(newest), self.cursor)
        self._reader.bounds = (None, from_json(position, self.cursor))
        return {"position": dict(position), "rows": self._reader.count()}

    def _remember(self, session: Session, facts: ReadFacts) -> None:
        keys = dict(facts.state.get("keys", ()))
        rows = [{"source": self.name, "key": key, "place": place} for key, place in keys.items()]
        upsert(session, RecentKey, rows)

    def passed(self, window: Mapping[str, Any] | None = None) -> Iterator[pd.DataFrame]:
        """The rows up to the cursor."""
        del window
        position = from_json(self._position(), self.cursor)
        if position is not None:
            self._reader.bounds = (None, position)
            yield from Source(self._reader, self.formats).batches(BATCH)

    def lag(self, now: datetime) -> Lag:
        """How many rows there are behind the cursor, and how far the newest is ahead of it, if the column is a time."""
        del now
        after = from_json(self._position(), self.cursor)
        rows, newest = self._reader.behind(after)
        seconds = as_number(newest) - as_number(after) if isinstance(newest, datetime) and after is not None else 0.0
        return Lag(rows, max(0.0, seconds))

    def _position(self) -> dict[str, Any] | None:
        with self.store.read() as session:
            found = session.get(Cursor, self.name)
            return None if found is None else found.position

    def _recent(self) -> set[str]:
        with self.store.read() as session:
            keys = session.scalars(sa.select(RecentKey.key).where(RecentKey.source == self.name))
            return {key.strip() for key in keys}

    def _has_late(self, after: Any) -> bool:
        """Whether there are rows behind the cursor that were not scored."""
        if not self.lateness:
            return False
        recent = self._recent()
        return any(str(key).strip() not in recent for key in self._reader.keys(self.key, self._back(after), after))

    def _back(self, position: Any) -> Any:
        """The position that rows may still come from, by the lateness that is allowed, where the cursor stands here."""
        if not self.lateness:
            return position
        if isinstance(position, datetime):
            return position - timedelta(seconds=self.lateness)
        return position - (int(self.lateness) if isinstance(position, int) else self.lateness)

    def _refuse_text(self, position: Any) -> None:
        if isinstance(position, int | float | datetime) and not isinstance(position, bool):
            return
        raise SettingError(
            f"`service.cursor` names {self.cursor!r}, which holds {position!r}. Expected numbers or times that grow. "
            f"Name another column, or a view in which it is one."
        )


def to_json(position: Any, column: str) -> dict[str, Any]:
    """A position as JSON can hold it.

    >>> to_json(7, "number")
    {'column': 'number', 'number': 7}
    """
    if isinstance(position, datetime):
        return {"column": column, "time": position.isoformat()}
    if isinstance(position, date):
        return {"column": column, "time": f"{position.isoformat()}T00:00:00"}
    return {"column": column, "number": position}


def from_json(position: Mapping[str, Any] | None, column: str) -> Any:
    """The position again.

    Raises ``SettingError`` if it is one of another column.
    """
    if position is None:
        return None
    if position["column"] != column:
        raise SettingError(
            f"`service.cursor` was {position['column']!r} so far and is {column!r} now: how far the table was scored "
            f"cannot be seen by it. Set it back, or start anew with another `name`."
        )
    return datetime.fromisoformat(position["time"]) if "time" in position else position["number"]


def parse_position(text: str, like: Any) -> Any:
    """What a person wrote, as a position of the same kind as another.

    Raises ``SettingError`` if it is not.

    >>> parse_position("70", 5), parse_position("2026-03-01", datetime(2026, 1, 1))  # noqa: DTZ001
    (70, datetime.datetime(2026, 3, 1, 0, 0))
    """
    try:
        if isinstance(like, datetime):
            moment = datetime.fromisoformat(text)
            if (like.tzinfo is None) == (moment.tzinfo is None):
                return moment
            return (
                moment.replace(tzinfo=UTC) if like.tzinfo is not None else moment.astimezone(UTC).replace(tzinfo=None)
            )
        return type(like)(text)
    except ValueError:
        kind = "a time such as 2026-03-01T12:00" if isinstance(like, datetime) else "a number"
        raise SettingError(f"Expected {kind}, received {text!r}.") from None


def as_number(position: Any) -> float:
    """A position as a number: a time in seconds, as UTC where it has no zone."""
    if isinstance(position, datetime):
        return (position.replace(tzinfo=UTC) if position.tzinfo is None else position).timestamp()
    return float(position)


def numbers_of(column: pd.Series[Any]) -> pd.Series[Any]:
    """A column of positions as numbers, each to the last bit what ``as_number`` makes of it.

    >>> moments = pd.Series(pd.to_datetime(["2026-11-30 13:49:34.856613"]))
    >>> bool(numbers_of(moments)[0] == as_number(moments[0]))
    True
    """
    if pd.api.types.is_datetime64_any_dtype(column):
        moments = column if column.dt.tz is None else column.dt.tz_convert("UTC").dt.tz_localize(None)
        return (moments.astype("datetime64[us]").astype("int64") / 1_000_000).mask(moments.isna())
    return pd.to_numeric(column)
