"""What scoring a batch asks of a fitted detector, whatever its kind, and how one for tables answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sqlalchemy.orm import Session

from detector.cleaning.clean import clean
from detector.decide.audit_sample import Exploration
from detector.decide.policy import Budget, Policy
from detector.detectors.table.scorer import TabularScorer
from detector.explain.reason import Reason, in_words
from detector.schema import Schema
from pipelines.ingest import Reading
from pipelines.ingest.dedupe import KeyLedger
from pipelines.ingest.provenance import placed
from pipelines.prefetch import ahead
from pipelines.scoring.batch import Waiting
from pipelines.sinks.files import QuarantineSink
from pipelines.store import Store

NO_DAY = date.min
"""Under which rows without a time are counted."""


@dataclass(frozen=True)
class Surroundings:
    """What a judge is given beside the rows.

    Parameters
    ----------
    folder : Path
        For temporary files.
    quarantine : QuarantineSink
        For rows that cannot be used.
    given : callable
        For some days: how many rows of each other batches have flagged.
    known : callable
        Which keys have scores from another batch.
    checkpoint : callable
        To be called every now and then; raises if the work is to be undone.
    store : Store
        The service's state.
    source : str
        The name of the source there.
    now : datetime
        When this happens.
    goes_on : bool
        Whether the batch follows the one before; if not, it was left out once, and is scored by itself.
    """

    folder: Path
    quarantine: QuarantineSink
    given: Callable[[Sequence[date]], Mapping[date, int]]
    known: Callable[[pd.Series], NDArray[np.bool_]]
    checkpoint: Callable[[], None]
    store: Store
    source: str
    now: datetime
    goes_on: bool = True


def keep_nothing(session: Session, batch: int) -> None:
    """What a judge keeps that needs no memory."""
    del session, batch


@dataclass(frozen=True)
class Judged:
    """What became of a batch.

    Parameters
    ----------
    scored, flagged : int
        Rows.
    by_day : mapping of date to int
        Flagged rows of each day; empty if the rows have no time.
    frames : iterator of DataFrame
        The verdicts in order, indexed as the rows were; one empty frame if there are none.
    is_placed : bool
        Whether they say already which file and row they are of, where no key does.
    notices : DataFrame or None
        What is to be told beside them, in the same columns.
    keep : callable
        Writes what the next batch needs, in the transaction of this one, given its session and the batch's number.
    """

    scored: int
    flagged: int
    by_day: Mapping[date, int]
    frames: Iterator[pd.DataFrame]
    is_placed: bool = False
    notices: pd.DataFrame | None = None
    keep: Callable[[Session, int], None] = keep_nothing


class Judge(Protocol):
    """A fitted detector that scores batches."""

    schema: Schema
    version: str
    """Names exactly this detector."""

    def judge(self, reading: Reading, around: Surroundings) -> Judged:
        """Score the rows of a batch, and decide over all of them."""
        ...


class TabularJudge:
    """A detector for tables.

    Parameters
    ----------
    scorer : TabularScorer
        The detector.
    version : str
        Its fingerprint.
    policy : Policy
        Decides over each batch. A budget a day counts what other batches of the day have flagged: a row once flagged
        stays flagged, because its alert is out, and later batches get what is left of the day.
    kept : sequence of str
        Features whose values alerts tell.
    words : callable
        How reasons are told.
    exploration : Exploration, optional
        Draws rows that are not flagged, see ``Waiting``.
    """

    def __init__(
        self,
        scorer: TabularScorer,
        *,
        version: str,
        policy: Policy,
        kept: Sequence[str] = (),
        words: Callable[[list[Reason]], str] = in_words,
        exploration: Exploration | None = None,
    ) -> None:
        self.scorer = scorer
        self.schema = scorer.schema
        self.version = version
        self.policy = policy
        self.kept = tuple(kept)
        self.words = words
        self.exploration = exploration

    def judge(self, reading: Reading, around: Surroundings) -> Judged:
        """Measure all rows, then decide, then explain."""
        waiting = Waiting(
            around.folder,
            self.scorer,
            self.policy,
            kept=self.kept,
            words=self.words,
            exploration=self.exploration,
        )
        ledger = KeyLedger()
        parts: dict[str, list[NDArray[Any]]] = {"risk": [], "p_value": [], "day": []}
        scored = 0
        for frame in ahead(reading.frames()):
            around.checkpoint()
            cleaned = clean(frame, self.schema, positions=frame.index)
            around.quarantine.write(cleaned.quarantine)
            good = each_once(cleaned.rows, frame, ledger, around, key=self.schema.key)
            measures = self.scorer.measure(good)
            waiting.add(good, measures, names=self._names(good, reading))
            for name in ("risk", "p_value"):
                parts[name].append(measures[name].to_numpy())
            if self.schema.time is not None:
                parts["day"].append(good[self.schema.time].to_numpy().astype("datetime64[D]"))
            scored += len(good)
        for rejected in reading.rejected:
            around.quarantine.write(rejected)
        day = np.concatenate(parts["day"]) if parts["day"] else None
        flagged = self._decide(waiting, parts, day, around)
        by_day = {} if day is None else counts_by_day(day[flagged])
        return Judged(scored, int(flagged.sum()), by_day, waiting.verdicts(flagged))

    def _names(self, good: pd.DataFrame, reading: Reading) -> list[tuple[str, int]] | None:
        """The file and row of each, if rows are drawn by them."""
        if self.exploration is None or self.schema.key is not None or good.empty:
            return None
        where = placed(good[[]], reading.spans)
        return list(zip(where["file"].tolist(), where["row"].tolist(), strict=True))

    def _decide(
        self, waiting: Waiting, parts: Mapping[str, list[NDArray[Any]]], day: NDArray[Any] | None, around: Surroundings
    ) -> NDArray[np.bool_]:
        budget = self.policy.budget
        if budget is None or budget.per != "day" or day is None:
            return waiting.decide()
        return decide_by_day(
            self.policy, np.concatenate(parts["p_value"]), np.concatenate(parts["risk"]), day=day, given=around.given
        )


def each_once(
    good: pd.DataFrame, frame: pd.DataFrame, ledger: KeyLedger, around: Surroundings, *, key: str | None
) -> pd.DataFrame:
    """Without the rows whose key came before, in this batch or in an earlier one; those are set aside."""
    if key is None:
        return good
    again = ledger.repeats(good[key])
    earlier = around.known(good[key]) & ~again
    for rows, where in ((again, "first in an earlier part of this batch"), (earlier, "scored before")):
        if rows.any():
            around.quarantine.write(_aside(frame.loc[good.index[rows]], key, where))
    return good[~again & ~earlier]


def decide_by_day(
    policy: Policy,
    p_value: NDArray[np.float64],
    risk: NDArray[np.float64],
    *,
    day: NDArray[Any],
    given: Callable[[Sequence[date]], Mapping[date, int]],
) -> NDArray[np.bool_]:
    """A policy's decision where its budget is a day's, and other batches have used some of it."""
    budget = policy.budget
    if budget is None or budget.per != "day":
        return policy.decide(p_value, risk)
    possible = np.ones(len(risk), dtype=bool)
    if policy.quantile is not None or policy.fdr is not None:
        possible = Policy(quantile=policy.quantile, fdr=policy.fdr).decide(p_value, risk)
    days = np.unique(day[possible])
    used = given([as_date(each) for each in days])
    flagged = np.zeros(len(risk), dtype=bool)
    for each in days:
        room = budget.rows - used.get(as_date(each), 0)
        if room > 0:
            of_day = possible & (np.isnat(day) if np.isnat(each) else day == each)
            best = Policy(budget=Budget(rows=room)).decide(p_value[of_day], risk[of_day])
            flagged[np.flatnonzero(of_day)[best]] = True
    return flagged


def as_date(day: np.datetime64) -> date:
    """A day as Python's own type.

    >>> as_date(np.datetime64("2026-03-01"))
    datetime.date(2026, 3, 1)
    """
    found = day.astype("datetime64[D]").item()
    return found if isinstance(found, date) else NO_DAY


def counts_by_day(days: NDArray[Any]) -> dict[date, int]:
    """How often each day occurs.

    >>> counts_by_day(np.array(["2026-03-01", "2026-03-01"], dtype="datetime64[D]"))
    {datetime.date(2026, 3, 1): 2}
    """
    found, counts = np.unique(days, return_counts=True)
    return {as_date(day): int(count) for day, count in zip(found, counts, strict=True)}


def _aside(rows: pd.DataFrame, key: str, where: str) -> pd.DataFrame:
    """Rows whose key came before, as ``clean`` sets rows aside."""
    reasons = [f"{key}: key {value} appears again ({where})" for value in rows[key]]
    shown = rows.rename(columns={name: f"source_{name}" for name in ("row", "reason")})
    return pd.concat([pd.DataFrame({"row": rows.index, "reason": reasons}, index=rows.index), shown], axis=1)
