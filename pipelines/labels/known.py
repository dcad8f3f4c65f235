"""What is known of rows at a moment: by the label column, by reports that came later, by answers to alerts."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
import pandas as pd

from detector.cleaning.values import naive_utc, read_dates
from detector.metrics.ranking import read_labels
from detector.schema import Schema
from pipelines.config import Config
from pipelines.labels.feedback import Statements


@dataclass(frozen=True)
class Known:
    """What is known of some rows.

    Parameters
    ----------
    label : Series
        1 anomalous, 0 normal, missing unknown, indexed as the rows.
    known_at : Series
        Since when, without time zone, in UTC; missing where nothing is known.
    assumed : Series
        Whether nobody gave a date, so that the label delay did.
    counts : dict of str to int
        Rows that "reports" and "verdicts" told of.
    """

    label: pd.Series
    known_at: pd.Series
    assumed: pd.Series
    counts: dict[str, int] = field(default_factory=dict)

    def of(self, index: pd.Index) -> Known:
        """What is known of some of them."""
        return Known(self.label[index], self.known_at[index], self.assumed[index], self.counts)


def known_labels(
    rows: pd.DataFrame,
    config: Config,
    schema: Schema,
    *,
    now: datetime,
    statements: Statements | None = None,
    delay: pd.Timedelta | None = None,
) -> Known:
    """Labels of rows as they are known now.

    A row is normal once the label delay has passed and nobody said otherwise. What is said of it by a report or a
    verdict counts from the moment it was said; of several the last counts, so a chargeback overrides an earlier "fine".
    The same said again is no news. What is dated later than ``now`` is not known. "Unsure" is unknown.

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
    statements : Statements, optional
        What reports and answers say; read if it is not given.
    delay : Timedelta, optional
        After which labels are known; by default as configured.

    Raises
    ------
    SchemaError
        If reports lack a column.
    """
    at = naive_utc(now)
    delay = pd.Timedelta(days=config.retrain.label_delay_days) if delay is None else delay
    later = rows[str(schema.time)] + delay
    label, known_at, assumed = np.zeros(len(rows)), later.to_numpy().copy(), np.ones(len(rows), dtype=bool)
    if schema.label is not None and schema.label in rows:
        label = np.array(read_labels(rows[schema.label]))
        if (reported := config.features.reported) is not None and reported in rows:
            dates = read_dates(rows[reported])[0]
            assumed = ~((label == 1) & dates.notna().to_numpy())
            known_at = later.where(assumed, dates).to_numpy().copy()
    known = known_at <= at.to_numpy()
    label[~known], known_at[~known] = np.nan, np.datetime64("NaT")
    # That nobody has complained is no statement: whatever is said overrides it.
    frauds = np.flatnonzero(label == 1)
    said = [pd.DataFrame({"row": frauds, "label": 1.0, "known_at": known_at[frauds], "assumed": assumed[frauds]})]
    counts = {}
    if schema.key is not None:
        statements = Statements.read(config) if statements is None else statements
        for what, found in statements.about(rows[schema.key]).items():
            said.append(found[found["known_at"] <= at].assign(assumed=False))
            counts[what] = said[-1]["row"].nunique()
    if schema.label is None and config.train.head.reports is None and not counts.get("verdicts"):
        label[:] = np.nan  # nobody has ever said anything, so silence means nothing
    last = _last_words(pd.concat(said))
    for values, name in ((label, "label"), (known_at, "known_at"), (assumed, "assumed")):
        values[last["row"]] = last[name]
    found = pd.DataFrame({"label": label, "known_at": known_at, "assumed": assumed}, index=rows.index)
    return Known(found["label"], found["known_at"], found["assumed"], counts)


def _last_words(said: pd.DataFrame) -> pd.DataFrame:
    """The last that was said of each row, with the date since which it was said without a break."""
    words = said.sort_values(["row", "known_at"], kind="stable").assign(word=lambda each: each["label"].fillna(-1))
    news = words[["row", "word"]].ne(words[["row", "word"]].shift()).any(axis="columns")
    first = words.groupby(news.cumsum())[["known_at", "assumed"]].transform("first")
    return words.assign(**first).drop_duplicates("row", keep="last")
