"""The rows of a batch of readings among those of the batches around it, for its rows to be scored again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

import pandas as pd

from detector.detectors.series.groups import SHARED
from detector.detectors.series.scorer import SequenceScorer
from detector.detectors.series.stream import late_rows, newest_of, reach_of
from detector.errors import DataError
from pipelines.ingest.batch import InputBatch
from pipelines.ingest.dedupe import KeyLedger
from pipelines.scoring.contract import AdjacentBatches
from pipelines.sinks.batch_sink import row_names

SLACK = timedelta(days=1)
"""Files of machines come apart: so much later than all that is wanted, a batch is looked into for a machine's rows."""


def read_around(
    own: pd.DataFrame,
    around: AdjacentBatches,
    *,
    read: Callable[[InputBatch, datetime], pd.DataFrame],
    wanted: SeriesCoverage,
) -> tuple[list[pd.DataFrame], list[pd.DataFrame]]:
    """The rows of the batches before and after, in the order they came, as far as scores hang on them.

    - ``own``: The rows of the batch itself.
    - ``around``: The other batches; and the rows that the batch had scored, some of which came earlier.
    - ``read``: Reads a batch that was taken at a time.
    - ``wanted``: Says how far.

    Raises ``DataError`` if rows that the batch had scored are not there any more.
    """
    wanted.add(own)
    before: list[pd.DataFrame] = []
    for batch, moment in around.before:
        if wanted.has_begun:
            break
        before.insert(0, read(batch, moment))
        wanted.add(before[0])
    if wanted.missing:
        raise DataError(f"{len(wanted.missing):,} of its rows are no longer in the source.")
    after: list[pd.DataFrame] = []
    for batch, moment in around.after:
        if wanted.is_over:
            break
        after.append(read(batch, moment))
        wanted.add(after[-1])
    return before, after


def as_they_came(
    scorer: SequenceScorer, parts: Sequence[pd.DataFrame], *, own: int, lateness: timedelta
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows of all parts without those that were late when they came, or whose key came before.

    Returns them, those of other parts than ``own`` with an index below 0; and of that part the rows left out, with
    ``reason``.
    """
    kept, newest, ledger, others = [], pd.Series(dtype="datetime64[us]"), KeyLedger(), 0
    refused = parts[own].iloc[:0].assign(reason="")
    for number, part in enumerate(parts):
        late = late_rows(scorer, newest, part, lateness=lateness)
        rows, why = part.drop(index=late.index), [late]
        if (key := scorer.schema.key) is not None:
            again = rows[ledger.repeats(rows[key])][key]
            why.append(again.map(lambda name: f"{key}: key {name} appears again (first in an earlier batch)"))
            rows = rows.drop(index=again.index)
        if number == own:
            reasons = pd.concat([each for each in why if len(each)] or why)
            refused = part.loc[reasons.index].assign(reason=reasons)
        else:
            others -= len(rows)
            rows = rows.set_axis(pd.RangeIndex(others, others + len(rows)))
        kept.append(rows)
        newest = pd.concat([newest, newest_of(rows, scorer.schema)]).groupby(level=0).max()
    return pd.concat(kept), refused


class SeriesCoverage:
    """How much of each series has been read, beside what the scores of some rows hang on.

    - ``scorer``: The detector.
    - ``scored``: The names of the rows; those not found yet are ``missing``.
    - ``named_by``: The columns that name a row.
    - ``lateness``: How much later than newer ones a row may come.
    """

    def __init__(
        self, scorer: SequenceScorer, scored: set[str], named_by: Sequence[str], *, lateness: timedelta
    ) -> None:
        self.scorer, self.missing, self.named_by = scorer, set(scored), named_by
        pace = timedelta(microseconds=scorer.sampling.interval or 0)
        before, after = reach_of(scorer)
        self.reach = before * pace + lateness, after * pace + lateness
        self._scored = scored
        self._edges = pd.DataFrame()
        self._last_began = pd.Timestamp.min

    def add(self, rows: pd.DataFrame) -> None:
        """Take rows into account."""
        names = row_names(rows, self.named_by)
        self.missing.difference_update(names)
        schema = self.scorer.schema
        if schema.time is None or rows.empty:
            return
        whose = rows[schema.entity] if schema.entity is not None else pd.Series(SHARED, index=rows.index)
        time = rows[schema.time]
        own = time.where(names.isin(self._scored))
        edges = pd.DataFrame({"first": time, "last": time, "own_first": own, "own_last": own})
        for sensor in self.scorer.sensors:
            edges[f"({sensor})"] = time.where(rows[sensor].notna())
        both = pd.concat([self._edges, edges.groupby(whose.to_numpy()).agg(self._how(edges))])
        self._edges = both.groupby(level=0).agg(self._how(edges))
        self._last_began = time.min()

    def _how(self, edges: pd.DataFrame) -> dict[str, str]:
        return {name: "max" if name.endswith("last") else "min" for name in edges}

    @property
    def _series(self) -> pd.DataFrame:
        """The series of which rows are to be scored."""
        return self._edges.dropna(subset=["own_first"]) if len(self._edges) else self._edges

    @property
    def has_begun(self) -> bool:
        """Whether all was read, back to where no score hangs on the rows before, and each sensor has a reading."""
        found = self._series
        if self.missing or found.empty:
            return False
        begin = found["own_first"] - self.reach[0]
        has_read = [found[f"({sensor})"] <= found["own_first"] for sensor in self.scorer.sensors]
        return all(bool(each.all()) for each in [found["first"] <= begin, *has_read])

    @property
    def is_over(self) -> bool:
        """Whether no score hangs on rows that come later."""
        found = self._series
        if found.empty:
            return self.scorer.schema.time is not None
        end = found["own_last"] + self.reach[1]
        return bool((found["last"] >= end).all() or self._last_began > end.max() + SLACK)
