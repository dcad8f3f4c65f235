"""Which rows of a batch came before: what is known at the start, and what a batch adds."""

from __future__ import annotations

import logging
from typing import Literal

import numpy as np
import sqlalchemy as sa

from detector.errors import SinkError
from detector.schema import Schema
from pipelines.config import Config
from pipelines.ingest.contract import FollowedSource
from pipelines.ingest.repeated_rows import RepeatedRows
from pipelines.ingest.row_marks import Marks, RowMarker, day_of, marks_of_keys
from pipelines.ingest.row_memory import RowMemory
from pipelines.jobs.context import Context
from pipelines.progress import counted
from pipelines.sinks.batch_sink import BatchSink
from pipelines.store import Batch, Store

log = logging.getLogger("detector.score")

Mode = Literal["score", "backfill", "replay"]
"""Rows that go on from the last batch; rows that were left out once; rows that were scored before."""


def repeats_in_words(repeated: int, corrected: int) -> list[str]:
    """What to say of rows that came before; nothing where none did.

    >>> repeats_in_words(3003, 1)
    ['skipped 3,003 rows that came before unchanged', '1 of the scored rows came before with other values']
    """
    found = [f"skipped {counted(repeated)} that came before unchanged"] if repeated else []
    return found + ([f"{corrected:,} of the scored rows came before with other values"] if corrected else [])


def memory_of(config: Config, store: Store, schema: Schema) -> tuple[RowMarker, RowMemory] | None:
    """What tells the rows of a source, and what is known of them; None where no column names a row.

    - ``schema``: of rows as they come, before they have features.
    """
    if schema.key is None:
        return None
    marker = RowMarker(schema, key=schema.key, also=config.columns.for_rules)
    return marker, RowMemory(store, config.name, columns=marker.columns)


class Repeats:
    """Tells the rows of the batches of one source that came before.

    - ``schema``: of rows as they come.
    """

    def __init__(self, context: Context, schema: Schema) -> None:
        self.context = context
        self._known = memory_of(context.config, context.store, schema)
        if self._known is not None and not context.config.skips_repeated_rows:
            self._known[1].forget_all()  # else what is known would be out of date once they are skipped again
            self._known = None

    def of_batch(self, batch: Batch, mode: Mode, followed: FollowedSource, sink: BatchSink) -> RepeatedRows | None:
        """What takes repeated rows out of a batch; None if that is not asked for, or no column names a row.

        What is scored again is looked through for rows that several of its files hold, and a backfill scores whatever
        has no scores.
        """
        if self._known is None:
            return None
        marker, memory = self._known
        day, days = day_of(self.context.now), self.context.config.service.keep_keys
        if mode == "score" and memory.is_empty:
            self._begin(batch, followed, sink, day=day)
        return RepeatedRows(marker, memory, looks_back=mode == "score", day=day, days=days)

    def _begin(self, batch: Batch, followed: FollowedSource, sink: BatchSink, *, day: int) -> None:
        """Know the rows that have scores already, of which only the key is left, and those of files left out."""
        assert self._known is not None
        marker, memory = self._known
        own = (Batch.source == self.context.config.name, Batch.state == "done", Batch.id != batch.id)
        with self.context.store.read() as session:
            done = list(session.scalars(sa.select(Batch.id).where(*own).order_by(Batch.id)))
        found: list[Marks] = []
        for other in done:
            try:
                found.append(marks_of_keys(sink.keys_of(other), day=day))
            except SinkError as error:
                log.warning("rows of batch %d are scored again if they come again: %s", other, error)
        found += [marker.marks(frame, day=day)[0] for frame in followed.skipped()]
        if not (known := sum(marks.shape[1] for marks in found)):
            return
        with self.context.store.write() as session:
            memory.add(session, np.hstack(found), since=0)
            self.context.fence(session)
        log.info("%d rows that were scored or left out are known from now on, and skipped if they come again", known)
