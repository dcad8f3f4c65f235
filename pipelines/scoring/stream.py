"""Score what has come in since the last time, every row once, whenever this process may be killed.

A batch is claimed first: its window is written down, so that after a crash the same rows are taken again. Then it is
read, judged and staged, which can take minutes and changes nothing. In the end one transaction puts the scores in their
place, moves the cursor and closes the batch. What cannot be part of that transaction (a file, another database) is
written just before it, in a way that doing it twice is the same as doing it once.
"""

from __future__ import annotations

import copy
import logging
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import sqlalchemy as sa
from sqlalchemy.orm import Session

from detector.cleaning.values import naive_utc
from detector.detectors.series.scorer import SequenceScorer
from detector.errors import DetectorError, SettingError, nearest
from detector.explain.reason import in_words
from detector.persist import bundle
from pipelines.alerts.grouping.gather import Gathered
from pipelines.alerts.outbox.enqueue import enqueue
from pipelines.config import Config, PolicySection, SeriesSection
from pipelines.factory.detector import exploration_of, policy_of
from pipelines.features.engine import featuring_of
from pipelines.features.state import past_of
from pipelines.ingest import Intake, Reading, open_intake
from pipelines.ingest.provenance import placed
from pipelines.jobs.context import Context, JobOutcome
from pipelines.prefetch import ahead
from pipelines.progress import counted
from pipelines.scoring.series import SeriesJudge
from pipelines.scoring.shadow import score_shadow, trial_of
from pipelines.scoring.staleness import Silence, with_notices
from pipelines.scoring.table import Judge, Judged, Surroundings, TabularJudge
from pipelines.sinks.files import QuarantineSink
from pipelines.sinks.open_landing import Landing, Staged, open_landing, quarantine_folder
from pipelines.store import Batch, DayFlags
from pipelines.testing.failpoints import fault

log = logging.getLogger("detector.score")

Finish = Callable[[Session, Batch, Reading], None]
"""Completes the transaction of a batch: moves the cursor, or leaves a trail."""

_loaded: dict[tuple[Path, PolicySection, SeriesSection], Judge] = {}


@dataclass
class Totals:
    """What a run of several batches came to."""

    batches: int = 0
    rows: int = 0
    scored: int = 0
    flagged: int = 0
    quarantined: int = 0

    def add(self, batch: Batch) -> None:
        """One more batch."""
        self.batches += 1
        for name in ("rows", "scored", "flagged", "quarantined"):
            setattr(self, name, getattr(self, name) + getattr(batch, name))


def score_new(context: Context) -> JobOutcome:
    """Score all that has come in, batch by batch; a batch that an earlier run left open comes first.

    Raises
    ------
    BundleError
        If there is no trained detector.
    SourceError, SinkError, StoreError
        If something cannot be read or written; the batch in hand is undone, and taken again by the next run.
    """
    scoring = Scoring(context, load_judge(context.config))
    totals, notices = Totals(), []
    scoring.tidy()
    while not context.stopping():
        batch = scoring.next_batch()
        notices += [notice for notice in scoring.intake.notices if notice not in notices]
        if batch is None:
            break
        if (refused := scoring.run(batch)) is not None:
            notices.append(refused)
            continue
        totals.add(batch)
        scoring.score_in_the_shadow(batch)
    if not totals.batches:
        scoring.tell_silence()
    for notice in notices:
        log.warning(notice)
    return outcome_of_totals(totals, notices)


def outcome_of_totals(totals: Totals, notices: Sequence[str]) -> JobOutcome:
    """What a run came to, for its record."""
    facts = {name: value for name, value in vars(totals).items() if name != "rows"}
    if notices:
        facts["notices"] = list(notices[:20])
    if not totals.batches:
        return JobOutcome(outcome="skipped", note="; ".join(notices) or "nothing new", facts=facts)
    note = f"scored {totals.scored:,} of {counted(totals.rows)}, flagged {totals.flagged:,}"
    if totals.quarantined:
        note += f", set aside {totals.quarantined:,}"
    return JobOutcome(rows=totals.rows, note="; ".join([note, *notices]), facts=facts)


def load_judge(config: Config) -> Judge:
    """The trained detector, kept in memory until another one takes its place."""
    folder = config.bundle.resolve()  # a link to a bundle may be moved to another one meanwhile
    version = bundle.fingerprint(folder)
    key = (folder, config.policy, config.series)
    judge = _loaded.get(key)
    if judge is None or judge.version != version:
        judge = judge_of(bundle.load(folder), version=version, config=config)
        _loaded.clear()
        _loaded[key] = judge
    return judge


def judge_of(scorer: bundle.Scorer, *, version: str, config: Config) -> Judge:
    """What scores batches with a detector of that kind.

    Raises
    ------
    SettingError
        If the policy does not fit the rows, or alerts name a column whose values are not at hand.
    """
    kept = config.alerts.columns_wanted(config.columns) if config.alerts.enabled else ()
    for name in kept:
        if name not in scorer.schema.features:
            raise SettingError(
                f"`alerts` names the column {name!r}, which the detector does not learn from, so its values are not at "
                f"hand. Name the key, the time, the entity or a feature. {nearest(name, scorer.schema.features)}"
            )
    policy = policy_of(config.policy, scorer.schema)
    if isinstance(scorer, SequenceScorer):
        return SeriesJudge(scorer, version=version, policy=policy, kept=kept, silence=Silence.of(config))
    featuring = featuring_of(config, trained=False)
    words = in_words if featuring is None else lambda reasons: in_words(featuring.in_own_words(reasons))
    exploration = exploration_of(config)
    return TabularJudge(scorer, version=version, policy=policy, kept=kept, words=words, exploration=exploration)


class Scoring:
    """The batches of one source, scored by one detector into one place.

    Parameters
    ----------
    context : Context
        Of the run.
    judge : Judge
        The detector.
    """

    def __init__(self, context: Context, judge: Judge) -> None:
        self.context = context
        self.store = context.store
        self.judge = judge
        self.past = past_of(context.config, self.store)
        raw = judge.schema if self.past is None else self.past.featuring.raw_schema(judge.schema)
        also = () if self.past is None else self.past.featuring.reader.optional
        self.intake: Intake = open_intake(context.config, self.store, raw, also=also)
        self.landing: Landing = open_landing(context.config, self.store, judge.schema)
        self.source = context.config.name

    def tidy(self) -> None:
        """Clear away what a crash left over."""
        if found := self.landing.tidy():
            log.warning("cleared away %d files of scores that a crash had left over", found)

    def next_batch(self) -> Batch | None:
        """The batch that is open, if its rows are still there, or a new claim; None if nothing is ready."""
        with self.store.read() as session:
            found = sa.select(Batch).where(Batch.source == self.source, Batch.state == "claimed").order_by(Batch.id)
            batch = session.scalars(found).first()
            session.expunge_all()
        if batch is not None:
            if self.intake.is_intact(batch.window):
                log.info("taking batch %d again, which an earlier run left open", batch.id)
                return batch
            log.warning("batch %d is given up: its input has changed since it was claimed", batch.id)
            self.give_up(batch)
        proposal = self.intake.propose(self.context.now)
        if proposal is None:
            return None
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
            fault("score.claiming")
            session.flush()
            session.expunge(batch)
        fault("score.claimed")
        return batch

    def give_up(self, batch: Batch) -> None:
        """Forget a claim of which nothing was kept."""
        self.landing.discard(batch.id)
        with self.store.write() as session:
            self.intake.release(session, batch.window)
            session.execute(sa.delete(Batch).where(Batch.id == batch.id))
            self.context.fence(session)

    def run(self, batch: Batch, *, finish: Finish | None = None) -> str | None:
        """Score a claimed batch; what is said if a part of it had to be set aside, and the rest was given back."""
        started = time.perf_counter()
        try:
            self.process(batch, finish=finish or self.finish, thoroughly=batch.purpose == "backfill")
        except DetectorError as error:
            refused = self.intake.refuse(batch.window, error, now=self.context.now)
            if refused is None:
                raise
            self.give_up(batch)
            return refused
        log.info(
            "batch %d: scored %d rows, flagged %d",
            batch.id,
            batch.scored,
            batch.flagged,
            extra={"batch": batch.id, "rows": batch.rows, "seconds": round(time.perf_counter() - started, 3)},
        )
        return None

    def score_in_the_shadow(self, batch: Batch) -> None:
        """Have a challenger score the batch too, if one is on trial; that it fails harms nothing."""
        config = self.context.config
        measured = [] if self.past is None else self.past.let_go()
        if trial_of(config) is None:
            return
        try:
            frames = self.intake.open(batch.window).frames() if self.past is None else iter(measured)
            score_shadow(config, pd.concat(list(frames)), batch=f"batch-{batch.id}", now=self.context.now)
        except DetectorError as error:
            log.warning("the challenger could not score batch %d: %s", batch.id, error)
        except Exception:
            log.exception("the challenger could not score batch %d", batch.id)

    def tell_silence(self) -> None:
        """Have machines told that say nothing, where nobody else says anything either."""
        if not isinstance(self.judge, SeriesJudge):
            return
        notices = self.judge.silent(self.store, self.source, self.context.now)
        if notices.empty:
            return
        with self.store.write() as session:
            enqueue(session, notices, config=self.context.config, now=self.context.now)
            self.context.fence(session)

    def process(
        self,
        batch: Batch,
        *,
        finish: Finish,
        thoroughly: bool = False,
        replaces: bool = False,
        reading: Reading | None = None,
    ) -> None:
        """Read, judge, stage; then put everything in its place in one transaction, which ``finish`` completes."""
        reading = _with_fault(reading or self.intake.open(batch.window))
        known = partial(self.landing.known, batch=batch.id, thoroughly=thoroughly)
        moves = self.past is not None and batch.purpose == "score" and not replaces
        fault("score.opened")
        with tempfile.TemporaryDirectory(prefix="detector-") as name:
            folder, path = Path(name), quarantine_folder(self.context.config) / f"batch-{batch.id:08d}.csv"
            with QuarantineSink(path, columns=reading.columns) as quarantine:
                if self.past is not None:
                    reading = (
                        self.past.of(reading, self.intake, quarantine, known=known, now=self.context.now)
                        if moves
                        else self.past.at_their_time(
                            reading, self.intake, batch.window, quarantine, now=self.context.now
                        )
                    )
                judged = self.judge.judge(
                    reading,
                    Surroundings(
                        folder=folder,
                        quarantine=quarantine,
                        given=partial(self._given, batch.id),
                        known=known,
                        checkpoint=self.context.checkpoint,
                        store=self.store,
                        source=self.source,
                        now=self.context.now,
                        goes_on=batch.purpose == "score" and not replaces,
                    ),
                )
                fault("score.judged")
                gathered = Gathered(self.context.config)
                described = self._described(judged.frames, reading, batch, placed_already=judged.is_placed)
                frames = self._bare(gathered.watch(described))
                staged = self.landing.stage(
                    ahead(frames), batch=batch.id, version=self.judge.version, folder=folder, replaces=replaces
                )
            fault("score.staged")
            told = with_notices(gathered.verdicts(), judged.notices) if batch.purpose == "score" else None
            if moves and self.past is not None:
                self.past.keep(batch.id)
            self._commit(batch, reading, judged, staged, quarantine.rows, finish, told)
            if moves and self.past is not None:
                self.past.moved(batch.id)

    def _commit(
        self,
        batch: Batch,
        reading: Reading,
        judged: Judged,
        staged: Staged,
        quarantined: int,
        finish: Finish,
        told: pd.DataFrame | None,
    ) -> None:
        self.context.checkpoint()
        with self.store.write() as session:
            self.context.fence(session)
        self.landing.deliver(staged)
        with self.store.write() as session:
            self.landing.commit(staged, session, now=self.context.now)
            batch.model_version, batch.run = self.judge.version, self.context.run
            batch.rows, batch.scored, batch.flagged = reading.rows, judged.scored, judged.flagged
            batch.quarantined = quarantined
            batch.state, batch.done_at = "done", self.context.now
            kept = session.merge(batch)
            session.execute(sa.delete(DayFlags).where(DayFlags.batch == batch.id))
            for day, flagged in judged.by_day.items():
                session.add(DayFlags(batch=batch.id, day=day, source=self.source, flagged=flagged))
            fault("score.moving")
            finish(session, kept, reading)
            if told is not None:
                enqueue(session, told, config=self.context.config, now=self.context.now)
            judged.keep(session, batch.id)
            session.flush()
            self.context.fence(session)
            self.landing.show(staged)
            fault("score.committing")
        fault("score.committed")

    def finish(self, session: Session, batch: Batch, reading: Reading) -> None:
        """Move the cursor over what a batch has read."""
        window = copy.deepcopy(batch.window)
        self.intake.settle(session, window, reading, batch=batch.id, now=self.context.now)
        batch.window = window

    def _bare(self, frames: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        """Without the features that only alerts tell."""
        beside = list(getattr(self.judge, "kept", ()))
        return frames if not beside else (frame.drop(columns=beside, errors="ignore") for frame in frames)

    def _given(self, batch: int, days: Sequence[date]) -> dict[date, int]:
        """How many rows of some days other batches have flagged."""
        statement = (
            sa.select(DayFlags.day, sa.func.sum(DayFlags.flagged))
            .where(DayFlags.source == self.source, DayFlags.batch != batch, DayFlags.day.in_(list(days)))
            .group_by(DayFlags.day)
        )
        with self.store.read() as session:
            return {day: int(flagged) for day, flagged in session.execute(statement)}

    def _described(
        self, frames: Iterator[pd.DataFrame], reading: Reading, batch: Batch, *, placed_already: bool
    ) -> Iterator[pd.DataFrame]:
        """The verdicts with their model, batch and time, and where each row came from if no key names it."""
        scored_at = naive_utc(self.context.now)
        for frame in frames:
            self.context.checkpoint()
            if frame.empty:
                continue
            named = frame
            if self.judge.schema.key is None and not placed_already:
                named = placed(frame, reading.spans)
            yield named.assign(model_version=self.judge.version, scored_at=scored_at, batch=batch.id)


def _with_fault(reading: Reading) -> Reading:
    """The same, with a point at which each part that was read can be the last."""
    frames = reading.frames

    def _frames() -> Iterator[pd.DataFrame]:
        for frame in frames():
            fault("score.read")
            yield frame

    reading.frames = _frames
    return reading
