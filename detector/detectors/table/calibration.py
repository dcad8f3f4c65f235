"""Which training rows calibrate, and from their out-of-fold scores to a calibrator and to what they score again."""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd

from detector.arrays import Floats, Places
from detector.decide.calibrate import RISK_RESOLUTION, Calibrator
from detector.detectors.table.ordinary_groups import ordinary_rows
from detector.detectors.table.recipe import KNOWN, Recipe
from detector.detectors.table.training_rows import LearntRows, keys_of
from detector.encoding.encoded import Encoded
from detector.schema import Schema

MOST_CALIBRATION_ROWS = 50_000
LEAST_KNOWN = 0.5
"""The share of the rows that must have a label for those without one not to calibrate. A minority with labels are the
cases that somebody looked at, and no sample of normal rows."""


def choose_calibrating(rows: pd.DataFrame, schema: Schema, recipe: Recipe) -> Places:
    """Places of the rows whose risks make p-values: a sample of those that stand for normal ones."""
    places = np.arange(len(rows))
    if recipe.calibrate_on == KNOWN and schema.label in rows:
        known = rows[schema.label].notna().to_numpy()
        places = places[known] if known.mean() >= LEAST_KNOWN else places
    if len(places) <= MOST_CALIBRATION_ROWS:
        return places
    return np.sort(np.random.default_rng(recipe.random_state).choice(places, MOST_CALIBRATION_ROWS, replace=False))


def calibrate(
    rows: pd.DataFrame, encoded: Encoded, risk: Floats, *, rarity: Floats, schema: Schema, tail: str
) -> tuple[Calibrator, LearntRows]:
    """Calibrate on rows whose scores come from members that did not learn from them.

    - ``rows``, ``encoded``: cleaned training rows, and as the graph takes them.
    - ``risk``, (n_rows,): of each row by members that have not seen it.
    - ``rarity``, (n_rows,): how far each lies from the bulk. By it the rows are ranked when they come again, as nothing
      that was learnt is novel. Outliers that are near each other show in it as a group apart.
    - ``tail``: see ``Calibrator``.
    """
    excused = partial(ordinary_rows, rows=rows, schema=schema)
    calibrator = Calibrator.learn(risk, views=[rarity], excused=excused, tail=tail, resolution=RISK_RESOLUTION)
    known = np.empty(len(risk))
    known[np.argsort(rarity, kind="stable")] = np.sort(risk)
    return calibrator, LearntRows.of(encoded, known, calibrator.apart, keys_of(rows, schema))
