"""A Kafka topic that grows: each message once, its offset written down with its score."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import pandas as pd
from sqlalchemy.orm import Session

from detector.errors import SettingError, SourceError
from detector.schema import Schema
from pipelines.config.formats import FormatSection
from pipelines.ingest.batch import InputBatch, ReadFacts
from pipelines.ingest.contract import Lag, LeftOut, Proposal
from pipelines.sources.formats import frame_with_formats
from pipelines.sources.json_rows import as_text
from pipelines.sources.topic import Offsets, Topic, event_of
from pipelines.store import Cursor, Store
from pipelines.testing.failpoints import failpoint

log = logging.getLogger("detector.ingest")

BATCH = 65_536


class FollowedTopic:
    """Messages after the offsets that were scored last. Those are kept in the service's state, never at the broker.

    A batch's offsets move in the transaction that keeps its scores: whatever is killed when, each message is scored
    once. A message that a producer sends twice has its key scored already, which scores in a table are told by.

    - ``store``: Holds the offsets.
    - ``name``: Under which they are kept there.
    - ``schema``: Fields that messages may have; one that is not there is missing.
    - ``starts_new``: Whether messages that are there at the very first look are left out.
    - ``batch_rows``: Most messages of a batch, divided among the partitions that have some.
    - ``also``: More fields to read.
    - ``formats``: How the values of some fields are written.
    """

    def __init__(
        self,
        store: Store,
        *,
        name: str,
        topic: Topic,
        schema: Schema,
        starts_new: bool,
        batch_rows: int,
        also: Sequence[str] = (),
        formats: Mapping[str, FormatSection] | None = None,
    ) -> None:
        self.store = store
        self.name = name
        self.topic = topic
        self.starts_new = starts_new
        self.batch_rows = batch_rows
        self.formats = formats or {}
        roles = [column for role, column in schema.roles.items() if role != "label"]
        self.columns = list(dict.fromkeys([*roles, *schema.features, *also]))
        self.notices: list[str] = []

    def propose(self, now: datetime) -> Proposal | None:
        """Propose the messages after the last offsets, as many as a batch holds."""
        there, known = self.topic.there(), self._position()
        if not self._is_same(there):
            raise SourceError(
                f"The {self.topic.describe()} was deleted and made anew since it was scored last: its offsets are "
                f"those of other messages. Give `name` another value to begin anew."
            )
        if known is None and self.starts_new:
            known = {partition: end for partition, (_, end) in there.items()}
            self._move(known, now)
        failpoint("score.looked")
        waiting = self._waiting(there, known or {})
        if self.notices:  # said once, also where nothing has come since
            self._move((known or {}) | {partition: first for partition, (first, _) in waiting.items()}, now)
        offsets = shared(waiting, self.batch_rows)
        if not offsets:
            return None
        is_last = offsets == {partition: span for partition, span in waiting.items() if span[1] > span[0]}
        return Proposal({"topic": self.topic.name, "offsets": to_json(offsets)}, is_last=is_last)

    def _waiting(self, there: Offsets, known: Mapping[int, int]) -> Offsets:
        """What lies after the offsets; what the topic no longer keeps is told, and left behind."""
        self.notices = []
        found: Offsets = {}
        for partition, (oldest, end) in there.items():
            first = known.get(partition, oldest)
            if first > end:
                raise SourceError(
                    f"Partition {partition} of {self.topic.describe()} ends at offset {end:,}, and {first:,} was "
                    f"scored already: it is another topic of that name. Give `name` another value to begin anew."
                )
            if first < oldest:
                self.notices.append(
                    f"partition {partition} of {self.topic.name}: {oldest - first:,} messages, from offset {first:,}, "
                    f"were removed by the topic's retention before they were scored"
                )
            found[partition] = (max(first, oldest), end)
        return found

    def _is_same(self, there: Offsets) -> bool:
        """Whether the last message that was scored is where it was, with its time; one partition speaks for all.

        A topic that was deleted and made anew counts from 0 again. Where nothing follows that message in any
        partition, or the topic keeps it no longer, nobody can tell yet.
        """
        for partition, (offset, stamp) in self._stamps().items():
            oldest, end = there.get(partition, (0, 0))
            if oldest <= offset < end - 1:
                found = self.topic.messages({partition: (offset, offset + 1)})
                return all(message.timestamp()[1] == stamp for message in found)
        return True

    def is_intact(self, window: Mapping[str, Any]) -> bool:
        """Whether the offsets are still where the window begins, and the topic still has it."""
        there, known = self.topic.there(), self._position() or {}
        if not self._is_same(there):
            return False
        for partition, (first, end) in from_json(window["offsets"]).items():
            oldest, newest = there.get(partition, (end + 1, end))
            if oldest > first or newest < end or known.get(partition, first) > first:
                return False
        return True

    def release(self, session: Session, window: Mapping[str, Any]) -> None:
        """Nothing was marked."""

    def open(self, window: Mapping[str, Any]) -> InputBatch:
        """Read the messages between the offsets."""
        batch = InputBatch(self.columns, lambda facts: self._frames(from_json(window["offsets"]), facts))
        return batch.map(lambda frames: (frame_with_formats(frame, self.formats) for frame in frames))

    def _frames(self, offsets: Offsets, facts: ReadFacts | None) -> Iterator[pd.DataFrame]:
        rows: list[dict[str, str | None]] = []
        rejected: list[str] = []
        start, expected = 0, (-1, -1)
        for message in self.topic.messages(offsets, may_be_gone=facts is None):
            place = (int(message.partition() or 0), int(message.offset() or 0))
            if facts is not None:
                facts.state[str(place[0])] = [place[1], message.timestamp()[1]]
            event, reason = event_of(message)
            if event is None:
                rejected.append(reason)
                continue
            if facts is not None and place != expected:
                facts.spans.append((f"{self.topic.name}[{place[0]}]", start + len(rows), place[1]))
            expected = (place[0], place[1] + 1)
            rows.append({name: as_text(event.get(name)) for name in self.columns})
            if len(rows) >= BATCH:
                yield self._frame(rows, start, facts)
                start, rows = start + len(rows), []
        if rows:
            yield self._frame(rows, start, facts)
        if facts is not None and rejected:
            nowhere = pd.Series(pd.NA, index=range(len(rejected)), dtype="Int64")
            facts.rejected.append(pd.DataFrame({"row": nowhere, "reason": pd.Series(rejected, dtype="str")}))

    def _frame(self, rows: list[dict[str, str | None]], start: int, facts: ReadFacts | None) -> pd.DataFrame:
        if facts is not None:
            facts.rows += len(rows)
        index = pd.RangeIndex(start, start + len(rows))
        return pd.DataFrame(rows, columns=self.columns, index=index, dtype="str")

    def refuse(self, window: Mapping[str, Any], error: Exception, *, now: datetime) -> str | None:
        """A message that is no event is quarantined by itself; there is no other part of a batch to give up."""
        del window, error, now
        return None

    def settle(self, session: Session, window: dict[str, Any], facts: ReadFacts, *, batch: int, now: datetime) -> None:
        """Move the offsets."""
        del batch
        cursor = session.get(Cursor, self.name)
        before = None if cursor is None else cursor.position
        known = self._read(before) or {}
        offsets = from_json(window["offsets"])
        if any(known.get(partition, first) > first for partition, (first, _) in offsets.items()):
            raise SourceError(f"The offsets of {self.name} were moved by another run; nothing of this one was kept.")
        if cursor is None:
            cursor = Cursor(source=self.name, rows=0)
            session.add(cursor)
        moved = known | {partition: end for partition, (_, end) in offsets.items()}
        stamps = (before or {}).get("stamps", {}) | facts.state
        cursor.position, cursor.moved_at = self._as_position(moved, stamps), now
        cursor.rows += facts.rows

    def passed(self, window: Mapping[str, Any] | None = None) -> Iterator[pd.DataFrame]:
        """The messages up to the offsets that the topic still keeps, without those of a window."""
        known = self._position()
        if known is None:
            return
        own = {} if window is None else from_json(window["offsets"])
        there = self.topic.there()
        before, after = dict[int, tuple[int, int]](), dict[int, tuple[int, int]]()
        for partition, end in known.items():
            oldest = there.get(partition, (end, end))[0]
            first, last = own.get(partition, (end, end))
            before[partition] = (oldest, min(first, end))
            after[partition] = (max(last, oldest), end)
        for offsets in (before, after):
            for frame in self._frames(offsets, None):
                yield frame_with_formats(frame, self.formats)

    def skipped(self) -> Iterator[pd.DataFrame]:
        """None: the position tells what is new."""
        return iter(())

    def left_out(self, wanted: LeftOut, now: datetime) -> list[Proposal]:
        """None can be: the offsets say only how far the topic was scored.

        Raises ``SettingError``.
        """
        del wanted, now
        raise SettingError(
            "Messages of a topic that the first look left out cannot be made up for. Score them from a file, or "
            "begin anew with another `name` and `service.start: all`."
        )

    def can_replay(self, window: Mapping[str, Any]) -> bool:
        """A topic tells when it is read: that fails if messages are gone."""
        del window
        return True

    def replayed(self, window: Mapping[str, Any]) -> Mapping[str, Any]:
        """The same offsets."""
        return window

    def lag(self, now: datetime) -> Lag:
        """How many messages wait, and how old the oldest of the first partition that has some is."""
        waiting = self._waiting(self.topic.there(), self._position() or {})
        rows = sum(end - first for first, end in waiting.values())
        for partition, (first, end) in waiting.items():
            if first < end:
                for message in self.topic.messages({partition: (first, first + 1)}):
                    return Lag(rows, max(0.0, now.timestamp() - message.timestamp()[1] / 1e3))
        return Lag(rows, 0.0)

    def _position(self) -> dict[int, int] | None:
        with self.store.read() as session:
            found = session.get(Cursor, self.name)
            return None if found is None else self._read(found.position)

    def _move(self, offsets: Mapping[int, int], now: datetime) -> None:
        """Leave messages behind that are not to be scored, or are gone."""
        with self.store.write() as session:
            cursor = session.get(Cursor, self.name) or Cursor(source=self.name, rows=0)
            stamps = (cursor.position or {}).get("stamps", {})
            cursor.position, cursor.moved_at = self._as_position(offsets, stamps), now
            session.add(cursor)

    def _stamps(self) -> Offsets:
        """By partition, the offset of the last message that was scored, and its time in milliseconds."""
        with self.store.read() as session:
            found = session.get(Cursor, self.name)
            return from_json(((found and found.position) or {}).get("stamps", {}))

    def _as_position(self, offsets: Mapping[int, int], stamps: Mapping[str, Sequence[int]]) -> dict[str, Any]:
        ends = {str(partition): end for partition, end in offsets.items()}
        return {"topic": self.topic.name, "offsets": ends, "stamps": dict(stamps)}

    def _read(self, position: Mapping[str, Any] | None) -> dict[int, int] | None:
        if position is None:
            return None
        if position.get("topic") != self.topic.name:
            raise SettingError(
                f"{self.name} was scored from {position.get('topic') or 'another kind of source'} so far, and its "
                f"source is {self.topic.describe()} now. Give `name` another value to begin anew."
            )
        return {int(partition): int(end) for partition, end in position["offsets"].items()}


def shared(waiting: Offsets, most: int) -> Offsets:
    """That many messages, as evenly among the partitions as they have some.

    >>> shared({0: (0, 100), 1: (5, 7), 2: (3, 3)}, 12)
    {0: (0, 10), 1: (5, 7)}
    """
    left = {partition: end - first for partition, (first, end) in waiting.items() if end > first}
    taken = dict.fromkeys(left, 0)
    while most > 0 and left:
        each = max(1, most // len(left))
        for partition in list(left):
            some = min(each, left[partition], most)
            taken[partition] += some
            left[partition] -= some
            most -= some
            if not left[partition]:
                del left[partition]
    return {each: (waiting[each][0], waiting[each][0] + some) for each, some in taken.items() if some}


def to_json(offsets: Offsets) -> dict[str, list[int]]:
    """Offsets as JSON can hold them."""
    return {str(partition): [first, end] for partition, (first, end) in offsets.items()}


def from_json(offsets: Mapping[str, Sequence[int]]) -> Offsets:
    """The offsets again.

    >>> from_json(to_json({3: (10, 20)}))
    {3: (10, 20)}
    """
    return {int(partition): (int(first), int(end)) for partition, (first, end) in offsets.items()}
