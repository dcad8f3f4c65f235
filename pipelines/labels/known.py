"""Labels as they were known at a moment: by the label column, by reports that came later, by answers to alerts.

Training, evaluation, the backtest and features of labels all take from here what a row was known to be.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import numpy as np
import pandas as pd

from detector.cleaning.values import naive_utc, read_dates
from detector.errors import SettingError
from detector.metrics.ranking import read_labels
from detector.schema import Schema
from pipelines.config import Config
from pipelines.config.features import TURNS
from pipelines.labels.feedback import MOMENT, Statements, no_statements

TRUTH = "__truth__"
"""Among rows without a label column: what reports and answers say."""


@dataclass(frozen=True)
class KnownLabels:
    """What is known of some rows.

    - ``label``: 1 anomalous, 0 normal, missing unknown, indexed as the rows.
    - ``known_at``: Since when, without time zone, in UTC; missing where nothing is known.
    - ``assumed``: Whether nobody gave a date, so that the label delay did.
    - ``counts``: Rows that "reports" and "verdicts" are about.
    """

    label: pd.Series
    known_at: pd.Series
    assumed: pd.Series
    counts: dict[str, int] = field(default_factory=dict)

    def of(self, index: pd.Index) -> KnownLabels:
        """What is known of some of them."""
        return KnownLabels(self.label[index], self.known_at[index], self.assumed[index], self.counts)


def may_be_labelled(config: Config) -> bool:
    """Whether anything can say which rows are fraud."""
    head = config.train.head
    return config.columns.label is not None or (config.columns.key is not None and bool(head.reports or head.verdicts))


def with_report_time(rows: pd.DataFrame, frame: pd.DataFrame, config: Config) -> pd.DataFrame:
    """Cleaned rows with the time at which each label was reported, if a column of the raw ones says so."""
    reported = config.features.reported
    if reported is None or reported not in frame:
        return rows
    return rows.assign(**{reported: read_dates(frame.loc[rows.index, reported])[0]})


def known_labels(
    rows: pd.DataFrame,
    config: Config,
    schema: Schema,
    *,
    now: datetime,
    statements: Statements | None = None,
    delay: pd.Timedelta | None = None,
) -> KnownLabels:
    """Labels of rows as they are known now.

    A row is normal once the label delay has passed and nobody said otherwise. What is said of it by a report or a
    verdict counts from the moment it was said; of several the last counts, so a chargeback overrides an earlier "fine".
    The same said again is no news. What is dated later than ``now`` is not known. "Unsure" is unknown.

    ``rows`` hold the key, the time and the label, and the time of report if ``features.reported`` names one. Statements
    are read if they are not given; the delay is the configured one.

    Raises ``SchemaError`` if reports lack a column.
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
    if not _has_statements(schema, config, counts):
        label[:] = np.nan  # then silence means nothing
    last = _last_statements(pd.concat(said))
    for values, name in ((label, "label"), (known_at, "known_at"), (assumed, "assumed")):
        values[last["row"]] = last[name]
    found = pd.DataFrame({"label": label, "known_at": known_at, "assumed": assumed}, index=rows.index)
    return KnownLabels(found["label"], found["known_at"], found["assumed"], counts)


def with_known_labels(
    rows: pd.DataFrame,
    dated: pd.DataFrame,
    config: Config,
    schema: Schema,
    *,
    now: datetime,
    statements: Statements | None = None,
) -> pd.DataFrame:
    """Rows to learn from with a label only where it is known by now; what the label column calls anomalous keeps its.

    ``dated`` are the same rows, and maybe more, with their times of report; see ``known_labels``. Readings of sensors,
    and rows without time or label column, stay as they are.
    """
    if config.kind != "table" or schema.time is None or schema.label is None:
        return rows
    known = known_labels(dated.loc[rows.index], config, schema, now=now, statements=statements).label
    return rows.assign(**{schema.label: known.where(rows[schema.label] != 1, 1.0)})


@dataclass(frozen=True)
class LabelHistory:
    """All that was ever said of some rows, to look back at what was known at any moment.

    Rows are cleaned and have a time, and the time of report if ``features.reported`` names one. A row of which nobody
    said anything is known to be normal after ``delay``, which is also when a label without report is known.
    """

    rows: pd.DataFrame
    schema: Schema
    config: Config
    statements: Statements
    delay: pd.Timedelta

    def known_by(self, moment: pd.Timestamp, *, since: pd.Timestamp) -> KnownLabels:
        """What was known at a moment of the rows before it and since another; both in UTC, without saying so."""
        time = self.rows[str(self.schema.time)]
        return self._known(self.rows[(time >= since) & (time < moment)], moment.tz_localize(UTC))

    def truth(self, now: datetime) -> KnownLabels:
        """What rows turned out to be: as known today, and by the label column where that is not known yet.

        Such labels have no date: they count in the measures, but nobody could have acted on them.

        Raises ``SettingError`` if there is neither a label column nor any report or answer.
        """
        known = self._known(self.rows, now)
        if self.schema.label is not None:
            given = pd.Series(np.array(read_labels(self.rows[self.schema.label])), index=self.rows.index)
            return replace(known, label=known.label.where(known.known_at.notna(), given))
        if not _has_statements(self.schema, self.config, known.counts):
            raise SettingError(
                "A backtest needs to know what turned out to be fraud. Name that column in `columns.label`, or a table "
                "of reports in `train.head.reports`."
            )
        return known

    def _known(self, rows: pd.DataFrame, now: datetime) -> KnownLabels:
        """A fraud that nobody reported is not known, where reports have dates."""
        known = known_labels(rows, self.config, self.schema, now=now, statements=self.statements, delay=self.delay)
        reported = self.config.features.reported
        if self.schema.label is None or reported is None:
            return known
        unreported = known.assumed & (known.label == 1) & rows[reported].isna()
        return replace(known, label=known.label.mask(unreported), known_at=known.known_at.mask(unreported))


def label_changes(
    rows: pd.DataFrame, statements: Statements, *, time: str, key: str | None, label: str | None, reported: str | None
) -> pd.DataFrame:
    """Label changes of each row: since when it was known to be fraud, when that was taken back, and when said again.

    A row is known to be fraud while the last that was said of it is "fraud": by the label column, a report or a
    verdict; of several at one moment in this order the last. "Fine" and "unsure" end that. A label without a column
    that says when it was reported stands from the row on, whatever is said, as nobody knows which came last. Changes
    after the third do not count.

    Times are dates and labels numbers. Later statements may be among them: each counts from its own date on. The
    result has the columns ``TURNS``, dates or missing.

    >>> said = pd.DataFrame({"key": "a", "label": [1.0, 0.0], "known_at": pd.to_datetime(["2026-01-02", "2026-01-05"])})
    >>> rows = pd.DataFrame({"id": ["a", "b"], "at": pd.Timestamp("2026-01-01")})
    >>> found = label_changes(rows, Statements(said, said[:0]), time="at", key="id", label=None, reported=None)
    >>> found.iloc[0].dt.day.tolist(), found.iloc[1].dt.day.tolist()
    ([2.0, 5.0, nan], [nan, nan, nan])
    """
    said = [no_statements("row")]
    undated = np.zeros(0, dtype=np.intp)
    if label is not None and label in rows:
        frauds = np.flatnonzero(rows[label].to_numpy(dtype=np.float64, na_value=np.nan) == 1)
        if reported is None:
            undated = frauds
        elif reported in rows:
            known_at = rows[reported].iloc[frauds].to_numpy()
            said.append(pd.DataFrame({"row": frauds, "label": 1.0, "known_at": known_at}).dropna())
    if key is not None:
        said += statements.about(rows[key]).values()
    said = [each for each in said if len(each)]
    if not said and not len(undated):
        return pd.DataFrame(dict.fromkeys(TURNS, np.full(len(rows), np.datetime64("NaT"), dtype=MOMENT)), rows.index)
    words = pd.concat(said or [no_statements("row")]).sort_values(["row", "known_at"], kind="stable")
    fraud = words["label"] == 1
    turned = words[fraud != fraud.groupby(words["row"]).shift(fill_value=False)]
    number = turned.groupby("row").cumcount()
    found = {}
    for place, name in enumerate(TURNS):
        chosen, column = turned[number == place], np.full(len(rows), np.datetime64("NaT"), dtype=MOMENT)
        column[chosen["row"].to_numpy(dtype=np.intp)] = chosen["known_at"].to_numpy().astype(MOMENT)
        column[undated] = np.datetime64("NaT") if place else rows[time].iloc[undated].to_numpy().astype(MOMENT)
        found[name] = column
    return pd.DataFrame(found, index=rows.index)


def with_statements(frame: pd.DataFrame, schema: Schema, statements: Statements) -> tuple[pd.DataFrame, int]:
    """The rows with what was said of them among their labels, for evaluation, and of how many rows anything was said.

    A row is anomalous if the label column or the last that was said of it says so; "fine" counts where the label column
    says nothing. The rows may lack the label column.

    >>> rows = pd.DataFrame({"id": [1, 2, 3], "fraud": [0, None, None]})
    >>> said = pd.DataFrame({"key": ["1", "2"], "label": [1.0, 0.0], "known_at": pd.Timestamp("2026-01-02")})
    >>> with_statements(rows, Schema(key="id", label="fraud"), Statements(said[:0], said, "id"))[0]["fraud"].tolist()
    [1.0, 0.0, nan]
    """
    if schema.key is None or schema.label is None or schema.key not in frame or not statements:
        return frame, 0
    last = _last_statements(pd.concat(statements.about(frame[schema.key]).values()).assign(assumed=False))
    said = np.full(len(frame), np.nan)
    said[last["row"]] = last["label"]
    known = read_labels(frame[schema.label]) if schema.label in frame else np.full(len(frame), np.nan)
    joined = np.where(np.isnan(known), said, np.where(said == 1, 1.0, known))
    return frame.assign(**{schema.label: joined}), int((~np.isnan(said)).sum())


def _has_statements(schema: Schema, config: Config, counts: dict[str, int]) -> bool:
    """Whether there is a label column, a table of reports, or at least one answer."""
    return schema.label is not None or config.train.head.reports is not None or bool(counts.get("verdicts"))


def _last_statements(said: pd.DataFrame) -> pd.DataFrame:
    """The last that was said of each row, with the date since which it was said without a break."""
    words = said.sort_values(["row", "known_at"], kind="stable").assign(word=lambda each: each["label"].fillna(-1))
    news = words[["row", "word"]].ne(words[["row", "word"]].shift()).any(axis="columns")
    first = words.groupby(news.cumsum())[["known_at", "assumed"]].transform("first")
    return words.assign(**first).drop_duplicates("row", keep="last")
