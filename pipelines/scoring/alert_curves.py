"""What the sensors of an alert read around it, and what they should have read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from detector.arrays import Floats
from detector.cleaning.clean import clean
from detector.cleaning.values import naive_utc
from detector.detectors.series.events import curves_around
from detector.detectors.series.scorer import SequenceScorer
from detector.errors import DetectorError
from pipelines.config import Config
from pipelines.config.masking import masks_of
from pipelines.features.wording import wording_of
from pipelines.jobs.context import ProcessCache
from pipelines.scoring.alert_rows import batches_of_alert, earlier_batches, frames_of
from pipelines.scoring.load import load_scorer
from pipelines.scoring.series import SeriesBatchScorer
from pipelines.store import Store
from pipelines.store.alert_tables import Alert

MOST_SENSORS = 3
SHOWN_AROUND = 60
"""Steps before and after the event that are shown."""
UNKNOWN_STEP = pd.Timedelta(hours=1)


@dataclass(frozen=True)
class SensorCurve:
    """One sensor around an event.

    - ``title``: what people call it.
    - ``when``: the steps; ``observed``, ``expected``: in the sensor's unit, NaN where there is no reading.
    """

    title: str
    when: pd.DatetimeIndex
    observed: Floats
    expected: Floats


@dataclass(frozen=True)
class SensorCurves:
    """The sensors of an alert, the one at fault first; or why there are none to show."""

    curves: Sequence[SensorCurve] = ()
    note: str = ""


def curves_of_alert(
    alert: Alert, *, entity: str | None, config: Config, store: Store, cache: ProcessCache
) -> SensorCurves:
    """The curves of the sensors that an alert names, as the detector that serves now sees them.

    - ``entity``: the machine; None if there is one series, or if it may not be shown.

    There are none for rows of a table, for sensors whose values are masked, and where readings have no time.
    """
    if config.kind != "sensors":
        return SensorCurves()
    try:
        batch_scorer = load_scorer(config, cache)
        if not isinstance(batch_scorer, SeriesBatchScorer) or batch_scorer.schema.time is None:
            return SensorCurves()
        scorer = batch_scorer.scorer
        titles = _titles(alert, scorer.sensors, config)
        if not titles or (entity is None and scorer.schema.entity is not None):
            return SensorCurves()
        batches = batches_of_alert(alert, store)
        frames = frames_of(batches + earlier_batches(batches, store), config, store, cache)
        rows = _near(frames, scorer, alert, entity)
        return SensorCurves(_drawn(scorer, rows, alert, titles)) if len(rows) else SensorCurves()
    except DetectorError as error:
        return SensorCurves(note=f"The curves of the sensors cannot be drawn: {error}")


def _titles(alert: Alert, sensors: Sequence[str], config: Config) -> dict[str, str]:
    """What people call the sensors that the reasons name, in their order."""
    masks, wording = masks_of(config), wording_of(config)
    columns = {said.name or column: column for column, said in config.columns.names.items()}
    named = [columns.get(reason["feature"], reason["feature"]) for reason in alert.facts.get("reasons", [])]
    shown = [name for name in dict.fromkeys(named) if name in sensors and not masks.is_masked(name)]
    return {name: wording.column(name) for name in shown[:MOST_SENSORS]}


def _near(frames: Iterator[pd.DataFrame], scorer: SequenceScorer, alert: Alert, entity: str | None) -> pd.DataFrame:
    """Cleaned rows of the machine: those shown, and those that what is expected of them depends on.

    Batches come latest first, so no more are read than it takes.
    """
    schema = scorer.schema
    assert schema.time is not None
    reach = (scorer.memory + SHOWN_AROUND) * _step(scorer)
    since, until = naive_utc(alert.first_at) - reach, naive_utc(alert.last_at) + reach
    parts: list[pd.DataFrame] = []
    for frame in frames:
        rows = clean(frame, schema, positions=frame.index).rows
        if schema.entity is not None:
            rows = rows[rows[schema.entity].astype(str) == entity]
        parts.append(rows[(rows[schema.time] >= since) & (rows[schema.time] <= until)])
        if len(rows) and rows[schema.time].min() < since:
            break
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def _drawn(scorer: SequenceScorer, rows: pd.DataFrame, alert: Alert, titles: Mapping[str, str]) -> list[SensorCurve]:
    step = _step(scorer)
    entity = "" if scorer.schema.entity is None else rows[scorer.schema.entity].iloc[0]
    event = {"entity": entity, "start": naive_utc(alert.first_at) - step, "end": naive_utc(alert.last_at) + step}
    curves = curves_around(scorer.score_steps(rows), pd.DataFrame([event]), margin=SHOWN_AROUND)
    found = []
    for name, title in titles.items():
        own = curves[curves["sensor"] == name]
        if len(own):
            values = (np.asarray(own[part], dtype=np.float64) for part in ("observed", "expected"))
            found.append(SensorCurve(title, pd.DatetimeIndex(own["when"]), *values))
    return found


def _step(scorer: SequenceScorer) -> pd.Timedelta:
    every = scorer.sampling.interval
    return UNKNOWN_STEP if every is None else pd.Timedelta(microseconds=every)
