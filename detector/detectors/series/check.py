"""Whether rows are the series that a detector can be fitted on, found out without fitting it."""

from __future__ import annotations

from dataclasses import fields, replace

import pandas as pd

from detector.detectors.series.detector import SequenceDetector
from detector.detectors.series.fit import training_series, window_length
from detector.detectors.series.recipe import SeriesRecipe
from detector.detectors.series.scored import refuse_short
from detector.detectors.series.scorer import SHARED, places_by_entity
from detector.schema import Schema
from detector.series.resample import regularise
from detector.series.sampling import Sampling


def check_fit(detector: SequenceDetector, rows: pd.DataFrame, later: pd.DataFrame) -> None:
    """Raise what fitting a detector on cleaned rows would before it fits, and scoring ``later`` ones with it.

    The detector has a schema. Raises ``DataError`` if there are too few rows, a series is shorter than a window, or the
    sampling policy rejects something; ``SettingError`` if a parameter has no meaning.
    """
    detector._check_settings()
    schema, sampling = detector.schema or Schema(), detector.sampling or Sampling()
    recipe = SeriesRecipe(**{field.name: getattr(detector, field.name) for field in fields(SeriesRecipe)})
    shared = detector.models == "shared"
    series, found = training_series(rows, schema, sampling=sampling, shared=shared)
    lengths = {entity: window_length(own, recipe) for entity, own in found.items()}
    if later.empty or detector.short == "pad":
        return
    pace = sampling if series.every is None else replace(sampling, every=series.every)
    following = regularise(later, schema, pace)
    for entity, place in places_by_entity(following, shared=following.entities is None).items():
        refuse_short(following, entity, len(place), lengths.get(SHARED if shared else entity, 0))
