"""From out-of-fold scores of training rows to a calibrator, and to what these rows score when they come again."""

from __future__ import annotations

import numpy as np
import pandas as pd

from detector.arrays import Floats
from detector.decide.calibrate import RISK_RESOLUTION, Calibrator
from detector.detectors.table.training_rows import LearntRows, keys_of
from detector.encoding.table import Encoded
from detector.schema import Schema


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
    calibrator = Calibrator.learn(risk, views=[rarity], tail=tail, resolution=RISK_RESOLUTION)
    known = np.empty(len(risk))
    known[np.argsort(rarity, kind="stable")] = np.sort(risk)
    return calibrator, LearntRows.of(encoded, known, calibrator.apart, keys_of(rows, schema))
