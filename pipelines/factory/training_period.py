"""Which rows a retraining learns from, and which recent ones both detectors are compared on."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from detector.cleaning.clean import clean
from detector.cleaning.values import naive_utc, read_dates
from detector.errors import DataError
from detector.metrics.ranking import read_labels
from detector.schema import Schema
from pipelines.config import Config
from pipelines.factory.detector import refuse_taken_names
from pipelines.factory.gates import without_maintenance
from pipelines.factory.kinds import KINDS, sample_note
from pipelines.factory.labelled_set import LabelledSet, labelled_set_of, without
from pipelines.features.burn_in import warm
from pipelines.features.engine import FeatureEngine, statements_of
from pipelines.labels.known import known_labels, with_known_labels, with_report_time
from pipelines.progress import counted, progress
from pipelines.sources import Source

log = logging.getLogger("detector.training")

MOST_COMPARED = 100_000
BATCH = 65_536
MOST_ROWS = 1_000_000


@dataclass(frozen=True)
class TrainingPeriod:
    """Recent rows in two parts, cleaned.

    - ``learn``, ``compare``: rows to learn from, known anomalies left out; and later ones that are not learnt from,
      their index positions in ``raw``.
    - ``raw``: all rows read, as they came, for a champion whose schema differs.
    - ``labels`` (n_compare,): 1, 0, or missing where unknown or younger than the label delay.
    - ``since``, ``until``: the span of the rows learnt from, or "" where there is no time.
    - ``compare_days``: how many days the rows compared on span; 0 where there is no time.
    - ``labelled``: what a head learns from, of the rows before those compared on; the members do not learn from these.
    - ``notes``: what to say of rows that are not learnt from, or by a head alone because their past is too short.
    """

    schema: Schema
    learn: pd.DataFrame
    compare: pd.DataFrame
    raw: pd.DataFrame
    labels: NDArray[np.float64]
    quarantined: int
    since: str
    until: str
    compare_days: float
    labelled: LabelledSet | None = None
    notes: tuple[str, ...] = ()

    @property
    def span(self) -> str:
        """The rows learnt from in words."""
        rows = counted(len(self.learn))
        return f"{self.since[:10]} to {self.until[:10]}, {rows}" if self.since else rows


def recent(source: Source, config: Config, *, now: datetime, engine: FeatureEngine | None = None) -> pd.DataFrame:
    """The rows of the last days before the latest one, or, where there is no time, the last rows; in order.

    Rows later than ``now`` are left out: their clock is wrong. Where there are more than can be learnt from, every
    second row of a table is left out, and again; of series, whose rows belong together, the latest are held.

    - ``now``: nothing after it is believed.
    - ``engine``: its features are added, from as many rows before those days as they look back to; it then holds the
      past up to now. Rows that can have none are left out.

    Raises ``DataError`` if no row has a time.
    """
    time, days, thin = config.columns.time, config.retrain.days, KINDS[config.kind].rows_stand_alone
    most = MOST_ROWS if config.train.rows is None else 2 * config.train.rows
    if time is None:
        held = pd.DataFrame()
        with progress("Reading", total=source.estimate()) as advance:
            for batch in source.batches(BATCH):
                held = pd.concat([held, batch]).tail(most) if len(held) else batch.tail(most)
                advance(len(batch))
        return held
    end = naive_utc(now)
    latest = _latest(source, time, end)
    if pd.isna(latest):
        raise DataError(
            f"No row of {source.describe()} has a {time!r} up to {now:%Y-%m-%d %H:%M}. Check the column, or the clock."
        )
    since = latest - timedelta(days=days)
    if engine is not None:
        featured = engine.learn(rows_between(source, time, since=since - engine.reach, until=end), now=end).rows
        featured = featured[(read_dates(featured[time])[0] >= since).to_numpy()]
        return featured.iloc[:: -(-len(featured) // most) or 1]
    parts: list[pd.DataFrame] = []
    every, seen, held_rows = 1, 0, 0
    with progress("Reading", total=source.estimate()) as advance:
        for batch in source.batches(BATCH):
            when = read_dates(batch[time])[0].to_numpy()
            inside = np.flatnonzero((when >= since.to_datetime64()) & (when <= end.to_datetime64()))
            chosen = inside[(seen + np.arange(len(inside))) % every == 0]
            seen += len(inside)
            held_rows += len(chosen)
            parts.append(batch.iloc[chosen])
            while held_rows > 2 * most:  # every second of those held, and from now on half as often
                joined = pd.concat(parts)
                joined = joined.iloc[::2] if thin else latest_rows(joined, time, most)
                parts, every, held_rows = [joined], every * (2 if thin else 1), len(joined)
            advance(len(batch))
    return pd.concat(parts)


def rows_between(source: Source, time: str, *, since: pd.Timestamp | None, until: pd.Timestamp) -> pd.DataFrame:
    """All rows from one time to another, in the order they lie in."""
    parts: list[pd.DataFrame] = []
    with progress("Reading", total=source.estimate()) as advance:
        for batch in source.batches(BATCH):
            when = read_dates(batch[time])[0]
            inside = when <= until
            parts.append(batch[(inside if since is None else inside & (when >= since)).to_numpy()])
            advance(len(batch))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def split(
    frame: pd.DataFrame,
    config: Config,
    *,
    now: datetime,
    champion_until: str = "",
    engine: FeatureEngine | None = None,
) -> TrainingPeriod:
    """Part the rows by time, so that neither detector has learnt from those compared on.

    - ``now``: labels of rows younger than the delay before it are not believed.
    - ``champion_until``: the latest row the champion learnt from, where known: only later ones are compared on.

    Raises ``DataError`` if fewer than three rows are left to learn from.
    """
    settings, kind = config.retrain, KINDS[config.kind]
    raw = frame if engine is None else frame.drop(columns=list(engine.features.names))
    schema = kind.schema(raw, config)
    refuse_taken_names(schema)
    if engine is not None:
        schema = engine.schema(schema)
    frame = frame.reset_index(drop=True)
    cleaned = clean(frame, schema, labelled=schema.label is not None)
    rows, idle = without_maintenance(cleaned.rows, config, schema)
    if schema.time is not None:
        rows = rows.sort_values(schema.time, kind="stable")
    labels = read_labels(rows[schema.label]) if schema.label is not None else np.full(len(rows), np.nan)
    believed = labels.copy()
    dated = with_report_time(rows, frame, config)
    statements = statements_of(config, engine)
    if schema.time is not None and kind.rows_stand_alone:
        known = known_labels(dated, config, schema, now=now, statements=statements)
        believed = known.label.to_numpy(copy=True)
    elif schema.time is not None:
        end = naive_utc(now) - timedelta(days=settings.label_delay_days)
        believed[(rows[schema.time] > end).to_numpy()] = np.nan
    first = _first_compared(rows, believed, config, schema, champion_until)
    compare, learn = rows.iloc[first:], rows.iloc[:first]
    labelled = labelled_set_of(dated.iloc[:first], config, schema, now=now, statements=statements)
    if idle:
        log.info(idle)
    learn = without(learn[labels[:first] != 1], labelled)
    learn = with_known_labels(learn, dated, config, schema, now=now, statements=statements)
    learn, early = warm(learn, str(schema.time), None if engine is None else engine.whole_from)
    believed = believed[first:]
    chosen = kind.sample(len(compare), MOST_COMPARED, config.random_state)
    compare, believed = compare.iloc[chosen], believed[chosen]
    drawn = sample_note(kind, len(learn), config.train.rows)
    learn = learn.iloc[kind.sample(len(learn), config.train.rows, config.random_state)]
    if len(learn) < 3:
        raise DataError(
            f"Expected at least 3 usable rows to learn from, received {len(learn)} of {counted(len(frame))} in the "
            f"last {settings.days:g} days. Lengthen `retrain.days`, or wait until rows have come."
        )
    since, until = span_of(learn, schema)
    days = 0.0
    if schema.time is not None and len(compare):
        spanned = compare[schema.time].max() - compare[schema.time].min()
        days = max(spanned.total_seconds() / 86_400, 1 / 24)
    notes = tuple(note for note in (early, drawn) if note is not None)
    return TrainingPeriod(
        schema, learn, compare, frame, believed, len(cleaned.quarantine), since, until, days, labelled, notes
    )


def span_of(rows: pd.DataFrame, schema: Schema) -> tuple[str, str]:
    """The first and the last time of some rows, in ISO 8601; empty where there is none.

    >>> span_of(pd.DataFrame({"at": pd.to_datetime(["2026-01-02", "2026-01-01"])}), Schema(time="at"))
    ('2026-01-01T00:00:00', '2026-01-02T00:00:00')
    """
    if schema.time is None or rows.empty:
        return "", ""
    return rows[schema.time].min().isoformat(), rows[schema.time].max().isoformat()


def _first_compared(
    rows: pd.DataFrame, believed: NDArray[np.float64], config: Config, schema: Schema, champion_until: str
) -> int:
    """Where the rows to compare on begin: the last share of all, or of those whose labels are believed."""
    settings = config.retrain
    pool = np.arange(len(rows))
    if int((believed == 1).sum()) >= settings.least_anomalies:
        pool = np.flatnonzero(~np.isnan(believed))
    first = int(pool[min(len(pool) - 1, round(len(pool) * (1 - settings.compare_share)))]) if len(pool) else 0
    if schema.time is not None and champion_until:
        when = rows[schema.time].to_numpy()
        first = max(first, int(np.searchsorted(when, np.datetime64(champion_until), side="right")))
    return first


def latest_rows(frame: pd.DataFrame, time: str | None, most: int) -> pd.DataFrame:
    """At most so many rows, the latest, in the order they lie in; without a time, the last ones."""
    if len(frame) <= most:
        return frame
    if time is None:
        return frame.tail(most)
    order = np.argsort(read_dates(frame[time])[0].to_numpy(), kind="stable")
    return frame.iloc[np.sort(order[-most:])]


def _latest(source: Source, time: str, end: pd.Timestamp) -> pd.Timestamp:
    latest = pd.NaT
    for batch in source.batches(BATCH, columns=[time]):
        when = read_dates(batch[time])[0]
        when = when[when <= end]
        if len(when):
            latest = when.max() if pd.isna(latest) else max(latest, when.max())
    return latest
