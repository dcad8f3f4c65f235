"""Rows → what a decision needs of each: cleaned and measured in executors, where reasons are not computed yet."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from detector.arrays import Flags
from detector.cleaning.clean import clean
from detector.cleaning.values import read_dates, read_names
from detector.decide.policy import Policy
from detector.detectors.table.model import UNSUPERVISED
from detector.detectors.table.scorer import TabularScorer
from detector.features import FeatureSet
from detector.schema import Schema
from pipelines.sinks.quarantine import as_texts
from pipelines.spark.rows import POSITION, SourceColumns, as_table, in_order
from pipelines.spark.shipped import shipped_scorer

if TYPE_CHECKING:
    from pyspark.sql.types import StructType

ROLES = ("key", "time", "entity")


def key_texts(column: pd.Series) -> pd.Series:
    """Keys as text, the same text for the same key; missing where there is none.

    >>> key_texts(pd.Series([17.0, None])).tolist()
    ['17', nan]
    """
    names = read_names(column)
    return names.astype(object).map(str, na_action="ignore").astype("str")


def with_clock(frame: pd.DataFrame, clock: FeatureSet | None, used: Flags) -> pd.DataFrame:
    """Rows with what the clock says, where they have features at all."""
    if clock is None:
        return frame
    time = read_dates(frame[clock.time])[0]
    rows = pd.DataFrame({clock.time: time[used]})
    if clock.key is not None:
        rows[clock.key] = np.arange(len(rows))
    found = clock.compute(rows)[list(clock.names)].reindex(frame.index)
    return pd.concat([frame, found], axis="columns")


@dataclass(frozen=True)
class MeasuredColumns:
    """The columns of measured rows, and how they are called where users' names could clash.

    - ``schema``: The detector's.
    - ``names``: Types of the key, the time and the entity, those that there are.
    - ``members``: The detector's.
    """

    schema: Schema
    names: dict[str, pa.DataType]
    members: tuple[str, ...]

    @property
    def numbers(self) -> dict[str, str]:
        """Column in Spark → column of ``TabularScorer.measure``."""
        others = enumerate((UNSUPERVISED, *self.members))
        return {"risk": "risk", "p_value": "p_value"} | {f"m{number}": name for number, name in others}

    @property
    def roles(self) -> dict[str, str]:
        """Column in Spark → column of the table, which says which row it is."""
        return {f"r_{role}": str(self.schema.roles[role]) for role in self.names}

    @property
    def features(self) -> dict[str, str]:
        """Column in Spark → cleaned feature."""
        return {f"f{number}": name for number, name in enumerate(self.schema.features)}

    @property
    def arrow(self) -> pa.Schema:
        """All columns."""
        text, number = pa.string(), pa.float64()
        times = {*self.schema.datetime}
        kinds = dict.fromkeys(self.schema.categorical, text) | {name: pa.timestamp("us") for name in times}
        return pa.schema(
            [
                (POSITION, pa.int64()),
                ("reason", text),
                ("source", pa.list_(text)),
                ("repeated", text),
                ("learnt", number),
                *((alias, self.names[alias.removeprefix("r_")]) for alias in self.roles),
                *((alias, number) for alias in self.numbers),
                *((alias, kinds.get(name, number)) for alias, name in self.features.items()),
            ]
        )

    def types(self) -> StructType:
        """The same, as Spark says it."""
        from pyspark.sql.pandas.types import from_arrow_schema

        return from_arrow_schema(self.arrow)

    def measures(self, table: pa.Table) -> pd.DataFrame:
        """Numbers and names of rows as the scorer returned them, indexed by position."""
        wanted = {**self.roles, **self.numbers}
        data = table.select(list(wanted)).to_pandas(ignore_metadata=True)
        index = pd.Index(table.column(POSITION).to_numpy())
        for alias in self.roles:
            if pa.types.is_integer(table.schema.field(alias).type) and table.column(alias).null_count:
                data[alias] = pd.Int64Dtype().__from_arrow__(table.column(alias))
        return data.set_axis(list(wanted.values()), axis="columns").set_axis(index)

    def cleaned(self, table: pa.Table) -> pd.DataFrame:
        """Cleaned features of rows that were kept for their reasons, and their time, from which dates are counted."""
        time = self.schema.time
        wanted = self.features | ({} if time in (None, *self.schema.datetime) else {"r_time": time})
        data = table.select(list(wanted)).to_pandas(ignore_metadata=True)
        data = data.set_axis(list(wanted.values()), axis="columns")
        return data.set_axis(pd.Index(table.column(POSITION).to_numpy()), axis="index")


@dataclass(frozen=True)
class Measure:
    """Cleans and measures rows in executors.

    - ``detector``: What the detector is called among the files that were shipped.
    - ``raw``: How the columns of the source come.
    - ``out``: What comes out.
    - ``policy``: Rows that it can never flag are not kept for reasons.
    - ``shown``: Columns that the quarantine shows.
    - ``repeated``: Keys that come more than once, as text. Of their rows everything is kept, because only all of them
      together say which is the first that can be used.
    - ``features``: Columns with features in Spark → feature; and what the clock says, if that is asked for.
    """

    detector: str
    raw: SourceColumns
    out: MeasuredColumns
    policy: Policy
    shown: tuple[str, ...]
    repeated: frozenset[str] = frozenset()
    features: dict[str, str] = field(default_factory=dict)
    clock: FeatureSet | None = None

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Measured rows, and rows that cannot be used with the reason."""
        scorer = shipped_scorer(self.detector)
        for batch in batches:
            if batch.num_rows:
                yield from self._measured(scorer, in_order(pa.Table.from_batches([batch]))).to_batches()

    def _measured(self, scorer: TabularScorer, table: pa.Table) -> pa.Table:
        raw = self.raw.frame(table)
        frame, found = self._featured(raw, table)
        cleaned = clean(frame, self.out.schema, positions=frame.index, drop_duplicates=False)
        rows, bad = cleaned.rows, cleaned.quarantine
        reasons = pd.concat([found, pd.Series(bad["reason"].to_numpy(), index=bad["row"].to_numpy(), dtype="str")])
        again = self._again(raw.loc[rows.index])
        measures, learnt = scorer.recalled(rows)
        everything = self._for_reasons(scorer, rows, measures, again)
        parts = {name: measures[name] for name in self.out.numbers.values()}
        columns: dict[str, pd.Series] = {
            "learnt": pd.Series(learnt, index=rows.index),
            "repeated": again,
            **{alias: rows[name] for alias, name in self.out.roles.items()},
            **{alias: parts[name] for alias, name in self.out.numbers.items()},
            **{alias: rows[name].where(everything) for alias, name in self.out.features.items()},
        }
        out = pd.DataFrame({name: column.reindex(raw.index) for name, column in columns.items()}, index=raw.index)
        out[POSITION] = raw.index
        out["reason"] = reasons.reindex(raw.index)
        shown = out["reason"].notna() | out["repeated"].notna()
        texts = as_texts(raw.loc[shown.to_numpy(), list(self.shown)])
        source = pd.Series(None, index=raw.index, dtype=object)
        source[shown.to_numpy()] = pd.Series(
            [[None if pd.isna(each) else each for each in row] for row in texts.itertuples(index=False)],
            index=texts.index,
            dtype=object,
        )
        out["source"] = source
        return as_table(out, self.out.arrow)

    def _featured(self, raw: pd.DataFrame, table: pa.Table) -> tuple[pd.DataFrame, pd.Series]:
        """The rows that can have features, with these, and why the others cannot."""
        if not self.features and self.clock is None:
            return raw, pd.Series(dtype="str")
        reasons = table.column("reason").to_pandas().set_axis(raw.index).dropna().astype("str")
        added = {name: table.column(alias).to_numpy() for alias, name in self.features.items()}
        frame = pd.concat([raw, pd.DataFrame(added, index=raw.index)], axis="columns")
        used = table.column("used").to_numpy(zero_copy_only=False)
        frame = with_clock(frame, self.clock, used)
        return frame[~frame.index.isin(reasons.index)], reasons

    def _again(self, raw: pd.DataFrame) -> pd.Series:
        """The key of each row whose key comes more than once."""
        if self.out.schema.key is None or not self.repeated:
            return pd.Series(None, index=raw.index, dtype="str")
        keys = key_texts(raw[self.out.schema.key])
        return keys.where(keys.isin(self.repeated))

    def _for_reasons(
        self, scorer: TabularScorer, rows: pd.DataFrame, measures: pd.DataFrame, again: pd.Series
    ) -> NDArray[np.bool_]:
        """Which rows may be flagged. Those that may yet turn out to be repeated are not counted against a budget."""
        time = self.out.schema.time
        kept: NDArray[np.bool_] = again.notna().to_numpy().copy()
        alone = ~kept
        kept[alone] = self.policy.candidates(
            measures["p_value"].to_numpy()[alone],
            measures["risk"].to_numpy()[alone],
            day=None if time is None else rows[time].to_numpy().astype("datetime64[D]")[alone],
            support=scorer.support,
        )
        return kept
