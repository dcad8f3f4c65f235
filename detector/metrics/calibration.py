"""How close the p-values of normal rows are to uniform."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from detector.arrays import Floats
from detector.errors import DataError


def alert_curve(p_value: ArrayLike, *, points: int = 100) -> pd.DataFrame:
    """The share of rows that each of several thresholds on the p-value would flag.

    The thresholds are evenly spaced on a logarithmic scale from the least p-value to 1; missing values are left out.
    Returned are ``threshold`` and ``alert_rate``: among normal rows the two are equal. Raises ``DataError`` if there is
    no p-value, or one lies outside [0, 1].

    >>> alert_curve([0.01, 0.5, 0.9, 1.0], points=2)["alert_rate"].tolist()
    [0.25, 1.0]
    """
    values = np.sort(_p_values(p_value))
    least = max(float(values[0]), 0.1 / len(values), 1e-12)
    thresholds = np.append(np.geomspace(least, 1.0, points)[:-1], 1.0)
    rate = np.searchsorted(values, thresholds * (1 + 1e-12), side="right") / len(values)
    return pd.DataFrame({"threshold": thresholds, "alert_rate": rate})


def calibration_metrics(p_value: ArrayLike) -> dict[str, float]:
    """How close the p-values of normal rows are to uniform, as they should be.

    The rows took no part in fitting or calibration. Returned are ``calibration_rows``; ``calibration_distance``, the
    Kolmogorov-Smirnov distance to the uniform distribution (0 is perfect); ``share_below_0.01`` and
    ``share_below_0.001``, which should be about 0.01 and 0.001. Raises ``DataError`` if there is no p-value, or one
    lies outside [0, 1].

    >>> calibration_metrics([0.25, 0.5, 0.75, 1.0])["calibration_distance"]
    0.25
    """
    values = np.sort(_p_values(p_value))
    ranks = np.arange(len(values) + 1) / len(values)
    distance = np.maximum(ranks[1:] - values, values - ranks[:-1]).max()
    return {
        "calibration_rows": float(len(values)),
        "calibration_distance": float(distance),
        "share_below_0.01": float(np.mean(values <= 0.01)),
        "share_below_0.001": float(np.mean(values <= 0.001)),
    }


def _p_values(p_value: ArrayLike) -> Floats:
    values = np.asarray(p_value, dtype=np.float64)
    values = values[~np.isnan(values)]
    if not values.size:
        raise DataError("There are no p-values to measure. Score at least one row first.")
    if values.min() < 0 or values.max() > 1:
        raise DataError(f"p-values lie in [0, 1], received {values.min():g} to {values.max():g}.")
    return values
