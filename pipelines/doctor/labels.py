"""Whether a column gives the label away, judged by some of the rows."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

import pandas as pd

from detector.cleaning.clean import clean
from detector.errors import DetectorError
from pipelines.config import Config
from pipelines.doctor.check import Check
from pipelines.factory.kinds import KINDS
from pipelines.factory.leakage import suspects_of
from pipelines.labels.known import known_labels, may_be_labelled, with_report_time


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
