"""What the rows of a backtest turned out to be, and when that became known."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

import numpy as np
import pandas as pd

from detector.errors import SettingError
from detector.evaluate import read_labels
from detector.schema import Schema
from pipelines.config import Config
from pipelines.labels import Known, known_labels

TRUTH = "__truth__"
"""Among the rows of a backtest without a label column: what reports and answers say."""


def truth_of(rows: pd.DataFrame, schema: Schema, config: Config, *, delay: pd.Timedelta, now: datetime) -> Known:
    """Labels by all that is known today; of each row the last word counts, and from its own date on.

    Parameters
    ----------
    rows : DataFrame
        Cleaned, with the time of report if ``features.reported`` names one.
    schema : Schema
        With a time.
    config : Config
        Names reports and the service's store.
    delay : Timedelta
        After which a row of which nobody said anything is known to be normal, and a label without report is known.
    now : datetime
        Nothing that is said later counts.

    Returns
    -------
    Known
        A label that is too young to be known today is there, without a date: it judges but teaches nothing. So is a
        fraud that nobody reported, where reports have dates.

    Raises
    ------
    SettingError
        If there is neither a label column nor any report or answer.
    """
    days = delay / pd.Timedelta(days=1)
    own = config.model_copy(update={"retrain": config.retrain.model_copy(update={"label_delay_days": days})})
    known = known_labels(rows, own, schema, now=now)
    if schema.label is None:
        if config.train.head.reports is None and not known.counts.get("verdicts"):
            raise SettingError(
                "A backtest needs to know what turned out to be fraud. Name that column in `columns.label`, or a table "
                "of reports in `train.head.reports`."
            )
        return known
    given = pd.Series(np.array(read_labels(rows[schema.label])), index=rows.index)
    known_at = known.known_at
    if (reported := config.features.reported) is not None:
        unsaid = known_at == rows[str(schema.time)] + delay
        known_at = known_at.mask((given == 1) & rows[reported].isna() & unsaid)
    return replace(known, label=known.label.where(known.known_at.notna(), given), known_at=known_at)
