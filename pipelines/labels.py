"""What is known of rows at a moment: by the label column, by reports that came later, by answers to alerts."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np
import pandas as pd

from detector.evaluate import read_labels
from detector.schema import Schema
from detector.values import read_dates
from pipelines.config import Config
from pipelines.statements import Statements


@dataclass(frozen=True)
class Known:
    """What is known of some rows.

    Parameters
    ----------
    label : Series
        1 anomalous, 0 normal, missing unknown, indexed as the rows.
    known_at : Series
        When that became known, without time zone, in UTC; missing where nothing is.
    counts : dict of str to int
        Rows that "reports" and "verdicts" told of.
    """

    label: pd.Series
    known_at: pd.Series
    counts: dict[str, int] = field(default_factory=dict)


def known_labels(rows: pd.DataFrame, config: Config, schema: Schema, *, now: datetime) -> Known:
    """Labels of rows as they are known now.

    A row is normal once the label delay has passed and nobody said otherwise. What is said of it by a report or a
    verdict counts from the moment it was said; of several the last counts, so a chargeback overrides an earlier "fine".
    What is dated later than ``now`` is not known. "Unsure" is unknown.

    Parameters
    ----------
    rows : DataFrame
        With the key, time and label columns, and the time of report if ``features.reported`` names one.
    config : Config
        Names the label delay, the reports, and the service's store.
    schema : Schema
        The meaning of the columns; with a time.
    now : datetime
        The moment.

    Raises
    ------
    SchemaError
        If reports lack a column.
    """
    at = pd.Timestamp(now.astimezone(UTC)).tz_localize(None)
    later = rows[str(schema.time)] + pd.Timedelta(days=config.retrain.label_delay_days)
    label, known_at = np.zeros(len(rows)), later.to_numpy().copy()
    if schema.label is not None and schema.label in rows:
        label = np.array(read_labels(rows[schema.label]))
        if (reported := config.features.reported) is not None and reported in rows:
            dates = read_dates(rows[reported])[0]
            known_at = dates.where((label == 1) & dates.notna().to_numpy(), later).to_numpy().copy()
    known = known_at <= at.to_numpy()
    label[~known], known_at[~known] = np.nan, np.datetime64("NaT")
    # That nobody has complained is no statement: whatever is said overrides it.
    frauds = np.flatnonzero(label == 1)
    said = [pd.DataFrame({"row": frauds, "label": 1.0, "known_at": known_at[frauds]})]
    counts = {}
    if schema.key is not None:
        for what, found in Statements.read(config).about(rows[schema.key]).items():
            said.append(found[found["known_at"] <= at])
            counts[what] = said[-1]["row"].nunique()
    if schema.label is None and config.train.head.reports is None and not counts.get("verdicts"):
        label[:] = np.nan  # nobody has ever said anything, so silence means nothing
    last = pd.concat(said).sort_values("known_at", kind="stable").drop_duplicates("row", keep="last")
    label[last["row"]], known_at[last["row"]] = last["label"], last["known_at"]
    return Known(pd.Series(label, index=rows.index), pd.Series(known_at, index=rows.index), counts)
