"""How a detector for series scores batches: with the last rows of each series, as if they all had come at once."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from functools import partial

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sqlalchemy.orm import Session

from detector.cleaning.clean import clean
from detector.cleaning.values import naive_utc
from detector.decide.policy import Policy
from detector.detectors.series.scorer import SequenceScorer
from detector.detectors.series.stream import Continued, Tail, continue_series, newest_of
from detector.explain.reason import in_words
from pipelines.ingest import Reading
from pipelines.ingest.dedupe import KeyLedger
from pipelines.ingest.provenance import placed
from pipelines.scoring.staleness import FORGOTTEN, Silence, notices_of
from pipelines.scoring.state import keep_tail, load_tail
from pipelines.scoring.table import Judged, Surroundings, counts_by_day, decide_by_day, each_once, keep_nothing
from pipelines.sinks.landing import ROW_COLUMNS
from pipelines.store import Store

log = logging.getLogger("detector.score")

AHEAD = timedelta(days=1)
"""A row later than the clock by more than this would make all that come after it late."""
ROWS_AT_ONCE = 65_536
PLACES = tuple(f"({name})" for name in ROW_COLUMNS)
"""Under which the place of a row that waits is carried along."""


class SeriesJudge:
    """A detector for series.

    A row's score is that of the series as a whole, however it is cut into batches. So a row waits until the rows that
    its score depends on have come; with `trailing`, none does.

    Parameters
    ----------
    scorer : SequenceScorer
        The detector.
    version : str
        Its fingerprint.
    policy : Policy
        Decides over the rows that are scored in a batch. A budget a day counts what other batches have flagged.
    kept : sequence of str
        Sensors whose values alerts tell.
    silence : Silence
        When a machine without any row is told.
    """

    def __init__(
        self,
        scorer: SequenceScorer,
        *,
        version: str,
        policy: Policy,
        kept: Sequence[str] = (),
        silence: Silence | None = None,
    ) -> None:
        self.scorer = scorer
        self.schema = scorer.schema
        self.version = version
        self.policy = policy
        self.kept = tuple(name for name in kept if name in scorer.sensors)
        self.silence = silence or Silence()

    def judge(self, reading: Reading, around: Surroundings) -> Judged:
        """Join the rows with those that were kept, judge them, and say what is to be kept for the next batch."""
        rows = self._read(reading, around)
        if rows is None:
            return Judged(0, 0, {}, iter(()))
        tail = Tail.empty(rows)
        if around.goes_on:
            tail = load_tail(around.store, around.source, self.schema, like=rows)
            rows = self._believable(rows, tail, around)
        newest = newest_of(pd.concat([tail.rows, rows]) if len(tail.rows) else rows, self.schema)
        silent, notices = newest, pd.DataFrame()
        if not newest.empty:
            present = self.silence.present(newest, around.now)
            silent = self.silence.silent(self.scorer, newest, present)
            notices = self._notices(silent, present)
        found = continue_series(self.scorer, tail, rows, over=set(silent.index), is_last=not around.goes_on)
        around.quarantine.write(_aside(found.refused))
        if around.goes_on:
            told = self._told(found, None, around)
        else:
            told = self._told(found, around.known(found.rows[self.schema.key]) if self.schema.key else None, around)
        flags = told["flagged"].to_numpy(dtype=bool)
        time = self.schema.time
        by_day = {} if time is None else counts_by_day(_days(told, time)[flags])
        left = int(found.tail.waiting.sum())
        if left:
            log.info("%d rows wait for those that come after them", left)
        keep = partial(_keep, source=around.source, tail=self._remembered(found.tail, around.now), scorer=self.scorer)
        return Judged(
            scored=len(told),
            flagged=int(flags.sum()),
            by_day=by_day,
            frames=_slices(told),
            is_placed=True,
            notices=notices if around.goes_on else None,
            keep=keep if around.goes_on else keep_nothing,
        )

    def silent(self, store: Store, source: str, now: datetime) -> pd.DataFrame:
        """Notices about machines that are silent by the clock, if that is asked for."""
        if not self.silence.by_clock or self.schema.time is None:
            return pd.DataFrame()
        columns = [self.schema.time, *([self.schema.entity] if self.schema.entity is not None else [])]
        newest = load_tail(store, source, self.schema, like=pd.DataFrame(columns=columns)).newest(self.schema)
        if newest.empty:
            return pd.DataFrame()
        present = self.silence.present(newest, now)
        return self._notices(self.silence.silent(self.scorer, newest, present), present)

    def _read(self, reading: Reading, around: Surroundings) -> pd.DataFrame | None:
        """All rows of a batch that can be read, each key once; None if there is nothing at all."""
        parts: list[pd.DataFrame] = []
        ledger, key = KeyLedger(), self.schema.key
        for frame in reading.frames():
            around.checkpoint()
            cleaned = clean(frame, self.schema, positions=frame.index)
            around.quarantine.write(cleaned.quarantine)
            good = cleaned.rows if not around.goes_on else each_once(cleaned.rows, frame, ledger, around, key=key)
            if key is None and len(good):
                place = placed(good[[]], reading.spans)
                good = good.assign(**{kept: place[name] for kept, name in zip(PLACES, ROW_COLUMNS, strict=True)})
            parts.append(good.drop(columns=[self.schema.label] if self.schema.label in good else []))
        for rejected in reading.rejected:
            around.quarantine.write(rejected)
        filled = [part for part in parts if len(part)]
        return pd.concat(filled) if filled else None

    def _believable(self, rows: pd.DataFrame, tail: Tail, around: Surroundings) -> pd.DataFrame:
        """Without rows from the future, and those whose key waits already."""
        time, key = self.schema.time, self.schema.key
        if time is not None:
            end = naive_utc(around.now + AHEAD)
            future = rows[rows[time] > end]
            why = [
                f"{time}: {moment} lies in the future; is the clock of its machine right?" for moment in future[time]
            ]
            around.quarantine.write(_aside(_with_reasons(future, why)))
            rows = rows.drop(index=future.index)
        if key is not None:
            again = rows[rows[key].isin(tail.rows[key])]
            why = [f"{key}: key {value} appears again (first in an earlier batch)" for value in again[key]]
            around.quarantine.write(_aside(_with_reasons(again, why)))
            rows = rows.drop(index=again.index)
        return rows

    def _told(self, found: Continued, known: NDArray[np.bool_] | None, around: Surroundings) -> pd.DataFrame:
        """The verdicts on the rows that are settled, without those that have scores."""
        rows, step = found.rows, found.step
        if known is not None:
            rows, step = rows[~known], step[~known]
        named = [name for name in (self.schema.key, self.schema.time, self.schema.entity) if name is not None]
        verdicts = rows[named].copy()
        if self.schema.key is None:
            for place, (kept, name) in enumerate(zip(PLACES, ROW_COLUMNS, strict=True)):
                verdicts.insert(place, name, rows[kept])
        if found.judged is None:
            return verdicts.assign(flagged=np.zeros(len(rows), dtype=bool))
        judged = found.judged
        verdicts["risk"], verdicts["p_value"] = judged.risk[step], judged.p_value[step]
        flagged = self._decide(verdicts, rows, around)
        steps = np.zeros(len(judged.series), dtype=bool)
        steps[step[flagged]] = True
        reasons, severe = judged.reasons(steps), judged.severity(steps)
        verdicts["flagged"] = flagged
        verdicts["severity"] = np.where(flagged, severe[step], "")
        words = [in_words(reasons[at]) if flag else "" for at, flag in zip(step.tolist(), flagged, strict=True)]
        verdicts["reasons"] = pd.Series(words, index=verdicts.index, dtype="str")
        for place, member in enumerate(self.scorer.members):
            verdicts[member] = judged.scores[step, place]
        return verdicts.join(rows[list(self.kept)]) if self.kept else verdicts

    def _decide(self, verdicts: pd.DataFrame, rows: pd.DataFrame, around: Surroundings) -> NDArray[np.bool_]:
        p_value, risk = verdicts["p_value"].to_numpy(), verdicts["risk"].to_numpy()
        if self.schema.time is None:
            return self.policy.decide(p_value, risk)
        day = _days(rows, self.schema.time)
        return decide_by_day(self.policy, p_value, risk, day=day, given=around.given)

    def _notices(self, silent: pd.Series, present: pd.Timestamp) -> pd.DataFrame:
        time = self.schema.time
        recent = silent[present - silent < FORGOTTEN] if len(silent) else silent
        if time is None or recent.empty or not self.silence.is_told:
            return pd.DataFrame()
        return notices_of(self.scorer, recent, present, version=self.version, entity=self.schema.entity, time=time)

    def _remembered(self, tail: Tail, now: datetime) -> Tail:
        """Without machines that have been silent for weeks."""
        newest = tail.newest(self.schema)
        if newest.empty or self.schema.entity is None:
            return tail
        old = newest.index[newest < self.silence.present(newest, now) - FORGOTTEN]
        kept = ~tail.rows[self.schema.entity].isin(old).to_numpy() | tail.waiting
        return Tail(tail.rows[kept], tail.waiting[kept])


def _keep(session: Session, batch: int, *, source: str, tail: Tail, scorer: SequenceScorer) -> None:
    keep_tail(session, source, tail, schema=scorer.schema, batch=batch)


def _days(rows: pd.DataFrame, time: str) -> NDArray[np.datetime64]:
    return np.asarray(rows[time].to_numpy().astype("datetime64[D]"))


def _with_reasons(rows: pd.DataFrame, reasons: Sequence[str]) -> pd.DataFrame:
    found = rows.copy()
    found.insert(0, "reason", pd.Series(list(reasons), index=rows.index, dtype="str"))
    return found


def _aside(refused: pd.DataFrame) -> pd.DataFrame:
    """Rows as a quarantine shows them; one that waited is of an earlier batch, and has the number -1."""
    shown = refused.drop(columns="reason").rename(columns={name: f"source_{name}" for name in ("row", "reason")})
    number = np.maximum(refused.index.to_numpy(dtype=np.int64), -1)
    facts = pd.DataFrame({"row": number, "reason": refused["reason"].to_numpy()}, index=refused.index)
    return pd.concat([facts, shown], axis=1)


def _slices(frame: pd.DataFrame) -> Iterator[pd.DataFrame]:
    for start in range(0, max(1, len(frame)), ROWS_AT_ONCE):
        yield frame.iloc[start : start + ROWS_AT_ONCE]
