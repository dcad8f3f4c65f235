"""The past of a source's entities in the service: it moves with the cursor, and a crash loses nothing of it.

A snapshot holds the past after some batch. What a later batch adds to it lies beside, in a file that is written under
the batch's number before the batch is committed, and counts once the database says that the batch is done. Where the
files do not fit the database (it was restored, or other features were configured), the past is built anew from the rows
of the source that lie behind the cursor.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import sqlalchemy as sa

from detector.cleaning.values import read_dates
from detector.errors import BundleError
from detector.features import History
from pipelines.config import Config
from pipelines.features import rebuild, stored_history
from pipelines.features.engine import (
    PAST,
    ROWS,
    FeatureEngine,
    feature_engine_of,
    history_folder,
    report_known,
)
from pipelines.features.featured_rows import FeaturedRows
from pipelines.features.frames import joined, slices
from pipelines.features.passed_rows import known_rows, rows_of_the_same_entities
from pipelines.features.snapshots import Snapshots
from pipelines.ingest.batch import InputBatch
from pipelines.ingest.contract import FollowedSource
from pipelines.ingest.dedupe import KnownKeys
from pipelines.jobs.context import ProcessCache
from pipelines.sinks.quarantine import QuarantineSink
from pipelines.store import Batch, Store

log = logging.getLogger("detector.features")

MOST_ROWS, BATCHES = 500_000, 100
"""After so many rows or batches a snapshot is written, and the files before it are deleted."""
MOST_LATE = 0.1
"""A first batch with a larger share of rows from before the end of training is no late batch: it is history."""
LEAST_HELD = 100e6
"""Bytes of changes that a past on disk may hold in memory in any case: fewer, and it would be written too often."""
READ_LABELS_EVERY = timedelta(days=1)


def feature_state_of(config: Config, store: Store, cache: ProcessCache) -> FeatureState | None:
    """The state of the configured source, kept in memory between runs; None if no features are configured.

    Raises ``SettingError`` if the features cannot be measured.
    """
    folder = history_folder(config) / config.name

    def make() -> FeatureState | None:
        engine = feature_engine_of(config, trained=False)
        return None if engine is None else FeatureState(engine, folder, store, config.name)

    token = (store, config.kind, config.features, config.columns, config.train.head)
    return cache.of(("feature state", folder), token, make)


class FeatureState:
    """What features know of one source's entities, up to the batch that was scored last.

    The engine holds the history in memory, the folder keeps it, and the store knows which batches are done. A batch is
    measured, then staged before its transaction, and after that either committed or rolled back.

    - ``lock``: Held while the history moves; whoever reads it meanwhile sees all of a batch, or nothing.
    """

    def __init__(self, engine: FeatureEngine, folder: Path, store: Store, source: str) -> None:
        self.engine = engine
        self.folder = folder
        self.snapshots = Snapshots(folder, engine)
        self.store = store
        self.source = source
        self._rows: list[pd.DataFrame] = []
        self._up_to: int | None = None
        """The batch up to which the history in memory goes; None while another is open, or where that is not known."""
        self._added = pd.DataFrame()
        self._since = (0, 0)
        """Rows and batches since the last snapshot."""
        self._labels_read_at: datetime | None = None
        self._checked: tuple[int, int] | None = None
        self.lock = threading.Lock()
        self._has_open_batch = False
        """Whether the history goes up to a batch that is not done yet."""
        self._open_keys: frozenset[str] | None = None
        """The keys of its rows, once somebody has asked."""
        self._trained: tuple[object, History] | None = None

    def measure(
        self,
        batch: InputBatch,
        followed: FollowedSource,
        quarantine: QuarantineSink,
        *,
        known: KnownKeys,
        now: datetime,
    ) -> InputBatch:
        """The rows of a new batch with their features. They are read as a whole: an entity's lie in any order.

        ``known`` says which keys were scored before: such rows do not belong to the state a second time.
        """

        def featured(frames: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
            whole = joined(frames)
            due = self._labels_are_due(now)
            said = self._known_rows(followed) if due and self.engine.features.knows else None
            with self.lock:
                self._has_open_batch = False
                self._catch_up(followed, said)
                self._labels_read_at = now if due else self._labels_read_at
                self._added, self._rows = pd.DataFrame(), []
                if whole is None:
                    return
                if self._up_to == 0:
                    self._begin(whole[self.engine.features.time])
                last_done, self._up_to = self._up_to, None
                found = self._push(whole, last_done or 0, followed, known=known, now=now)
                self._added, self._has_open_batch, self._open_keys = found.taken, True, None
            del whole
            quarantine.write(found.quarantine)
            self._rows = slices(found.rows)
            yield from self._rows

        return batch.map(featured)

    def measure_at_their_time(
        self,
        batch: InputBatch,
        followed: FollowedSource,
        window: Mapping[str, Any],
        quarantine: QuarantineSink,
        *,
        now: datetime,
    ) -> InputBatch:
        """The same for rows behind the cursor: what their past was is read from the source; the history stays."""
        features = self.engine.features

        def featured(frames: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
            whole = joined(frames)
            if whole is None:
                return
            self.engine.reader.refresh_statements()
            own = self.engine.typed(whole)
            begin, end = own[features.time].min() - self.engine.reach, own[features.time].max()
            before = rows_of_the_same_entities(self.engine, followed.passed(window), own, since=begin, until=end)
            if features.key is not None:
                before = before[~before[features.key].isin(set(own[features.key]))]
            found = self.engine.compute(whole, now=pd.Timestamp(now), before=before)
            quarantine.write(found.quarantine)
            yield from slices(found.rows)

        return batch.map(featured)

    def check(self) -> None:
        """Whether a first batch could go on from what training left; nothing to ask once there was one.

        Raises ``BundleError, DataError`` if it could not: scoring waits then, see ``_begin``.
        """
        file = stored_history.find(self.folder.parent / PAST)
        stamp = (file.stat().st_mtime_ns, file.stat().st_size) if file.exists() else None
        if self._checked == stamp and stamp is not None:
            return
        if not self._last_done():
            _, begun = self.snapshots.latest(0)
            if begun is None or begun.latest is None:
                self.engine.recall(self.folder.parent)
        self._checked = stamp

    def stage(self, batch: int) -> None:
        """Write down what a batch adds, before its transaction; doing it twice is the same as doing it once."""
        self.snapshots.keep(batch, self._added)

    def committed(self, batch: int) -> None:
        """After its transaction: the batch is done, and the history in memory goes up to it."""
        with self.lock:
            self._up_to, self._has_open_batch = batch, False
            rows, batches = self._since
            self._since = (rows + len(self._added), batches + 1)
            self._added = pd.DataFrame()
        if self._since[0] >= MOST_ROWS or self._since[1] >= BATCHES or self._holds_much():
            self._write_snapshot(batch)

    def rolled_back(self) -> None:
        """Its transaction failed: the history in memory, which has the batch, is loaded anew before the next one."""
        with self.lock:
            self._up_to, self._has_open_batch, self._added = None, False, pd.DataFrame()

    def history_for(
        self, times: Sequence[Any], followed: Callable[[], FollowedSource], last_done: int
    ) -> tuple[History, frozenset[str]]:
        """The history that rows of the next batch would go on from, and the keys in it of a batch that is in hand.

        To be called, and the history to be read, while ``lock`` is held.

        - ``times``: when the rows happened, as they came.
        - ``last_done``: the last batch that is done, looked up since then.
        """
        if self._has_open_batch:
            if self._open_keys is None:
                self._open_keys = frozenset(self.added_keys)
            return self.engine.history, self._open_keys
        if self._up_to is None or self._up_to != last_done:
            self._load(last_done, followed())
        return self.engine.history if last_done else self._begins_with(pd.Series(times, dtype=object)), frozenset()

    @property
    def added_keys(self) -> list[str]:
        """The keys of the rows that the batch in hand adds to the past, as text."""
        key = self.engine.features.key
        return [] if key not in self._added else self._added[key].astype(str).tolist()

    def take_rows(self) -> list[pd.DataFrame]:
        """The rows of the last batch with their features, in parts; they are held no longer."""
        rows, self._rows = self._rows, []
        return rows

    def _push(
        self, rows: pd.DataFrame, last_done: int, followed: FollowedSource, *, known: KnownKeys, now: datetime
    ) -> FeaturedRows:
        """The rows with their features; a past on disk of which a part turns out to be broken is built anew first."""
        try:
            return self.engine.push(rows, now=pd.Timestamp(now), known=known)
        except BundleError as error:
            if not last_done or not self.engine.history.is_spilled:
                raise
            log.warning("%s", error)
        self._rebuild(last_done, followed)
        self._up_to = None
        return self.engine.push(rows, now=pd.Timestamp(now), known=known)

    def _labels_are_due(self, now: datetime) -> bool:
        """Whether it is time to ask what was said of rows, and it could be asked."""
        if self._labels_read_at is not None and now - self._labels_read_at < READ_LABELS_EVERY:
            return False
        return self.engine.reader.refresh_statements()

    def _known_rows(self, followed: FollowedSource) -> pd.DataFrame | None:
        """What labels, reports and verdicts say of the rows behind the cursor, and of those of training.

        All of them are read, which can take long, so nobody who reads the history should have to wait for it.
        """
        try:
            learnt = self.engine.reader.read_learnt(self.folder.parent / ROWS)
        except BundleError as error:
            log.warning("%s", error)
            learnt = None
        return known_rows(self.engine, followed.passed, learnt)

    def _catch_up(self, followed: FollowedSource, said: pd.DataFrame | None) -> None:
        """Bring the history to where the database says that the scores are, and report to it what was said of rows."""
        last_done = self._last_done()
        if self._up_to != last_done or not last_done:
            self._load(last_done, followed)
        if report_known(self.engine.history, said):
            self._write_snapshot(last_done)

    def _load(self, last_done: int, followed: FollowedSource) -> None:
        base, history = self.snapshots.latest(last_done)
        following = self._done_after(base)
        if not last_done or history is None or not all(self.snapshots.added(batch).exists() for batch in following):
            self._rebuild(last_done, followed)
            return
        rows = 0
        for batch in following:
            try:
                added = pd.read_parquet(self.snapshots.added(batch))
            except (OSError, ValueError) as error:  # cut off, by a power cut perhaps
                log.warning("%s is broken: %s", self.snapshots.added(batch), error)
                self._rebuild(last_done, followed)
                return
            rows += len(added)
            if len(added):
                history.learn(added)
        self.engine.history = history
        self._up_to, self._since = last_done, (rows, len(following))

    def _rebuild(self, last_done: int, followed: FollowedSource) -> None:
        history, rows = rebuild.from_source(self.engine, followed.passed(), self.folder)
        self.engine.history = history or self.engine.empty()
        if history is not None:
            log.info("the past of %s is built from %d rows of the source", self.source, rows)
        elif last_done:
            log.warning("the past of %s is lost and begins anew: the source holds none of its scored rows", self.source)
        self._up_to = last_done
        self._write_snapshot(last_done)

    def _begin(self, times: pd.Series) -> None:
        """Before the very first batch: go on from the state that training left.

        A source with many rows from before the end of training is followed from its beginning, and has a state of
        its own. A few rows of that kind are late, and quarantined as others that come too late are.

        Raises ``BundleError, DataError`` if that state is missing, broken, or of other features: nothing is scored as
        if everything were new.
        """
        self.engine.history = self._begins_with(times)
        self._trained = None
        self._write_snapshot(0)

    def _begins_with(self, times: pd.Series) -> History:
        """What the very first rows go on from: as it is if there is something, or what training left, or nothing."""
        file = stored_history.find(self.folder.parent / PAST)
        stamp = file.stat().st_mtime_ns if file.exists() else None
        if self.engine.history.latest is not None:
            return self.engine.history
        if self._trained is None or self._trained[0] != stamp:
            self._trained = stamp, self.engine.recall(self.folder.parent)
        trained = self._trained[1]
        if trained.latest is None:
            return self.engine.history
        when = read_dates(times)[0].dropna()
        end = pd.Timestamp(trained.latest - trained.lateness, unit="us")
        if (when < end).mean() <= MOST_LATE:
            return trained
        log.warning(
            "many rows of the first batch are older than the end of training (%s): the features of %s begin anew with "
            "it, and what training knew of its entities does not count",
            end,
            self.source,
        )
        return self.engine.history

    def _write_snapshot(self, last_done: int) -> None:
        self.snapshots.write(last_done)
        self._since = (0, 0)

    def _holds_much(self) -> bool:
        """Whether what has changed since the past on disk was written takes more memory than the past may take."""
        history, most = self.engine.history, max(self.engine.most_bytes, LEAST_HELD)
        return history.is_spilled and history.bytes_in_memory > most

    def _last_done(self) -> int:
        with self.store.read() as session:
            return session.scalar(self._done(sa.func.max(Batch.id))) or 0

    def _done_after(self, base: int) -> list[int]:
        with self.store.read() as session:
            return list(session.scalars(self._done(Batch.id).where(Batch.id > base).order_by(Batch.id)))

    def _done(self, what: Any) -> Any:
        return sa.select(what).where(Batch.source == self.source, Batch.state == "done", Batch.purpose == "score")
