"""What scoring a batch asks of a fitted detector, whatever its kind: what it is given, and what it gives back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from detector.cleaning.quarantine import quarantine
from detector.cleaning.values import read_names
from detector.decide.days import Used
from detector.schema import Schema
from pipelines.ingest.batch import InputBatch
from pipelines.ingest.dedupe import KeyLedger, KnownKeys
from pipelines.sinks.quarantine import QuarantineSink

if TYPE_CHECKING:  # scoring a file needs no database
    from pipelines.rules.run import RuleRun


def nothing_known(keys: pd.Series) -> NDArray[np.bool_]:
    """No key has scores."""
    return np.zeros(len(keys), dtype=bool)


def entities_of(rows: pd.DataFrame, schema: Schema) -> set[str]:
    """What rows, cleaned or not, are about; nothing where they have no entity.

    >>> sorted(entities_of(pd.DataFrame({"pump": [" 7", 8, None]}), Schema(entity="pump", numeric=("flow",))))
    ['7', '8']
    """
    if schema.entity is None or schema.entity not in rows:
        return set()
    return set(map(str, read_names(rows[schema.entity]).dropna().unique()))


def _no_progress(rows: int) -> None:
    del rows


@dataclass(frozen=True)
class AdjacentBatches:
    """The batches around one that is scored again, each with the time at which it was taken.

    - ``before``, ``after``: Nearest first; opened as far as scores hang on their rows.
    - ``scored``: The names of the rows that the batch had scored.
    """

    before: Iterable[tuple[InputBatch, datetime]]
    after: Iterable[tuple[InputBatch, datetime]]
    scored: set[str]


@dataclass(frozen=True)
class BatchContext:
    """What scoring a batch is given beside its rows.

    - ``folder``: For temporary files.
    - ``quarantine``: For rows that cannot be used.
    - ``used``: For some days: how many rows of each other batches have flagged.
    - ``known``: Which keys have scores from another batch.
    - ``checkpoint``: To be called every now and then; raises if the work is to be undone.
    - ``advance``: Called with the number of rows that were read.
    - ``memory``: What a detector kept of the batch before, empty at the beginning; None if this one stands by itself.
    - ``around``: Where a batch is scored again, those around it.
    - ``rules``: What people wrote beside the model, for tables; None if nothing.
    """

    folder: Path
    quarantine: QuarantineSink
    now: datetime
    used: Used | None = None
    known: KnownKeys = nothing_known
    checkpoint: Callable[[], None] = lambda: None
    advance: Callable[[int], None] = _no_progress
    memory: bytes | None = None
    around: AdjacentBatches | None = None
    rules: RuleRun | None = None


@dataclass(frozen=True)
class ScoredBatch:
    """What became of a batch.

    - ``scored``, ``flagged``: Rows.
    - ``frames``: The scores in order, indexed as the rows were, with lists of ``Reason`` in the column ``reasons``; one
      empty frame if there are none.
    - ``by_day``: Flagged rows of each day; empty if the rows have no time.
    - ``has_provenance``: Whether they say already which file and row they are of, where no key does.
    - ``notices``: What is to be reported beside them, in the same columns.
    - ``note``: Why a false discovery rate is no promise, and what was flagged instead.
    - ``neighbours``: How many rows the policy would have flagged at half and at twice its rate; counted where no other
      batch counts.
    - ``memory``: What the next batch needs of this one; None if nothing.
    - ``held``: How many rows each gate held back that would have been flagged.
    """

    scored: int
    flagged: int
    frames: Iterator[pd.DataFrame]
    by_day: Mapping[date, int] = field(default_factory=dict)
    has_provenance: bool = False
    notices: pd.DataFrame | None = None
    note: str | None = None
    neighbours: Mapping[str, int] = field(default_factory=dict)
    memory: bytes | None = None
    held: Mapping[str, int] = field(default_factory=dict)


class BatchScorer(Protocol):
    """A fitted detector that scores batches."""

    @property
    def schema(self) -> Schema:
        """What the columns mean."""
        ...

    @property
    def version(self) -> str:
        """Names exactly this detector."""
        ...

    @property
    def metrics(self) -> Mapping[str, Any]:
        """Facts recorded while it was trained."""
        ...

    @property
    def needs_memory(self) -> bool:
        """Whether a row's score depends on rows of the batches before, so that ``BatchContext.memory`` is needed."""
        ...

    @property
    def alert_columns(self) -> tuple[str, ...]:
        """Columns that go with the scores as far as the alerts, and are not written."""
        ...

    def score(self, batch: InputBatch, context: BatchContext) -> ScoredBatch:
        """Score the rows of a batch, and decide over all of them."""
        ...


def each_once(
    rows: pd.DataFrame, frame: pd.DataFrame, ledger: KeyLedger, context: BatchContext, *, key: str | None
) -> pd.DataFrame:
    """Without the rows whose key came before, in this batch or in an earlier one; those are quarantined.

    ``frame`` holds the rows as they came.
    """
    if key is None:
        return rows
    repeated = ledger.repeats(rows[key])
    scored = context.known(rows[key]) & ~repeated
    for which, where in ((repeated, "first in an earlier part of this batch"), (scored, "scored before")):
        if which.any():
            again = frame.loc[rows.index[which]]
            context.quarantine.write(
                quarantine(again, [f"{key}: key {it} appears again ({where})" for it in again[key]])
            )
    return rows[~repeated & ~scored]
