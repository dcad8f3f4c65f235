"""Which sensor is to blame, dealt anew by limits and by what goes with what."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from detector.arrays import Flags, Floats
from detector.detectors.series.model import SeriesModel

CERTAIN = 0.99


def first_of(blamed: Floats, outside: Flags) -> Floats:
    """Blame with sensors beyond their limits in the first place.

    >>> first_of(np.array([3.0, 1.0]), np.array([False, True])).tolist()
    [3.0, 5.0]
    """
    if not outside.any():
        return blamed
    positive = np.maximum(blamed, 0.0)
    return np.asarray(np.where(outside, positive + (float(positive.sum()) or 1.0), positive))


def redealt(blamed: Floats, explained: Mapping[int, float]) -> Floats:
    """Blame dealt anew by what goes with each sensor, as far as anything does.

    >>> redealt(np.array([6.0, 4.0, 0.0]), {0: 0.1, 1: 0.9}).round(2).tolist()
    [0.71, 9.29, 0.0]
    """
    sensors = np.array(list(explained), dtype=np.int64)
    share = np.minimum(np.array(list(explained.values())), CERTAIN)
    odds, pool, strength = share / (1 - share), blamed[sensors].sum(), float(share.max(initial=0.0))
    if odds.sum() == 0:
        return blamed
    dealt = blamed.copy()
    dealt[sensors] = (1 - strength) * blamed[sensors] + strength * pool * odds / odds.sum()
    return dealt


def ties(model: SeriesModel, sensor: int) -> dict[int, float]:
    """The correlation of a sensor with each other one that moves, as the components know it."""
    if model.pca is None or not model.scaling.moving[sensor]:
        return {}
    moving = np.flatnonzero(model.scaling.moving)
    loadings = model.pca.directions.astype(np.float64).reshape(model.length, len(moving), -1)
    loadings = loadings * np.sqrt(model.pca.variances)
    own = loadings[:, int(np.searchsorted(moving, sensor))]
    variance = (loadings**2).sum(axis=(0, 2)) + model.length * model.pca.noise
    together = np.einsum("lk,lsk->s", own, loadings)
    place = int(np.searchsorted(moving, sensor))
    found = together / np.sqrt(np.maximum(variance * variance[place], np.finfo(float).tiny))
    return {int(other): float(found[at]) for at, other in enumerate(moving) if other != sensor}
