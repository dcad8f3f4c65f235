"""The rows of a training: read, measured, cleaned, and split into those to learn from and those kept apart."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pandas as pd

from detector.cleaning.clean import Cleaned, clean
from detector.errors import DataError
from detector.schema import Schema
from pipelines.config import Config
from pipelines.factory.detector import refuse_taken_names
from pipelines.factory.gates import without_maintenance
from pipelines.factory.kinds import KINDS, sample_note
from pipelines.factory.labelled_set import LabelledSet, labelled_set_of, without
from pipelines.factory.leakage import suspects_note, suspects_of
from pipelines.factory.machines import some_machines
from pipelines.features.burn_in import warm
from pipelines.features.engine import FeatureEngine, feature_engine_of, statements_of
from pipelines.ingest.usable import open_usable
from pipelines.labels.feedback import Statements
from pipelines.labels.known import with_known_labels, with_report_time
from pipelines.progress import counted, percent, progress
from pipelines.sinks.quarantine import QuarantineSink
from pipelines.sources import Source

MANY_LOST = 0.01


@dataclass(frozen=True)
class PreparedRows:
    """The rows of a training.

    - ``frame``: all that were read, with their features; of very many a sample.
    - ``cleaned``: those that can be used, and why the others cannot.
    - ``usable``: the former, with the time at which their labels were reported.
    - ``rows``: those to learn from; known anomalies are left out.
    - ``kept_apart``: those that the detector is reviewed on.
    - ``labelled``: what a head learns from; the members do not learn from these.
    - ``statements``: what reports and answers say of rows.
    - ``engine``: what has measured the features, and holds the past up to the last row; None without features.
    - ``quarantined``: how many cannot be used; they are in the file ``quarantine``.
    - ``notes``: what to say of all that.
    """

    source: Source
    schema: Schema
    frame: pd.DataFrame
    cleaned: Cleaned
    usable: pd.DataFrame
    rows: pd.DataFrame
    kept_apart: pd.DataFrame
    labelled: LabelledSet | None
    statements: Statements | None
    engine: FeatureEngine | None
    quarantined: int
    quarantine: Path
    notes: list[str]

    def with_labels(self, config: Config, *, now: datetime) -> pd.DataFrame:
        """The rows to learn from, with the labels that are known now."""
        return with_known_labels(self.rows, self.usable, config, self.schema, now=now, statements=self.statements)


def prepare(config: Config, *, now: datetime) -> PreparedRows:
    """Read the configured source, measure its features, leave out what cannot be used, and split the rest.

    Raises ``DetectorError`` if the rows cannot be read, or too few are left to learn from.
    """
    source, kind = some_machines(open_usable(config), config), KINDS[config.kind]
    engine = feature_engine_of(config, trained=False)
    there = 0
    with progress("Reading", total=source.estimate()) as advance:

        def count(rows: int) -> None:
            nonlocal there
            there += rows
            advance(rows)

        frame = kind.read(source, config, count)
    schema = kind.schema(frame, config)
    refuse_taken_names(schema)
    unmeasured = pd.DataFrame()
    if engine is not None:
        with progress("Measuring features", total=None):
            featured = engine.learn(frame, now=pd.Timestamp(now))
        schema, unmeasured = engine.schema(schema), featured.quarantine
        frame = featured.rows
    statements = statements_of(config, engine)
    is_whole = engine is not None or config.train.rows is None
    unmatched = _unmatched(frame, config, statements) if is_whole else None
    frame = _some(frame, config)
    cleaned = clean(frame, schema, labelled=schema.label is not None, positions=frame.index)
    quarantine = config.bundle.with_name(f"{config.bundle.name}.quarantine.csv")
    columns = [str(name) for name in frame.columns]
    with QuarantineSink(quarantine, columns=columns, escape=config.output.escape_formulas) as sink:
        for rejected in (unmeasured, cleaned.quarantine, source.rejected):
            sink.write(rejected)
    _refuse_too_few(cleaned, quarantine)
    usable = with_report_time(cleaned.rows, frame, config)
    working, idle = without_maintenance(cleaned.rows, config, schema)
    rows, early = warm(working, str(schema.time), None if engine is None else engine.whole_from)
    rows, kept_apart = kind.split(rows, config, schema)
    labelled = labelled_set_of(usable.drop(index=kept_apart.index), config, schema, now=now, statements=statements)
    lost = _lost(cleaned, len(frame), quarantine)
    notes = (
        sample_note(kind, there, config.train.rows),
        early,
        idle,
        lost,
        _hindsight(usable, labelled, config, schema),
        unmatched,
    )
    return PreparedRows(
        source=source,
        schema=schema,
        frame=frame,
        cleaned=cleaned,
        usable=usable,
        rows=without(rows, labelled),
        kept_apart=kept_apart,
        labelled=labelled,
        statements=statements,
        engine=engine,
        quarantined=len(unmeasured) + len(cleaned.quarantine) + len(source.rejected),
        quarantine=quarantine,
        notes=[note for note in notes if note is not None],
    )


def _unmatched(rows: pd.DataFrame, config: Config, statements: Statements | None) -> str | None:
    """What to say of reports about rows that are not there."""
    if statements is None or config.columns.key is None:
        return None
    unknown = statements.unmatched(rows[config.columns.key])
    if not unknown:
        return None
    return (
        f"{len(unknown):,} of {counted(statements.reports['key'].nunique(), 'reported key')} belong to no row, "
        f"such as {unknown[0]!r}; they count for nothing. Check `train.head.reports.key`."
    )


def _some(frame: pd.DataFrame, config: Config) -> pd.DataFrame:
    """A random sample of as many rows as are to be learnt from, in order."""
    most = config.train.rows
    return (
        frame
        if most is None or len(frame) <= most
        else frame.sample(most, random_state=config.random_state).sort_index()
    )


def _refuse_too_few(cleaned: Cleaned, file: Path) -> None:
    if len(cleaned.rows) < 3:
        why = "; ".join(f"{reason} ({counted(count)})" for reason, count in list(cleaned.reasons().items())[:3])
        raise DataError(
            f"Expected at least 3 usable rows to learn from, received {len(cleaned.rows)}. "
            + (
                f"Left out: {why}. See each in {file}. Mend them, or say in `source.formats` how they are written: "
                f"`detector doctor` proposes the form that fits."
                if why
                else "Give more rows."
            )
        )


def _lost(cleaned: Cleaned, rows: int, file: Path) -> str | None:
    """What to say of a fault that many rows have in common, which is then hardly theirs."""
    many = {reason: count for reason, count in cleaned.reasons().items() if count > MANY_LOST * rows}
    if not many:
        return None
    shown = "; ".join(f"{reason} ({percent(count / rows, 1)})" for reason, count in list(many.items())[:3])
    return (
        f"Many rows could not be used for one reason, and nothing like them is learnt: {shown}. See each in {file}; "
        f"`detector doctor` says what to do."
    )


def _hindsight(rows: pd.DataFrame, labelled: LabelledSet | None, config: Config, schema: Schema) -> str | None:
    """What to say of columns that give the label away, where the head does not say it."""
    if labelled is not None and (labelled.suspects or schema.time is not None):
        return None
    if schema.label is None or not KINDS[config.kind].rows_stand_alone:
        return None
    trusted = config.train.head.trusted
    return suspects_note(suspects_of(rows, rows[schema.label], schema, trusted=trusted))
