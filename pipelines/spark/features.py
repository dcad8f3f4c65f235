"""Features of the past on a cluster: rows of an entity meet in one task, where the engine of all jobs measures them.

Features may be by card, by terminal, by both. Each grouping is a pass of its own: rows go to the task of their entity
in that grouping, get its features, and go on to the next. A task is given many entities at once, in buckets, because a
call an entity would cost more than its features.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa

from detector.arrays import Integers
from detector.errors import SettingError
from detector.features import FeatureSet, History
from pipelines.config import Config
from pipelines.features.engine import FeatureEngine, old_note
from pipelines.spark.buckets import By, buckets_of, empty_past, history_of, pasts
from pipelines.spark.deciding import is_among
from pipelines.spark.measuring import key_texts
from pipelines.spark.rows import POSITION, SourceColumns, in_order

if TYPE_CHECKING:
    from pyspark.sql import DataFrame
    from pyspark.sql.types import StructType

ROWS_A_BUCKET = 50_000
"""About how many rows are measured together. Fewer, and calls cost more than work; more, and tasks need more memory."""
FEWEST_BUCKETS, MOST_BUCKETS = 16, 100_000


@dataclass(frozen=True)
class FeaturedFrame:
    """Rows with their features.

    - ``frame``: as they came, with ``reason`` (why a row cannot have features), ``used`` and the features.
    - ``columns``: Columns with features in Spark → feature.
    - ``clock``: What is made of the time alone, and so has no pass of its own.
    - ``note``: What to say of rows that are older than the past.
    """

    frame: DataFrame
    columns: dict[str, str]
    clock: FeatureSet | None
    note: str


def refuse_unshared(config: Config) -> None:
    """Make sure that every feature can be measured by the entity's own rows.

    Raises ``SettingError`` if the currency that is accepted would be the first that comes.
    """
    money = config.features.money()
    if money.currency is not None and money.mixed == "refuse" and not money.rates:
        raise SettingError(
            f"`features.currency` is {money.currency!r}, and with `mixed: refuse` the first currency of a file is the "
            f'one that is accepted: tasks on Spark see other first rows. Name it: `rates: ["EUR 1"]`.'
        )


def add_features(
    rows: DataFrame,
    raw: SourceColumns,
    engine: FeatureEngine,
    *,
    repeated: frozenset[str],
    count: int,
    now: pd.Timestamp,
) -> FeaturedFrame:
    """Measure features of all rows, as ``FeatureEngine.measure`` does of a file.

    - ``rows``: ``position`` and the columns of ``raw``; read more than once.
    - ``repeated``: Keys that come more than once: of these only the first row that is usable has features.
    - ``count``: How many rows there are.
    """
    from pyspark.sql import functions as f

    sent = _sent(engine)
    look = Usable(sent, raw, now=now, repeated=repeated)
    seen = rows.mapInArrow(look, look.types)
    old, usable = seen.agg(f.sum(f.col("old").cast("long")), f.count("old")).head()
    note = old_note(old or 0, usable)
    again = _again(seen.where("key is not null"), among="pushed" if not note else "computed")
    count_buckets = int(np.clip(count // ROWS_A_BUCKET, FEWEST_BUCKETS, MOST_BUCKETS))
    groups = list(engine.features.groups)
    prepare = Prepare(sent, raw, now=now, again=again, buckets=count_buckets, computes=bool(note))
    frame = rows.mapInArrow(prepare, prepare.types(rows))
    columns: dict[str, str] = {}
    for number, by in enumerate(groups):
        names = [feature.name for feature in engine.features.groups[by]]
        aliases = {f"g{len(columns) + place}": name for place, name in enumerate(names)}
        measure = MeasureGroup(_of_group(sent, by), raw, tuple(aliases), tuple(names), computes=bool(note))
        types = _with_columns(frame.schema, aliases)
        grouped = frame.groupBy(f"b{number}")
        if note or engine.history.latest is None:
            frame = grouped.applyInArrow(_of_one(measure), types)
        else:
            past = rows.sparkSession.createDataFrame(pasts(engine.history, by, count_buckets))
            frame = grouped.cogroup(past.groupBy("bucket")).applyInArrow(_of_two(measure), types)
        columns |= aliases
    clock = replace(engine.features, features=(), turns=None) if engine.features.calendar else None
    return FeaturedFrame(frame, columns, clock, note)


@dataclass(frozen=True)
class Usable:
    """Says of rows which are older than the past, and of repeated keys which of their rows can have features."""

    engine: FeatureEngine
    raw: SourceColumns
    now: pd.Timestamp
    repeated: frozenset[str]

    @property
    def types(self) -> str:
        """What it yields; ``old`` is missing where a row cannot have features whatever the past is."""
        return f"{POSITION} long, old boolean, key string, pushed boolean, computed boolean"

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """A row for each."""
        engine, features = self.engine, self.engine.features
        for batch in batches:
            frame = self.raw.frame(pa.Table.from_batches([batch]))
            typed = engine.typed(frame)
            out = pd.DataFrame(index=frame.index)
            out["old"] = pd.Series(engine.is_old(typed), index=typed.index, dtype="boolean").reindex(frame.index)
            out["key"] = pd.Series(None, index=frame.index, dtype="str")
            if features.key is not None and self.repeated:
                keys = key_texts(frame[features.key])
                out["key"] = keys.where(keys.isin(self.repeated))
            for name, computes in (("pushed", False), ("computed", True)):
                read, reasons = faults_of(engine, frame, now=self.now, computes=computes)
                out[name] = out.index.isin(read.index[(reasons == "").to_numpy()])
            out.insert(0, POSITION, out.index)
            yield from pa.Table.from_pandas(out, preserve_index=False).cast(_USABLE).to_batches()


_USABLE = pa.schema(
    [
        (POSITION, pa.int64()),
        ("old", pa.bool_()),
        ("key", pa.string()),
        ("pushed", pa.bool_()),
        ("computed", pa.bool_()),
    ]
)


@dataclass(frozen=True)
class Prepare:
    """Says of rows whether they can have features, and which bucket they belong to in each grouping.

    - ``again``: Positions of rows whose key came before, sorted.
    - ``buckets``: How many there are.
    - ``computes``: Whether rows are measured among themselves.
    """

    engine: FeatureEngine
    raw: SourceColumns
    now: pd.Timestamp
    again: Integers
    buckets: int
    computes: bool

    def types(self, rows: DataFrame) -> StructType:
        """What it yields, given what it takes."""
        from pyspark.sql.types import BooleanType, LongType, StringType, StructField, StructType

        added = [StructField("reason", StringType()), StructField("used", BooleanType())]
        added += [StructField(f"b{number}", LongType()) for number in range(len(self.engine.features.groups))]
        return StructType([*rows.schema.fields, *added])

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """The rows as they came, with ``reason``, ``used``, and ``b0``, ``b1`` and so on."""
        for batch in batches:
            table = pa.Table.from_batches([batch])
            frame = self.raw.frame(table)
            typed, reasons = faults_of(self.engine, frame, now=self.now, computes=self.computes)
            good = typed[(reasons == "").to_numpy()]
            used = frame.index.isin(good.index) & ~is_among(frame.index.to_numpy(), self.again)
            if (key := self.engine.features.key) is not None:
                used &= good[key].reindex(frame.index).notna().to_numpy()
            said = reasons[reasons != ""].reindex(frame.index)
            table = table.append_column("reason", pa.array(said, pa.string(), from_pandas=True))
            table = table.append_column("used", pa.array(used))
            taken = good.loc[frame.index[used]]
            for number, by in enumerate(self.engine.features.groups):
                bucket = pd.Series(frame.index.to_numpy() % self.buckets, index=frame.index)
                bucket.loc[taken.index] = buckets_of(taken, by, self.buckets)
                table = table.append_column(f"b{number}", pa.array(bucket.to_numpy(), pa.int64()))
            yield from table.to_batches()


@dataclass(frozen=True)
class MeasureGroup:
    """Measures the features of one grouping of the entities in a bucket.

    - ``engine``: Of these features alone.
    - ``aliases``, ``names``: Their columns in Spark, and their names.
    - ``computes``: Whether rows are measured among themselves.
    """

    engine: FeatureEngine
    raw: SourceColumns
    aliases: tuple[str, ...]
    names: tuple[str, ...]
    computes: bool

    def __call__(self, table: pa.Table) -> pa.Table:
        """Rows with their features, where nothing is known of any past."""
        return self._measured(table, self.engine.history.copy())

    def after(self, table: pa.Table, past: pa.Table) -> pa.Table:
        """The same, where a past goes on."""
        history = self.engine.history.copy()
        for content in past.column("past").to_pylist():
            history = history_of(content)
        return self._measured(table, history)

    def _measured(self, table: pa.Table, history: History) -> pa.Table:
        if not table.num_rows:  # of these entities only the past is known
            for alias in self.aliases:
                table = table.append_column(alias, pa.array([], pa.float64()))
            return table
        table = in_order(table)
        frame = self.raw.frame(table)
        used = frame[table.column("used").to_numpy(zero_copy_only=False)]
        typed = self.engine.reader.with_label_changes(self.engine.reader.read(used))
        features = self.engine.features
        computed = features.compute(typed) if self.computes or not len(typed) else history.push(typed)
        found = computed.reindex(frame.index)
        for alias, name in zip(self.aliases, self.names, strict=True):
            table = table.append_column(alias, pa.array(found[name].to_numpy(dtype=np.float64)))
        return table


def faults_of(
    engine: FeatureEngine, frame: pd.DataFrame, *, now: pd.Timestamp, computes: bool
) -> tuple[pd.DataFrame, pd.Series]:
    """The rows that have a time, read, and why each cannot have features."""
    typed = engine.reader.read(frame)
    typed = typed[typed[engine.features.time].notna()]
    faults = engine.features.faults if computes else engine.history.faults
    return typed, engine.faults(typed, faults, now)


def _sent(engine: FeatureEngine) -> FeatureEngine:
    """The engine as executors get it: with the end of the past, and none of it; with no address and no password."""
    found, config = copy.copy(engine), engine.reader.config
    found.history = History(engine.features)
    found.history.lateness, found.history.latest = engine.history.lateness, engine.history.latest
    found.reader = copy.copy(engine.reader)
    if engine.features.knows:
        found.reader.statements = engine.reader.statements  # read once, here
    values = config.model_dump(mode="json", include={"name", "kind", "columns", "features"})
    found.reader.config = Config(**values, source={"path": "rows"})
    return found


def _of_group(engine: FeatureEngine, by: By) -> FeatureEngine:
    """The engine of one grouping's features alone."""
    found = copy.copy(engine)
    found.features = replace(engine.features, features=tuple(engine.features.groups[by]), calendar=())
    found.reader = copy.copy(engine.reader)
    found.reader.features = found.features
    found.history = empty_past(engine.history, found.features)
    return found


def _again(seen: DataFrame, *, among: str) -> Integers:
    """Positions of rows whose key came before among those that can have features, sorted."""
    rows = seen.where(among).select(POSITION, "key").toArrow()
    known, again = set[Any](), []
    for position, key in sorted(zip(rows.column(POSITION).to_pylist(), rows.column("key").to_pylist(), strict=True)):
        if key in known:
            again.append(position)
        known.add(key)
    return np.array(again, dtype=np.int64)


def _of_one(measure: MeasureGroup) -> Callable[[pa.Table], pa.Table]:
    """As a plain function: of an object Spark takes ``self`` for one more table."""

    def measured(table: pa.Table) -> pa.Table:
        return measure(table)

    return measured


def _of_two(measure: MeasureGroup) -> Callable[[pa.Table, pa.Table], pa.Table]:
    """The same."""

    def measured(table: pa.Table, past: pa.Table) -> pa.Table:
        return measure.after(table, past)

    return measured


def _with_columns(types: StructType, aliases: dict[str, str]) -> StructType:
    from pyspark.sql.types import DoubleType, StructField, StructType

    return StructType([*types.fields, *(StructField(alias, DoubleType()) for alias in aliases)])
