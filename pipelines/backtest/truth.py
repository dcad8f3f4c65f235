"""What the rows of a backtest turned out to be, and what was known of them at a moment."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np
import pandas as pd

from detector.errors import SettingError
from detector.metrics.ranking import read_labels
from detector.schema import Schema
from pipelines.config import Config
from pipelines.labels.feedback import Statements
from pipelines.labels.known import Known, known_labels

TRUTH = "__truth__"
"""Among the rows of a backtest without a label column: what reports and answers say."""


@dataclass(frozen=True)
class Told:
    """All that was ever said of the rows of a backtest.

    Parameters
    ----------
    rows : DataFrame
        Cleaned, with the time of report if ``features.reported`` names one.
    schema : Schema
        With a time.
    config : Config
        Names the time of report.
    statements : Statements
        What reports and answers say.
    delay : Timedelta
        After which a row of which nobody said anything is known to be normal, and a label without report is known.
    """

    rows: pd.DataFrame
    schema: Schema
    config: Config
    statements: Statements
    delay: pd.Timedelta

    def by(self, moment: pd.Timestamp, *, since: pd.Timestamp) -> Known:
        """What was known at a moment of the rows before it and since another; both in UTC, without saying so."""
        time = self.rows[str(self.schema.time)]
        return self._known(self.rows[(time >= since) & (time < moment)], moment.tz_localize(UTC))

    def truth(self, now: datetime) -> Known:
        """What rows turned out to be: as known today, and by the label column where that is not known yet.

        Such labels have no date: they judge, but nobody could have acted on them.

        Raises
        ------
        SettingError
            If there is neither a label column nor any report or answer.
        """
        known = self._known(self.rows, now)
        if self.schema.label is not None:
            given = pd.Series(np.array(read_labels(self.rows[self.schema.label])), index=self.rows.index)
            return replace(known, label=known.label.where(known.known_at.notna(), given))
        if self.config.train.head.reports is None and not known.counts.get("verdicts"):
            raise SettingError(
                "A backtest needs to know what turned out to be fraud. Name that column in `columns.label`, or a table "
                "of reports in `train.head.reports`."
            )
        return known

    def _known(self, rows: pd.DataFrame, now: datetime) -> Known:
        """A fraud that nobody reported is not known, where reports have dates."""
        known = known_labels(rows, self.config, self.schema, now=now, statements=self.statements, delay=self.delay)
        reported = self.config.features.reported
        if self.schema.label is None or reported is None:
            return known
        unreported = known.assumed & (known.label == 1) & rows[reported].isna()
        return replace(known, label=known.label.mask(unreported), known_at=known.known_at.mask(unreported))
