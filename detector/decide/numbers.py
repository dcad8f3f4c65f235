"""Numbers as deciding takes them: shares, levels, a number for each row."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from detector.arrays import Floats
from detector.errors import SettingError, ShapeError


def share(name: str, value: object) -> float:
    """Check that a setting lies between 0 and 1, and return it.

    Raises
    ------
    SettingError
        If it does not, or if it is no number.

    >>> share("fdr", 0.1)
    0.1
    """
    number = float(value) if isinstance(value, (float, np.floating)) else float("nan")
    if not 0.0 < number < 1.0:
        raise SettingError(f"{name} must lie between 0 and 1, both excluded. Received: {name}={value!r}.")
    return number


def level(quantile: float) -> float:
    """Return the largest p-value beyond a quantile: 0.1 for 0.9, or a p-value of 1/10 would miss it.

    >>> level(0.9), 1 - 0.9
    (0.1, 0.09999999999999998)
    """
    return round(1.0 - quantile, 12)


def row_of_numbers(values: ArrayLike, name: str) -> Floats:
    """Turn values into a one-dimensional float64 array.

    Raises
    ------
    ShapeError
        If they are no numbers, or not one per row.

    >>> row_of_numbers([1, 2], "risk")
    array([1., 2.])
    """
    try:
        numbers = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ShapeError(f"{name} must be an array of numbers: {error}.") from error
    if numbers.ndim != 1:
        raise ShapeError(f"{name} must have one number per row, got an array of shape {numbers.shape}.")
    return numbers
