"""What training would refuse, or learn from a column that gives the label away: found before anything is fitted."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

import pandas as pd

from detector.cleaning.clean import clean
from detector.errors import DetectorError
from pipelines.config import Config
from pipelines.config.series import in_settings
from pipelines.doctor.check import Check
from pipelines.factory.detector import refuse_taken_names
from pipelines.factory.gates import without_maintenance
from pipelines.factory.kinds import KINDS
from pipelines.factory.leakage import suspects_of
from pipelines.labels.known import known_labels, may_be_labelled, with_report_time
from pipelines.sources import Source

LEAST_ROWS = 3


def check_training(config: Config, source: Source, frame: pd.DataFrame) -> Iterator[Check]:
    """The first thing that training would refuse of the rows, in the words of the configuration."""
    kind = KINDS[config.kind]
    try:
        schema = kind.schema(frame, config)
        if not schema.features:  # which the check of the columns says
            return
        refuse_taken_names(schema)
        cleaned = clean(frame, schema, labelled=schema.label is not None, positions=frame.index)
        if len(cleaned.rows) < LEAST_ROWS:
            why = ", ".join(cleaned.reasons()) or "there are no others"
            found = f"{len(cleaned.rows)} usable rows of {len(frame):,}: {why}"
            yield Check("train", "problem", found, "Mend what the checks above say, or give more rows.")
            return
        working, idle = without_maintenance(cleaned.rows, config, schema)
        if idle:
            yield Check("series.maintenance", "ok", idle.rstrip("."))
        rows, kept_apart = kind.split(working, config, schema)
        for said in kind.check(rows, kept_apart, config, schema):
            yield Check("series.period", "ok", said)
    except DetectorError as error:
        yield Check("train", "problem", in_settings(str(error)), _of_several(config, source))


def _of_several(config: Config, source: Source) -> str:
    """What to do where each of several files may be a machine of its own."""
    if config.kind == "sensors" and config.columns.entity is None and source.files > 1:
        return (
            f"The source has {source.files} files and no machine is named. If each is one machine: "
            f"`columns: {{entity: machine, entity_from: filename}}`."
        )
    return "Correct that: `detector train` refuses it as well."


def check_labels(config: Config, frame: pd.DataFrame, *, now: datetime) -> Iterator[Check]:
    """Each column that likely gives the label away; nothing where there are no labels, or rows do not stand alone."""
    kind = KINDS[config.kind]
    if not may_be_labelled(config) or not kind.rows_stand_alone:
        return
    try:
        schema = kind.schema(frame, config)
        rows = clean(frame, schema, labelled=schema.label is not None, positions=frame.index).rows
        if schema.time is None:
            label = rows[schema.label] if schema.label is not None else pd.Series(dtype="float64")
        else:
            label = known_labels(with_report_time(rows, frame, config), config, schema, now=now).label
    except DetectorError:  # which another check says
        return
    for suspect in suspects_of(rows, label, schema, trusted=config.train.head.trusted):
        name = suspect.column
        yield Check(
            "columns",
            "problem",
            f"{name!r} {suspect.reason}: it is likely filled in afterwards, and new rows do not have it",
            f"List it in `columns.ignore`, or, if it is known when the row happens: `train.head.trusted: [{name}]`.",
        )
