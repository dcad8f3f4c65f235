"""``detector score --engine spark``: read, measure, decide over all, explain, put in place."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow as pa

from detector.cleaning.values import naive_utc
from detector.decide.policy import Policy
from detector.detectors.table.scorer import TabularScorer
from detector.errors import SettingError, SinkError
from detector.persist import bundle
from pipelines.config import Config, OutputSection
from pipelines.factory.detector import audit_sample_of, policy_of
from pipelines.features.engine import feature_engine_of
from pipelines.features.raw_source import read_columns, without_features
from pipelines.features.wording import wording_of
from pipelines.scoring.reports import ScoreReport
from pipelines.sources.arrow import plain_type
from pipelines.spark.committing import QUARANTINE, BatchFolder, check_batch
from pipelines.spark.deciding import DecidedBatch, decide
from pipelines.spark.features import add_features, refuse_unshared
from pipelines.spark.hadoop import Folders
from pipelines.spark.measuring import ROLES, Measure, MeasuredColumns
from pipelines.spark.reading import REMOTE, SparkRows, SparkSource
from pipelines.spark.repeats import repeated_keys
from pipelines.spark.rows import POSITION, SourceColumns
from pipelines.spark.session import open_session, plain_errors
from pipelines.spark.shipped import ship
from pipelines.spark.writing import WrittenQuarantine, WrittenScores

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

FILE_SUFFIXES = (".csv", ".tsv")


@dataclass(frozen=True)
class _Run:
    """What all steps are given."""

    spark: SparkSession
    config: Config
    scorer: TabularScorer
    detector: str
    policy: Policy
    version: str
    now: datetime
    place: BatchFolder


def score_on_spark(
    config: Config,
    *,
    input: str | None = None,  # noqa: A002 - the option's name
    output: str | None = None,
    batch: str | None = None,
    now: datetime,
) -> ScoreReport:
    """Score rows with the trained detector where Spark runs; the same risks, flags and reasons as ``score``.

    - ``config``: Names the source, the bundle, the policy and the output.
    - ``input``, ``output``: A file, folder, pattern or address to read, and a folder to write into, instead of the
      configured ones.
    - ``batch``: Names what is scored; scored again, it is replaced. By default a name made of the input's files.
    - ``now``: When this run happens; written beside every score.

    Raises ``SettingError`` for what only one machine can do: sensors, outputs other than a folder of Parquet; for the
    rest as ``score`` does. Nothing is half written.
    """
    started = time.perf_counter()
    target = _folder_of(config.output if output is None else config.output.at(output), output)
    if config.kind != "table":
        raise SettingError(
            "Spark scores tables, and `kind` is sensors: a reading's risk depends on the readings around it. Score "
            "sensors with detector score, a file for each group of machines."
        )
    folder = config.bundle.resolve()
    scorer, version = bundle.load(folder), bundle.fingerprint(folder)
    if not isinstance(scorer, TabularScorer):
        raise SettingError("Spark scores tables, and the bundle holds a detector of sensors. Leave --engine out.")
    _refuse_rules(config, scorer)
    policy = policy_of(config.policy, scorer.schema)
    engine = feature_engine_of(config, trained=True)
    if engine is not None:
        refuse_unshared(config)
    spark = open_session(config.name)
    source = SparkSource(spark, config.source if input is None else config.source.at(input))
    given = without_features(scorer.schema, engine)
    given.check(source.columns())
    name = check_batch(batch) if batch is not None else source.fingerprint()
    place = BatchFolder(Folders(spark), target, name)
    with plain_errors(target, SinkError), place.open():
        run = _Run(spark, config, scorer, ship(spark.sparkContext, folder), policy, version, now, place)
        notes: list[str] = []
        rows = source.rows(read_columns(source.columns(), given, engine), staging=place.staging)
        raw = SourceColumns(rows.names, frozenset(given.numeric), source.section.complete_formats)
        frame = spread(rows.frame)
        repeated = repeated_keys(frame, raw, scorer.schema.key)
        measure = Measure(run.detector, raw, _measured(run, rows), policy, rows.names, repeated)
        if engine is not None:
            featured = add_features(frame, raw, engine, repeated=repeated, count=rows.rows, now=pd.Timestamp(now))
            measure = replace(measure, features=featured.columns, clock=featured.clock)
            frame, notes = featured.frame, [featured.note] if featured.note else []
        measured = _kept(run, frame.mapInArrow(measure, measure.out.types()))
        decided = decide(_with_day(measured.where("reason is null"), scorer), policy, scorer.support)
        _write_scores(run, measured, measure.out, decided)
        quarantined = _write_quarantine(run, rows, measured, decided)
        place.commit({"model_version": version, "rows": decided.rows, "flagged": decided.count})
        rejected = 0 if rows.rejected is None else rows.rejected.count()
    return ScoreReport(
        rows=rows.rows + rejected,
        scored=decided.rows,
        flagged=decided.count,
        quarantined=quarantined,
        seconds=time.perf_counter() - started,
        output=place.place,
        quarantine=f"{place.place}/{QUARANTINE}",
        policy=policy.describe(),
        note=" ".join([*notes, *_notes(decided, policy, scorer)]) or None,
        neighbours=decided.neighbours,
    )


def spread(frame: DataFrame) -> DataFrame:
    """Rows over as many tasks as there are cores, where fewer files than that would leave some idle."""
    cores = frame.sparkSession.sparkContext.defaultParallelism
    return frame.repartition(cores) if frame.rdd.getNumPartitions() < cores else frame


def _refuse_rules(config: Config, scorer: TabularScorer) -> None:
    """Rules are applied by one machine alone so far: flags without them would be other flags."""
    found = bool(config.rules)
    if not found and config.service.may_have_state:
        from pipelines.rules.serving import stored_rule_book  # it loads SQLAlchemy

        found = stored_rule_book(config, scorer.schema) is not None
    if found:
        raise SettingError(
            "`rules` hold for these rows, and Spark does not apply them: others would be flagged. Score with "
            "detector score alone, or leave the rules out."
        )


def _folder_of(section: OutputSection, given: str | None) -> str:
    """The folder that scores go to."""
    if section.path is None:
        raise SettingError("Spark writes a folder, and `output` is a database. Name a folder: --output scores.")
    place = given if given is not None and REMOTE.match(given) else section.path
    if place.lower().endswith(FILE_SUFFIXES):
        raise SettingError(f"Spark writes a folder of Parquet files, received {place!r}. Name one: --output scores.")
    return place.rstrip("/") if REMOTE.match(place) else Path(place).absolute().as_uri()


def _measured(run: _Run, rows: SparkRows) -> MeasuredColumns:
    """The columns of measured rows; keys and entities have the types that cleaning gives them."""
    from pyspark.sql import functions as f
    from pyspark.sql.pandas.types import to_arrow_type

    schema, found = run.scorer.schema, dict[str, pa.DataType]()
    for role in ROLES:
        if (name := schema.roles.get(role)) is None:
            continue
        if role == "time":
            found[role] = pa.timestamp("us")
            continue
        column = rows.frame[SourceColumns(rows.names).columns[rows.names.index(name)]]
        given = rows.frame.schema[rows.names.index(name) + 1].dataType
        kind = plain_type(to_arrow_type(given))
        if pa.types.is_floating(kind):  # whole numbers with gaps are floats to some who write Parquet
            broken = rows.frame.where(~f.isnan(column) & (column != f.floor(column))).limit(1).count()
            kind = pa.float64() if broken else pa.int64()
        found[role] = kind
    return MeasuredColumns(schema, found, run.scorer.members)


def _kept(run: _Run, frame: DataFrame) -> DataFrame:
    """Rows that are computed once: written down, and read from there."""
    place = f"{run.place.staging}/measured"
    frame.write.parquet(place)
    return run.spark.read.parquet(place)


def _with_day(frame: DataFrame, scorer: TabularScorer) -> DataFrame:
    from pyspark.sql import functions as f

    if scorer.schema.time is None:
        return frame.withColumn("day", f.lit(None).cast("long"))
    return frame.withColumn("day", f.datediff(f.col("r_time"), f.lit("1970-01-01")).cast("long"))


def _write_scores(run: _Run, measured: DataFrame, out: MeasuredColumns, decided: DecidedBatch) -> None:
    context = run.spark.sparkContext
    without = np.sort(np.fromiter(decided.repeated, np.int64, len(decided.repeated)))
    written = WrittenScores(
        run.detector,
        out,
        run.policy,
        None if decided.flagged is None else context.broadcast(decided.flagged),
        context.broadcast(without),
        decided.rows,
        wording_of(run.config),
        audit_sample_of(run.config),
        {"model_version": run.version, "scored_at": naive_utc(run.now)},
    )
    frame = measured.where("reason is null").mapInArrow(written, written.types())
    frame.write.parquet(run.place.written, compression="zstd")


def _write_quarantine(run: _Run, rows: SparkRows, measured: DataFrame, decided: DecidedBatch) -> int:
    """Write the rows that could not be used, if there are any; how many."""
    repeated = run.spark.sparkContext.broadcast(decided.repeated)
    key, escape = run.scorer.schema.key, run.config.output.escape_formulas
    written = WrittenQuarantine(rows.names, key, repeated, escape)
    bad = measured.where("reason is not null or repeated is not null").select(POSITION, "reason", "repeated", "source")
    if rows.rejected is not None:
        bad = bad.unionByName(rows.rejected, allowMissingColumns=True)
    found = bad.mapInArrow(written, written.types())
    quarantined = int(found.count())
    if quarantined:
        place = f"{run.place.written}/{QUARANTINE}"
        found.toDF(*written.columns).write.csv(
            place,
            header=True,
            quoteAll=True,
            escape='"',
            nullValue="",
            ignoreLeadingWhiteSpace=False,
            ignoreTrailingWhiteSpace=False,
        )
    return quarantined


def _notes(decided: DecidedBatch, policy: Policy, scorer: TabularScorer) -> list[str]:
    note = decided.note
    if not note and not decided.count and decided.rows:
        note = policy.power_note(decided.rows, scorer.calibration.size, support=scorer.support)
    return [note] if note else []
