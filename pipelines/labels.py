"""What is known of rows at a moment: by the label column, by reports that came later, by answers to alerts."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np
import pandas as pd
import sqlalchemy as sa

from detector.errors import SchemaError, nearest
from detector.evaluate import read_labels
from detector.schema import Schema
from detector.values import read_dates, read_names
from pipelines.alerts.outbox import masks_of
from pipelines.alerts.tables import Alert, Answer
from pipelines.alerts.truth import store_of
from pipelines.config import Config
from pipelines.sources import open_source

SAID = {"fraud": 1.0, "fine": 0.0, "unsure": np.nan}
STATEMENT = ["key", "label", "known_at"]


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
        names = read_names(rows[schema.key]).astype("object")
        for what, found, keys in (
            ("reports", _reports(config), names),
            ("verdicts", verdicts(config), _masked(names, config, schema.key)),
        ):
            places = pd.DataFrame({"row": np.arange(len(rows)), "key": keys.to_numpy()})
            said.append(found[found["known_at"] <= at].merge(places, on="key").drop(columns="key"))
            counts[what] = said[-1]["row"].nunique()
    if schema.label is None and config.train.head.reports is None and not counts.get("verdicts"):
        label[:] = np.nan  # nobody has ever said anything, so silence means nothing
    last = pd.concat(said).sort_values("known_at", kind="stable").drop_duplicates("row", keep="last")
    label[last["row"]], known_at[last["row"]] = last["label"], last["known_at"]
    return Known(pd.Series(label, index=rows.index), pd.Series(known_at, index=rows.index), counts)


def verdicts(config: Config) -> pd.DataFrame:
    """What people answered to alerts: ``key`` (masked where the key is), ``label``, and ``known_at`` in UTC.

    A line an answer and row, "unsure" with a missing label; of several answers to one alert the last. Nothing if there
    is no state of a service yet.
    """
    if not config.train.head.verdicts:
        return _nothing()
    store = store_of(config)
    if store is None:
        return _nothing()
    with store.read() as session:
        last = sa.select(sa.func.max(Answer.id)).group_by(Answer.alert)
        statement = (
            sa.select(Answer.verdict, Answer.at, Alert.facts)
            .join(Alert, Alert.id == Answer.alert)
            .where(Alert.source == config.name, Answer.id.in_(last))
            .order_by(Answer.id)
        )
        found = [
            (key, SAID[verdict], pd.Timestamp(at if at.tzinfo is None else at.astimezone(UTC)).tz_localize(None))
            for verdict, at, facts in session.execute(statement)
            for key in facts.get("keys", [])
        ]
    store.close()
    return pd.DataFrame(found, columns=STATEMENT) if found else _nothing()


def _reports(config: Config) -> pd.DataFrame:
    """Reports as statements; without a column that says what was found, each says that it was fraud."""
    section = config.train.head.reports
    if section is None:
        return _nothing()
    frame = open_source(section.source).read()
    key = section.key or str(config.columns.key)
    for name in (key, section.at, *(() if section.label is None else (section.label,))):
        if name not in frame.columns:
            raise SchemaError(
                f"The reports of `train.head.reports` have no column {name!r}. {nearest(name, map(str, frame.columns))}"
            )
    label = np.ones(len(frame)) if section.label is None else read_labels(frame[section.label])
    names = read_names(frame[key]).astype("object")
    return pd.DataFrame({"key": names, "label": label, "known_at": read_dates(frame[section.at])[0]}).dropna()


def _masked(names: pd.Series, config: Config, key: str) -> pd.Series:
    """Keys as they are kept beside alerts."""
    masks = masks_of(config)
    return names.map(lambda name: masks.show(key, name)) if masks.is_masked(key) else names


def _nothing() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "key": pd.Series(dtype="object"),
            "label": pd.Series(dtype="float64"),
            "known_at": pd.Series(dtype="datetime64[us]"),
        }
    )
