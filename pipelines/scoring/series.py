"""Batches of readings, scored with the last rows of each series, as if all had come at once."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from detector.cleaning.clean import clean
from detector.cleaning.quarantine import quarantine
from detector.cleaning.values import naive_utc
from detector.decide.days import counts_by_day
from detector.decide.policy import Policy
from detector.detectors.series.events import event_reasons_of
from detector.detectors.series.groups import group_numbers
from detector.detectors.series.scorer import SequenceScorer
from detector.detectors.series.stream import Continued, Tail, continue_series, newest_of
from detector.features import Wording
from pipelines.alerts.grouping.events import EVENT_REASONS, HELD
from pipelines.ingest.batch import InputBatch
from pipelines.ingest.dedupe import KeyLedger
from pipelines.ingest.provenance import with_provenance
from pipelines.scoring.contract import AdjacentBatches, BatchContext, ScoredBatch, each_once, entities_of
from pipelines.scoring.reports import none_of
from pipelines.scoring.series_replay import SeriesCoverage, as_they_came, read_around
from pipelines.scoring.series_tails import decode, encode
from pipelines.scoring.staleness import FORGOTTEN, Staleness, notices_of
from pipelines.sinks.batch_sink import ROW_COLUMNS, row_names
from pipelines.sinks.quarantine import QuarantineSink

log = logging.getLogger("detector.score")

AHEAD = timedelta(days=1)
"""A row later than the clock by more than this would make all that come after it late."""
ROWS_AT_ONCE = 65_536
PLACES = tuple(f"({name})" for name in ROW_COLUMNS)
"""Under which the place of a row that waits is carried along."""


class SeriesBatchScorer:
    """A detector for series.

    A row's score is that of the series as a whole, however it is cut into batches. So a row waits until the rows that
    its score depends on have come; with `trailing`, none does.

    - ``version``: Its fingerprint.
    - ``policy``: Decides over the rows that are scored in a batch. A budget a day counts what other batches have
      flagged.
    - ``alert_columns``: Sensors whose values alerts show; what gates held back and the event's reasons go with them.
    - ``join``: Quiet steps within one event.
    - ``explains``: Whether flagged rows get reasons.
    - ``lateness``: How much later than newer ones of its machine a reading may come.
    - ``staleness``: When a machine without any row is reported.
    """

    def __init__(
        self,
        scorer: SequenceScorer,
        *,
        version: str,
        policy: Policy,
        alert_columns: Sequence[str] = (),
        staleness: Staleness | None = None,
        wording: Wording | None = None,
        join: int = 0,
        explains: bool = True,
        lateness: timedelta = timedelta(0),
    ) -> None:
        self.scorer = scorer
        self.schema = scorer.schema
        self.version = version
        self.policy = policy
        sensors = (name for name in alert_columns if name in scorer.sensors)
        self.alert_columns = (*sensors, HELD, EVENT_REASONS)
        self.staleness = staleness or Staleness()
        self.wording = wording or Wording()
        self.join = join
        self.explains = explains
        self.lateness = lateness

    @property
    def needs_memory(self) -> bool:
        """A row's score hangs on those around it."""
        return True

    @property
    def metrics(self) -> Mapping[str, Any]:
        """Facts recorded while it was trained."""
        return self.scorer.metrics

    def score(self, batch: InputBatch, context: BatchContext) -> ScoredBatch:
        """Join the rows with those that were kept, score them, and say what is to be kept for the next batch."""
        if context.around is not None:
            return self._score_again(batch, context.around, context)
        rows = self._read(batch, context)
        if rows is None:
            return ScoredBatch(0, 0, iter(()), memory=context.memory)
        tail, is_next = Tail.empty(rows), context.memory is not None
        if context.memory is not None:
            tail = decode(context.memory, self.schema, like=rows)
            rows = self._without_known(rows, tail, context)
        newest = newest_of(pd.concat([tail.rows, rows]) if len(tail.rows) else rows, self.schema)
        silent, notices = newest, pd.DataFrame()
        if not newest.empty:
            present = self.staleness.present(newest, context.now)
            silent = self.staleness.silent(self.scorer, newest, present)
            notices = self._notices(silent, present)
        ended = set(silent.index)
        parts, tails = zip(
            *(self._continued(*group, ended, context) for group in self._groups(tail, rows)), strict=True
        )
        tail = Tail.joined(tails)
        if waiting := int(tail.waiting.sum()):
            log.info("%d rows wait for those that come after them", waiting)
        scored = self._scored(parts)
        if not is_next:
            return scored
        return replace(scored, notices=notices, memory=encode(self._lasting(tail, context.now), self.schema))

    def _continued(
        self, tail: Tail, rows: pd.DataFrame, ended: set[Any], context: BatchContext
    ) -> tuple[tuple[pd.DataFrame, Counter[str]], Tail]:
        """Scores of the rows of some machines that are final, and what gates held back; and what is kept of them."""
        is_next = context.memory is not None
        found = continue_series(self.scorer, tail, rows, ended=ended, is_last=not is_next, lateness=self.lateness)
        context.quarantine.write(_quarantined(found.refused))
        is_new = np.ones(len(found.rows), dtype=bool)
        if not is_next and self.schema.key is not None:
            is_new = ~context.known(found.rows[self.schema.key])
        return self._scores(found, is_new, context), found.tail

    def _groups(self, tail: Tail, rows: pd.DataFrame) -> Iterator[tuple[Tail, pd.DataFrame]]:
        """Some machines at a time, so that memory does not grow with their number; all where others' risks decide."""
        entity = self.schema.entity
        if entity is None or not self.policy.is_by_row:
            yield tail, rows
            return
        group = group_numbers(pd.concat([tail.rows[entity], rows[entity]], ignore_index=True))
        kept, fresh = group[: len(tail.rows)], group[len(tail.rows) :]
        for number in range(int(group.max(initial=0)) + 1):
            is_kept = kept == number
            yield Tail(tail.rows[is_kept], tail.waiting[is_kept]), rows[fresh == number]

    def _score_again(self, batch: InputBatch, around: AdjacentBatches, context: BatchContext) -> ScoredBatch:
        """Score the rows that a batch had scored, among those of the batches around it."""
        own = self._read(batch, context)
        if own is None:
            return ScoredBatch(0, 0, iter(()))
        named_by = PLACES if self.schema.key is None else (self.schema.key,)
        with QuarantineSink(context.folder / "others.csv") as seen:  # their own quarantine is the one to read

            def read(other: InputBatch, moment: datetime) -> pd.DataFrame:
                rows = self._read(other, replace(context, quarantine=seen, now=moment))
                return own.iloc[:0] if rows is None else rows

            wanted = SeriesCoverage(self.scorer, around.scored, named_by, lateness=self.lateness)
            before, after = read_around(own, around, read=read, wanted=wanted)
        rows, late = as_they_came(self.scorer, [*before, own, *after], own=len(before), lateness=self.lateness)
        context.quarantine.write(_quarantined(late))
        found = continue_series(self.scorer, Tail.empty(rows), rows, is_last=True)
        context.quarantine.write(_quarantined(found.refused[found.refused.index >= 0]))
        is_own = row_names(found.rows, named_by).isin(around.scored).to_numpy(dtype=bool)
        return self._scored([self._scores(found, is_own, context)])

    def _scored(self, parts: Sequence[tuple[pd.DataFrame, Counter[str]]]) -> ScoredBatch:
        """The scores of a batch, from those of some machines at a time."""
        scores = pd.concat([scores for scores, _ in parts if len(scores)] or [parts[0][0]])
        held = sum((held for _, held in parts), Counter())
        flags = scores["flagged"].to_numpy(dtype=bool)
        return ScoredBatch(
            scored=len(scores),
            flagged=int(flags.sum()),
            frames=_slices(scores),
            by_day={} if self.schema.time is None else counts_by_day(_days(scores, self.schema.time)[flags]),
            has_provenance=True,
            held=held,
        )

    def silent(self, memory: bytes, now: datetime) -> pd.DataFrame:
        """Notices about machines that are silent by the clock, if that is asked for."""
        if not self.staleness.by_clock or self.schema.time is None:
            return pd.DataFrame()
        columns = [self.schema.time, *([self.schema.entity] if self.schema.entity is not None else [])]
        newest = decode(memory, self.schema, like=pd.DataFrame(columns=columns)).newest(self.schema)
        if newest.empty:
            return pd.DataFrame()
        present = self.staleness.present(newest, now)
        return self._notices(self.staleness.silent(self.scorer, newest, present), present)

    def _read(self, batch: InputBatch, context: BatchContext) -> pd.DataFrame | None:
        """All rows of a batch that can be read, each key once; None if there is nothing at all."""
        parts: list[pd.DataFrame] = []
        seen: set[str] = set()
        ledger, key = KeyLedger(), self.schema.key
        has_neighbours = context.memory is not None or context.around is not None
        for frame in batch.frames():
            context.checkpoint()
            seen |= entities_of(frame, self.schema)
            cleaned = clean(frame, self.schema, positions=frame.index)
            context.quarantine.write(cleaned.quarantine)
            rows = each_once(cleaned.rows, frame, ledger, context, key=key) if has_neighbours else cleaned.rows
            if key is None and len(rows):
                place = with_provenance(rows[[]], batch.facts.spans)
                rows = rows.assign(**{kept: place[name] for kept, name in zip(PLACES, ROW_COLUMNS, strict=True)})
            parts.append(rows.drop(columns=[self.schema.label] if self.schema.label in rows else []))
        for rejected in batch.facts.rejected:
            context.quarantine.write(rejected)
        filled = [part for part in parts if len(part)]
        rows = pd.concat(filled) if filled else None
        if rows is not None and has_neighbours:
            rows = self._believable(rows, context)
        if absent := sorted(seen - (set() if rows is None else entities_of(rows, self.schema))):
            log.warning("%s: all are in the quarantine", none_of(absent))
        return rows

    def _believable(self, rows: pd.DataFrame, context: BatchContext) -> pd.DataFrame:
        """Without rows from the future."""
        time = self.schema.time
        if time is None:
            return rows
        future = rows[rows[time] > naive_utc(context.now + AHEAD)]
        why = [f"{time}: {each} lies in the future; is the clock of its machine right?" for each in future[time]]
        context.quarantine.write(quarantine(future, why))
        return rows.drop(index=future.index)

    def _without_known(self, rows: pd.DataFrame, tail: Tail, context: BatchContext) -> pd.DataFrame:
        """Without those whose key waits already."""
        key = self.schema.key
        if key is None:
            return rows
        again = rows[rows[key].isin(tail.rows[key])]
        why = [f"{key}: key {value} appears again (first in an earlier batch)" for value in again[key]]
        context.quarantine.write(quarantine(again, why))
        return rows.drop(index=again.index)

    def _scores(
        self, found: Continued, is_new: NDArray[np.bool_], context: BatchContext
    ) -> tuple[pd.DataFrame, Counter[str]]:
        """Scores of the rows that are final, without those that have some; and what gates held back."""
        rows, step = found.rows[is_new], found.step[is_new]
        named = rows[[name for name in (self.schema.key, self.schema.time, self.schema.entity) if name is not None]]
        if self.schema.key is None:
            places = rows[list(PLACES)].set_axis(list(ROW_COLUMNS), axis=1)
            named = pd.concat([places, named], axis=1)
        if found.scored is None:
            return named.assign(flagged=np.zeros(len(rows), dtype=bool)), Counter()
        day = None if self.schema.time is None else _days(rows, self.schema.time)
        decision = found.scored.decide(self.policy, step=step, day=day, used=context.used)
        scores = self.wording.scores(found.scored.row_scores(named, step, decision.flagged, explains=self.explains))
        if not self.explains:
            return scores, decision.by_gate
        own = [name for name in self.alert_columns if name in rows]
        scores = scores.join(rows[own]) if own else scores
        said = event_reasons_of(found.scored, step[decision.flagged], join=self.join)
        reasons = pd.Series(
            [self.wording.reasons(said.get(at, [])) for at in step.tolist()], scores.index, dtype=object
        )
        held = self._held(rows, decision.held & ~decision.echoes)
        return scores.assign(**{HELD: held, EVENT_REASONS: reasons}), decision.by_gate

    def _held(self, rows: pd.DataFrame, held: NDArray[np.bool_]) -> NDArray[np.int64]:
        """For each row, how many of its machine were held back in this batch."""
        whose = rows[self.schema.entity] if self.schema.entity is not None else pd.Series("", index=rows.index)
        counts = pd.Series(held, index=rows.index).groupby(whose.to_numpy()).transform("sum")
        return np.asarray(counts.to_numpy(dtype=np.int64))

    def _notices(self, silent: pd.Series, present: pd.Timestamp) -> pd.DataFrame:
        time = self.schema.time
        recent = silent[present - silent < FORGOTTEN] if len(silent) else silent
        if time is None or recent.empty or not self.staleness.is_reported:
            return pd.DataFrame()
        return notices_of(self.scorer, recent, present, version=self.version, entity=self.schema.entity, time=time)

    def _lasting(self, tail: Tail, now: datetime) -> Tail:
        """Without machines that have been silent for weeks."""
        newest = tail.newest(self.schema)
        if newest.empty or self.schema.entity is None:
            return tail
        old = newest.index[newest < self.staleness.present(newest, now) - FORGOTTEN]
        kept = ~tail.rows[self.schema.entity].isin(old).to_numpy() | tail.waiting
        return Tail(tail.rows[kept], tail.waiting[kept])


def _days(rows: pd.DataFrame, time: str) -> NDArray[np.datetime64]:
    return np.asarray(rows[time].to_numpy().astype("datetime64[D]"))


def _quarantined(refused: pd.DataFrame) -> pd.DataFrame:
    """Rows as a quarantine shows them; one that waited is of an earlier batch, and has the number -1."""
    number = np.maximum(refused.index.to_numpy(dtype=np.int64), -1)
    return quarantine(refused.drop(columns="reason"), refused["reason"].tolist(), positions=number)


def _slices(frame: pd.DataFrame) -> Iterator[pd.DataFrame]:
    for start in range(0, max(1, len(frame)), ROWS_AT_ONCE):
        yield frame.iloc[start : start + ROWS_AT_ONCE]
