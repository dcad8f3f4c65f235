"""From out-of-fold scores of training rows to a calibrator, and to what these rows score when they come again."""

from __future__ import annotations

import pandas as pd

from detector.arrays import Floats
from detector.decide.calibrate import RISK_RESOLUTION, Calibrator
from detector.decide.fuse import RARITY
from detector.detectors.table.learnt import LearntRows, keys_of
from detector.encoding.table import Encoded
from detector.schema import Schema


def calibrate(
    rows: pd.DataFrame, encoded: Encoded, z: Floats, risk: Floats, *, kinds: tuple[str, ...], schema: Schema, tail: str
) -> tuple[Calibrator, LearntRows]:
    """Calibrate on rows whose scores come from members that did not learn from them.

    - ``rows``, ``encoded``: cleaned training rows, and as the graph takes them.
    - ``z``, (n_rows, n_members), ``risk``, (n_rows,): of each row by members that have not seen it.
    - ``kinds``: what each member says. Those of rarity, averaged, are a second view in which anomalies that resemble
      each other show as a group apart.
    - ``tail``: see ``Calibrator``.
    """
    rare = [number for number, kind in enumerate(kinds) if kind == RARITY]
    views = [z[:, rare].mean(axis=1)] if rare else []
    calibrator = Calibrator.learn(risk, views=views, tail=tail, resolution=RISK_RESOLUTION)
    return calibrator, LearntRows.of(encoded, risk, calibrator.apart, keys_of(rows, schema))
