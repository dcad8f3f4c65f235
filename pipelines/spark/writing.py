"""Measured and decided rows → the columns that ``detector score`` writes, and rows that could not be used."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa

from detector.arrays import Flags, Integers
from detector.cleaning.clean import shown
from detector.decide.audit_sample import AuditSample
from detector.decide.policy import Policy
from detector.detectors.table.model import UNSUPERVISED
from detector.detectors.table.scorer import TabularScorer
from detector.explain.reason import no_reasons
from detector.features import Wording
from pipelines.scoring.written import REASONS_JSON, as_written
from pipelines.sinks.quarantine import escaped, shown_columns
from pipelines.spark.deciding import is_among
from pipelines.spark.measuring import MeasuredColumns
from pipelines.spark.rows import POSITION, as_table, in_order
from pipelines.spark.shipped import shipped_scorer

if TYPE_CHECKING:
    from pyspark.sql.types import StructType


@dataclass(frozen=True)
class WrittenScores:
    """Explains flagged rows in executors, and gives all of them the columns of scores.

    - ``detector``, ``measured``: As in ``Measure``.
    - ``policy``: Decides row by row where ``flagged`` is None.
    - ``flagged``, ``without``: Positions that are flagged, and that are not scored, both sorted.
    - ``rows``: How many are scored in all.
    - ``sample``: Draws rows that are not flagged.
    - ``stamp``: Columns that say the same of every row.
    """

    detector: str
    measured: MeasuredColumns
    policy: Policy
    flagged: Any
    without: Any
    rows: int
    wording: Wording
    sample: AuditSample | None
    stamp: dict[str, Any]

    @property
    def schema(self) -> pa.Schema:
        """The columns of scores."""
        text, number = pa.string(), pa.float64()
        roles = [(name, self.measured.names[alias.removeprefix("r_")]) for alias, name in self.measured.roles.items()]
        drawn = [("explored", pa.bool_()), ("chance", number)] if self.sample is not None else []
        return pa.schema(
            [
                *(roles or [("row", pa.int64())]),
                ("risk", number),
                ("p_value", number),
                ("flagged", pa.bool_()),
                ("severity", text),
                ("reasons", text),
                (REASONS_JSON, text),
                *((name, number) for name in (*self.measured.members, UNSUPERVISED)),
                ("decided_by", text),
                *drawn,
                ("model_version", text),
                ("scored_at", pa.timestamp("us")),
            ]
        )

    def types(self) -> StructType:
        """The same, as Spark says it."""
        from pyspark.sql.pandas.types import from_arrow_schema

        return from_arrow_schema(self.schema)

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Scores of measured rows."""
        scorer = shipped_scorer(self.detector)
        without: Integers = self.without.value
        for batch in batches:
            table = in_order(pa.Table.from_batches([batch]))
            table = table.filter(pa.array(~is_among(table.column(POSITION).to_numpy(), without)))
            if table.num_rows:
                yield from as_table(self._scores(scorer, table), self.schema).to_batches()

    def _scores(self, scorer: TabularScorer, table: pa.Table) -> pd.DataFrame:
        measures = self.measured.measures(table)
        marks = self._marks(measures, scorer)
        scores = scorer.as_scores(measures, measures, flagged=marks)
        if marks.any():
            found = no_reasons(len(marks))
            reasons = scorer.explain(self.measured.cleaned(table.filter(pa.array(marks))))
            for place, each in zip(np.flatnonzero(marks).tolist(), reasons, strict=True):
                found[place] = each
            scores["reasons"] = found
        if self.sample is not None:
            key, chance = self.measured.schema.key, self.sample.chance(self.rows)
            lots = self.sample.uniform(measures.index if key is None else measures[key])
            scores["explored"] = ~marks & (lots < chance)
            scores["chance"] = np.where(marks, 1.0, chance)
        return as_written(self.wording.scores(scores)).assign(**self.stamp)

    def _marks(self, measures: pd.DataFrame, scorer: TabularScorer) -> Flags:
        if self.flagged is None:
            return self.policy.candidates(
                measures["p_value"].to_numpy(), measures["risk"].to_numpy(), support=scorer.support
            )
        return is_among(measures.index.to_numpy(), self.flagged.value)


@dataclass(frozen=True)
class WrittenQuarantine:
    """Rows that could not be used, as the file of a quarantine shows them.

    - ``shown``: Their columns.
    - ``key``: The column that names rows.
    - ``repeated``: As ``DecidedBatch`` has it, broadcast.
    - ``escape``: Whether text that is a formula to spreadsheets gets a ' before it.
    """

    shown: tuple[str, ...]
    key: str | None
    repeated: Any
    escape: bool

    @property
    def schema(self) -> pa.Schema:
        """All text: ``q0``, ``q1``, … stand for ``columns``."""
        return pa.schema([(f"q{number}", pa.string()) for number in range(len(self.columns))])

    @property
    def columns(self) -> list[str]:
        """What they are called."""
        return shown_columns(self.shown)

    def types(self) -> StructType:
        """The same, as Spark says it."""
        from pyspark.sql.pandas.types import from_arrow_schema

        return from_arrow_schema(self.schema)

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """The rows among some, of which others can be used."""
        repeated: dict[int, int] = self.repeated.value
        for batch in batches:
            rows = [
                [position, reason or self._again(key, repeated[position]), *(source or [None] * len(self.shown))]
                for position, reason, key, source in zip(
                    batch.column(POSITION).to_pylist(),
                    batch.column("reason").to_pylist(),
                    batch.column("repeated").to_pylist(),
                    batch.column("source").to_pylist(),
                    strict=True,
                )
                if reason is not None or position in repeated
            ]
            if rows:
                texts = pd.DataFrame(rows, columns=self.columns).astype(object)
                texts = texts.map(str, na_action="ignore").astype("str")
                texts = escaped(texts) if self.escape else texts
                yield from as_table(texts.set_axis(self.schema.names, axis="columns"), self.schema).to_batches()

    def _again(self, key: str, first: int) -> str:
        """Why a row whose key came before is not used."""
        return f"{self.key}: key {shown(key, quote=False)} appears again (first at row {first})"
