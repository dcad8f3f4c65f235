"""How wide the kernel is with which known rows pull a new one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

NARROWEST = 1e-4
"""The least squared width of the kernel, as a share of a row's squared length: squared distances are float32, and a
narrower kernel would weigh rows by their rounding."""
WIDTH_ROWS = 500
WIDTH_FACTORS = tuple(2.0**power for power in range(-4, 7))


def kernel_width(rows: NDArray[np.float32]) -> float:
    """The squared kernel width with which rows are rebuilt best from the others, each left out in turn."""
    if len(rows) < 2:
        return 1.0
    sample = rows[:WIDTH_ROWS]
    squared = ((rows.astype(np.float64) ** 2).sum(axis=1) - 2.0 * sample @ rows.T).astype(np.float64)
    squared += (sample.astype(np.float64) ** 2).sum(axis=1)[:, None]
    squared[np.arange(len(sample)), np.arange(len(sample))] = np.inf
    squared = np.maximum(squared, 0.0)
    least = squared.min(axis=1, keepdims=True)
    typical = float(np.median(least)) or (float(np.median(least[least > 0])) if (least > 0).any() else 1.0)
    narrowest = NARROWEST * float(np.median((rows.astype(np.float64) ** 2).sum(axis=1)))
    errors = {}
    for factor in WIDTH_FACTORS:
        width = max(typical * factor, narrowest, 1e-12)
        weight = np.exp((least - squared) / (2 * width))
        mean = weight @ rows / weight.sum(axis=1, keepdims=True)
        errors[width] = float(((sample - mean) ** 2).sum(axis=1).mean())
    return min(errors, key=lambda width: errors[width])
