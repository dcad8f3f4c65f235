"""Score what has come in since the last time, every row once, whenever this process may be killed.

A batch is claimed first: its window is written down, so that after a crash the same rows are taken again. Then it is
read, scored and staged, which can take minutes and changes nothing. In the end one transaction puts the scores in their
place, moves the cursor and closes the batch. What cannot be part of that transaction (a file, another database) is
written just before it, in a way that doing it twice is the same as doing it once.
"""

from __future__ import annotations

import copy
import logging
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import sqlalchemy as sa
from sqlalchemy.orm import Session

from detector.cleaning.values import naive_utc
from detector.errors import DetectorError, StoreError
from pipelines.alerts.grouping.gather import Gathered
from pipelines.alerts.outbox.enqueue import enqueue
from pipelines.features.feature_state import FeatureState, feature_state_of
from pipelines.features.held_events import release
from pipelines.ingest.batch import InputBatch, ReadFacts
from pipelines.ingest.contract import FollowedSource
from pipelines.ingest.dedupe import KnownKeys
from pipelines.ingest.followed import open_followed
from pipelines.ingest.provenance import with_provenance
from pipelines.jobs.context import Context
from pipelines.prefetch import prefetch
from pipelines.rules.names import FOR_ALERTS
from pipelines.rules.run import RuleRun
from pipelines.rules.serving import begin_rules, keep_tallies, note_rules, switch_off
from pipelines.scoring.contract import AdjacentBatches, BatchContext, BatchScorer, ScoredBatch, nothing_known
from pipelines.scoring.day_flags import flagged_by_day
from pipelines.scoring.repeats import Mode, Repeats, repeats_in_words
from pipelines.scoring.series_tails import keep_memory, load_memory
from pipelines.scoring.shadow import ShadowTrial
from pipelines.scoring.staged_batch import StagedBatch
from pipelines.scoring.staleness import with_notices
from pipelines.scoring.unusable import report_rows, warn_of_rows
from pipelines.scoring.written import as_written
from pipelines.sinks.batch_files import open_batch_sink
from pipelines.sinks.batch_sink import BatchSink
from pipelines.sinks.quarantine import QuarantineSink, quarantine_folder
from pipelines.store import Batch, DayFlags
from pipelines.testing.failpoints import failpoint

log = logging.getLogger("detector.score")

Finish = Callable[[Session, Batch, ReadFacts], None]
"""Completes the transaction of a batch: moves the cursor, or leaves a trail."""


@dataclass
class Scoring:
    """The batches of one source, scored by one detector into one place."""

    context: Context
    scorer: BatchScorer
    state: FeatureState | None = field(init=False)
    followed: FollowedSource = field(init=False)
    sink: BatchSink = field(init=False)
    reasons: Counter[str] = field(default_factory=Counter)
    """Quarantined rows of all batches by the kind of their reason."""
    held: Counter[str] = field(default_factory=Counter)
    """Rows of all batches that gates held back, by gate."""
    is_last: bool = field(default=False, init=False)
    """Whether the batch that was claimed takes all that was there."""

    def __post_init__(self) -> None:
        config, self.store, self.source = self.context.config, self.context.store, self.context.config.name
        schema = self.scorer.schema
        self.state = feature_state_of(config, self.store, self.context.cache)
        raw = schema if self.state is None else self.state.engine.raw_schema(schema)
        also = (() if self.state is None else self.state.engine.reader.optional) + config.columns.for_rules
        self.followed = open_followed(config, self.store, raw, also=also)
        self.repeats = Repeats(self.context, raw)
        self.sink = open_batch_sink(config, self.store, schema)

    def tidy(self) -> None:
        """Clear away what a crash left over."""
        if found := self.sink.tidy():
            log.warning("cleared away %d files of scores that a crash had left over", found)

    def next_batch(self) -> Batch | None:
        """The batch that is open, if its rows are still there, or a new claim; None if nothing is ready."""
        with self.store.read() as session:
            found = sa.select(Batch).where(Batch.source == self.source, Batch.state == "claimed").order_by(Batch.id)
            batch = session.scalars(found).first()
            session.expunge_all()
        if batch is not None:
            if self.followed.is_intact(batch.window):
                log.info("taking batch %d again, which an earlier run left open", batch.id)
                return batch
            log.warning("batch %d is given up: its input has changed since it was claimed", batch.id)
            self.give_up(batch)
        proposal = self.followed.propose(self.context.now)
        if proposal is None:
            return None
        self.is_last = proposal.is_last
        return self.claim(proposal.window, proposal.claim, purpose="score")

    def claim(self, window: Mapping[str, Any], mark: Callable[[Session, int], None], *, purpose: str) -> Batch:
        """Write down which rows come next."""
        with self.store.write() as session:
            batch = Batch(
                source=self.source,
                purpose=purpose,
                window=dict(window),
                state="claimed",
                model_version="",
                run=self.context.run,
                claimed_at=self.context.now,
            )
            session.add(batch)
            session.flush()
            mark(session, batch.id)
            self.context.fence(session)
            failpoint("score.claiming")
            session.flush()
            session.expunge(batch)
        failpoint("score.claimed")
        return batch

    def give_up(self, batch: Batch) -> None:
        """Forget a claim of which nothing was kept."""
        self.sink.discard(batch.id)
        with self.store.write() as session:
            self.followed.release(session, batch.window)
            session.execute(sa.delete(Batch).where(Batch.id == batch.id))
            self.context.fence(session)

    def run(self, batch: Batch, *, finish: Finish | None = None) -> str | None:
        """Score a claimed batch; what is said if a part of it had to be quarantined, and the rest was given back."""
        started = time.perf_counter()
        mode: Mode = "backfill" if batch.purpose == "backfill" else "score"
        try:
            staged = self.process(batch, mode=mode, finish=finish or self.finish)
        except DetectorError as error:
            refused = self.followed.refuse(batch.window, error, now=self.context.now)
            if refused is None:
                raise
            self.give_up(batch)
            return refused
        log.info(
            "batch %d: scored %d rows, flagged %d%s",
            batch.id,
            batch.scored,
            batch.flagged,
            "".join(f"; {each}" for each in repeats_in_words(batch.repeated, batch.corrected)),
            extra={"batch": batch.id, "rows": batch.rows, "seconds": round(time.perf_counter() - started, 3)},
        )
        self.reasons.update(staged.quarantine.reasons)
        self.held.update(staged.scored.held)
        warn_of_rows(batch, staged.quarantine.reasons, self._quarantine_of(batch), config=self.context.config)
        self._shadow(batch, staged)
        return None

    def process(
        self,
        batch: Batch,
        *,
        mode: Mode,
        finish: Finish,
        rows: InputBatch | None = None,
        around: AdjacentBatches | None = None,
    ) -> StagedBatch:
        """Read, score, stage; then put everything in its place in one transaction, which ``finish`` completes.

        ``rows`` are those of the batch's window if not given; a detector that goes on needs those ``around`` a batch
        that is scored again.
        """
        rows = (rows or self.followed.open(batch.window)).map(_with_failpoint)
        failpoint("score.opened")
        repeats = self.repeats.of_batch(batch, mode, self.followed, self.sink)
        rows = rows if repeats is None else repeats.without(rows)
        state = self.state if mode == "score" else None
        try:
            with tempfile.TemporaryDirectory(prefix="detector-") as folder:
                staged = replace(self._stage(batch, rows, Path(folder), mode, around), repeats=repeats)
                if state is not None:
                    state.stage(batch.id)
                self._commit(batch, staged, finish)
        except BaseException:
            if state is not None:
                state.rolled_back()
            raise
        if state is not None:
            state.committed(batch.id)
        return staged

    def finish(self, session: Session, batch: Batch, facts: ReadFacts) -> None:
        """Move the cursor over what a batch has read."""
        window = copy.deepcopy(batch.window)
        self.followed.settle(session, window, facts, batch=batch.id, now=self.context.now)
        batch.window = window

    def _stage(
        self, batch: Batch, rows: InputBatch, folder: Path, mode: Mode, around: AdjacentBatches | None
    ) -> StagedBatch:
        """Score a batch and write its scores to where nobody sees them yet."""
        config, now = self.context.config, self.context.now
        known: KnownKeys = partial(self.sink.known, batch=batch.id, thoroughly=mode == "backfill")
        if around is not None:
            now, known = batch.claimed_at, nothing_known
        memory = load_memory(self.store, self.source) if mode == "score" and self.scorer.needs_memory else None
        gathered = Gathered(config)
        trial = ShadowTrial.of(config, self.context.cache, now=now) if mode == "score" else None
        rules = self._rules()
        # A replay by keys reads only rows that have scores: those in the quarantine stay there.
        adds = mode == "replay" and around is None and self.scorer.schema.key is not None
        with self._quarantine(batch, rows, mode, adds=adds) as quarantine:
            if self.state is not None and mode == "score":
                rows = self.state.measure(rows, self.followed, quarantine, known=known, now=now)
            elif self.state is not None:
                rows = self.state.measure_at_their_time(rows, self.followed, batch.window, quarantine, now=now)
            scored = self.scorer.score(
                rows,
                BatchContext(
                    folder=folder,
                    quarantine=quarantine,
                    now=now,
                    used=partial(flagged_by_day, self.store, self.source, but=batch.id),
                    known=known,
                    checkpoint=self.context.checkpoint,
                    memory=memory,
                    around=around,
                    rules=rules,
                ),
            )
            failpoint("score.computed")
            frames = self._described(scored, rows.facts, batch)
            frames = gathered.watch(frames if trial is None else trial.watch(frames))
            hidden = [*self.scorer.alert_columns, *FOR_ALERTS]
            output = self.sink.stage(
                prefetch(as_written(frame.drop(columns=hidden, errors="ignore")) for frame in frames),
                batch=batch.id,
                version=self.scorer.version,
                folder=folder,
                replaces=mode == "replay",
            )
        failpoint("score.staged")
        return StagedBatch(
            scored=scored,
            output=output,
            facts=rows.facts,
            rows=scored.scored + quarantine.rows if adds else rows.facts.given,
            quarantine=quarantine,
            is_replay=mode == "replay",
            alerts=with_notices(gathered.scores(), scored.notices) if batch.purpose == "score" else None,
            trial=trial,
            memory=memory,
            rules=rules,
        )

    def _quarantine(self, batch: Batch, rows: InputBatch, mode: Mode, *, adds: bool) -> QuarantineSink:
        """Where rows that cannot be used go; ``adds`` keeps those that are there already.

        Of a table's files and offsets it names each row's place, but not of a replay, which numbers the rows it chose.
        """
        config = self.context.config
        has_places = config.kind == "table" and mode != "replay" and batch.window.keys() & {"files", "offsets"}
        return QuarantineSink(
            self._quarantine_of(batch),
            columns=rows.columns,
            escape=config.output.escape_formulas,
            spans=rows.facts.spans if has_places else None,
            adds=adds,
        )

    def _rules(self) -> RuleRun | None:
        """The rules that hold now, for one batch; None for series."""
        context = self.context
        if context.config.kind == "sensors":
            return None
        note_rules(context.config, self.store, now=context.now)
        return begin_rules(context.config, self.store, self.scorer.schema, context.cache, now=context.now)

    def _commit(self, batch: Batch, staged: StagedBatch, finish: Finish) -> None:
        self.context.checkpoint()
        with self.store.write() as session:
            self._check_state(staged.expected_state, batch, session)
            self.context.fence(session)
        self.sink.deliver(staged.output)
        with self.store.write() as session:
            self._check_state(staged.expected_state, batch, session)
            self.sink.commit(staged.output, session, now=self.context.now)
            record = self._record(session, batch, staged)
            failpoint("score.moving")
            finish(session, record, staged.facts)
            self._report(session, batch, staged)
            session.flush()
            self.context.fence(session)
            self.sink.show(staged.output)
            failpoint("score.committing")
        failpoint("score.committed")

    def _record(self, session: Session, batch: Batch, staged: StagedBatch) -> Batch:
        """Close the batch, and store what the next one needs of it; returns the batch as the session knows it."""
        scored, quarantine, repeats = staged.scored, staged.quarantine, staged.repeats
        batch.model_version, batch.run = self.scorer.version, self.context.run
        batch.rows, batch.scored, batch.flagged = staged.rows, scored.scored, scored.flagged
        batch.quarantined = quarantine.rows
        if repeats is not None:
            batch.repeated, batch.corrected = repeats.skipped, repeats.corrected(quarantine.labels)
            if not staged.is_replay:
                repeats.keep(session, quarantine.labels)
        batch.state, batch.done_at = "done", self.context.now
        session.execute(sa.delete(DayFlags).where(DayFlags.batch == batch.id))
        for day, flagged in scored.by_day.items():
            session.add(DayFlags(batch=batch.id, day=day, source=self.source, flagged=flagged))
        if scored.memory is not None and not staged.is_replay:
            keep_memory(session, self.source, scored.memory, batch=batch.id)
        if self.state is not None and batch.purpose == "score" and not staged.is_replay:
            release(session, self.source, self.state.added_keys)
        return session.merge(batch)

    def _report(self, session: Session, batch: Batch, staged: StagedBatch) -> None:
        """Alerts about the scores, about rows that could not be used, and about rules that failed."""
        config, now = self.context.config, self.context.now
        if staged.alerts is not None:
            enqueue(session, staged.alerts, config=config, now=now)
        if batch.purpose == "score" and not staged.is_replay:
            place = self._quarantine_of(batch)
            report_rows(session, batch, staged.quarantine.reasons, place, config=config, now=now)
        if staged.rules is not None:
            keep_tallies(session, batch, staged.rules.tallies)
            switch_off(session, staged.rules.left_out, config=config, now=now)

    def _check_state(self, state: str, batch: Batch, session: Session) -> None:
        found = session.get(Batch, batch.id)
        if found is None or found.state != state:
            became = "given up" if found is None else f"{found.state} already"
            raise StoreError(f"Batch {batch.id} is {became}, by another run; what this one had in hand was not kept.")

    def _quarantine_of(self, batch: Batch) -> Path:
        return quarantine_folder(self.context.config) / f"batch-{batch.id:08d}.csv"

    def _shadow(self, batch: Batch, staged: StagedBatch) -> None:
        """Have a challenger score the batch too, if one is on trial; that it fails harms nothing."""
        measured = [] if self.state is None else self.state.take_rows()
        if staged.trial is None:
            return
        try:
            rows = self.followed.open(batch.window)
            if self.state is not None:
                rows = replace(rows, read=lambda _: iter(measured), facts=staged.facts)
            staged.trial.score(rows, batch=batch.id, memory=staged.memory)
        except DetectorError as error:
            log.warning("the challenger could not score batch %d: %s", batch.id, error)
        except Exception:
            log.exception("the challenger could not score batch %d", batch.id)

    def _described(self, scored: ScoredBatch, facts: ReadFacts, batch: Batch) -> Iterator[pd.DataFrame]:
        """The scores with their model, batch and time, and where each row came from if no key names it."""
        scored_at = naive_utc(self.context.now)
        for frame in scored.frames:
            self.context.checkpoint()
            if frame.empty:
                continue
            named = frame
            if self.scorer.schema.key is None and not scored.has_provenance:
                named = with_provenance(frame, facts.spans)
            yield named.assign(model_version=self.scorer.version, scored_at=scored_at, batch=batch.id)


def _with_failpoint(frames: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
    """The same frames; before each, a test can let the process die."""
    for frame in frames:
        failpoint("score.read")
        yield frame
