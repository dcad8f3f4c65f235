"""How severe a flag is: by its p-value."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from detector.arrays import Flags, Floats
from detector.errors import SettingError, ShapeError

SEVERITIES = ("low", "medium", "high", "critical")


def severity(
    p_value: Floats, flagged: Flags, *, levels: tuple[float, float, float] = (1e-3, 1e-4, 1e-5)
) -> NDArray[np.object_]:
    """Name how severe each flagged row is: low, medium, high or critical; "" where it is not flagged.

    Parameters
    ----------
    p_value, flagged : array of shape (n_rows,)
        As the calibrator and the policy give them.
    levels : tuple of three floats
        The largest p-value that is medium, high and critical.

    Raises
    ------
    SettingError
        If the levels do not fall.
    ShapeError
        If the two arrays differ in length.

    >>> list(severity(np.array([0.5, 0.01, 0.001, 2e-6]), np.array([False, True, True, True])))
    ['', 'low', 'medium', 'critical']
    """
    if len(levels) != len(SEVERITIES) - 1 or not 1.0 > levels[0] > levels[1] > levels[2] > 0.0:
        raise SettingError(f"levels must be three falling numbers between 1 and 0. Received: levels={levels}.")
    if np.shape(p_value) != np.shape(flagged):
        raise ShapeError(f"severity expected one flag per p-value, got {np.shape(flagged)} for {np.shape(p_value)}.")
    names = np.array(["", *SEVERITIES], dtype=object)
    steps = (np.asarray(p_value)[:, None] <= np.array(levels)).sum(axis=1)
    return np.asarray(names[np.where(flagged, steps + 1, 0)])
