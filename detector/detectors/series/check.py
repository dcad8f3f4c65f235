"""Whether rows are the series that a detector can be fitted on, found out without fitting it."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
import pandas as pd

from detector.detectors.series.detector import SequenceDetector
from detector.detectors.series.fit import rhythm_of, training_series, window_length, window_stride
from detector.detectors.series.groups import SHARED, group_of, places_by_entity
from detector.detectors.series.members import TrainingSeries
from detector.detectors.series.recipe import SeriesRecipe
from detector.detectors.series.scored import refuse_short
from detector.schema import Schema
from detector.series.resample import regularise
from detector.series.sampling import Sampling


@dataclass(frozen=True)
class SeenTime:
    """What a model would know of time.

    - ``name``: whose model it is; empty if it is that of all.
    - ``period``: the rhythm that readings follow, in words; empty if none is found.
    - ``foretells``: the share of what is unknown of the sensor that follows it most, which it foretells.
    - ``window``, ``long_window``: how long they are, in steps.
    - ``seconds``: between two steps; 1 without times.
    """

    name: str
    period: str
    foretells: float
    window: int
    long_window: int
    seconds: float


def check_fit(detector: SequenceDetector, rows: pd.DataFrame, later: pd.DataFrame) -> list[SeenTime]:
    """Raise what fitting a detector on cleaned rows would before it fits, and scoring ``later`` ones with it.

    What each model would know of time is returned.

    The detector has a schema. Raises ``DataError`` if there are too few rows, a series is shorter than a window, or the
    sampling policy rejects something; ``SettingError`` if a parameter has no meaning.
    """
    detector._check_settings()
    schema, sampling = detector.schema or Schema(), detector.sampling or Sampling()
    recipe = SeriesRecipe(**{field.name: getattr(detector, field.name) for field in fields(SeriesRecipe)})
    shared, group_by = detector.shares_one_model, detector.group_by
    series, found = training_series(rows, schema, sampling=sampling, shared=shared, group_by=group_by)
    lengths = {entity: window_length(own, recipe) for entity, own in found.items()}
    seen = [_seen_time(own, recipe, lengths[entity]) for entity, own in found.items()]
    if later.empty or detector.short == "pad":
        return seen
    pace = sampling if series.every is None else replace(sampling, every=series.every)
    following = regularise(later, schema, pace)
    for entity, place in places_by_entity(following, shared=following.entities is None).items():
        name = SHARED if shared else entity if group_by is None else group_of(entity, group_by)
        refuse_short(following, entity, len(place), lengths.get(name, 0))
    return seen


def _seen_time(series: TrainingSeries, recipe: SeriesRecipe, length: int) -> SeenTime:
    recipe = recipe.resolved(int(series.usable.sum()))
    seen = np.where(series.observed & series.usable[:, None], series.values, np.nan)
    scaling = recipe.scaling_of(seen)
    rhythm = rhythm_of(series, scaling.scale(series.values, series.segment)[:, scaling.moving], recipe)
    period, gain = ("", 0.0) if rhythm is None else (rhythm.rhythm.name, float(rhythm.gains.max()))
    return SeenTime(series.name, period, gain, length, length * window_stride(series, length), series.seconds)
