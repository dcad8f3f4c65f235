"""A feature of a track → one float64 a row asked about, in the units of the table."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from detector.arrays import Floats
from detector.features import windowed
from detector.features.feature import OF_ANY, OF_LABEL, OF_PLACE, Feature
from detector.features.track import Bounds, Track
from detector.features.windowed import CODES, MISSING, TURNS

LEAST_SPREAD = 0.1


def column_keys(feature: Feature) -> tuple[str, ...]:
    """What a track must carry for a feature.

    >>> column_keys(Feature("mean", by=("card",), of=("amount",), window=1))
    ('number:amount',)
    """
    kind = "place" if feature.measure in OF_PLACE else "name" if feature.measure in OF_ANY else "number"
    return TURNS if feature.measure in OF_LABEL else tuple(f"{kind}:{name}" for name in feature.of)


def measure(feature: Feature, track: Track, *, scale: int) -> Floats:
    """The feature of each row asked about.

    Integers are 0 where a window is empty; everything else is NaN where it is not defined: a mean without a value, a
    deviation of fewer than two, a ratio to a mean that is not positive.
    """
    bounds = track.bounds(window=feature.window, delay=feature.delay, with_row=feature.with_row)
    return _MEASURES[feature.measure](feature, track, bounds, scale)


def _count(feature: Feature, track: Track, bounds: Bounds, scale: int) -> Floats:  # noqa: ARG001 - one signature
    return (bounds[1] - bounds[0]).astype(np.float64)


def _sum(feature: Feature, track: Track, bounds: Bounds, scale: int) -> Floats:
    return windowed.sums(track, column_keys(feature)[0], bounds) / scale


def _mean(feature: Feature, track: Track, bounds: Bounds, scale: int) -> Floats:
    (column,) = column_keys(feature)
    count = windowed.known_counts(track, column, bounds)
    total = windowed.sums(track, column, bounds)
    return np.where(count > 0, total / (np.maximum(count, 1) * scale), np.nan)


def _std(feature: Feature, track: Track, bounds: Bounds, scale: int) -> Floats:
    return windowed.spreads(track, column_keys(feature)[0], bounds) / scale


def _max(feature: Feature, track: Track, bounds: Bounds, scale: int) -> Floats:
    found = windowed.largest(track, column_keys(feature)[0], bounds)
    return np.where(found == MISSING, np.nan, found / scale)


def _ratio(feature: Feature, track: Track, bounds: Bounds, scale: int) -> Floats:
    own, mean = _own(feature, track, scale), _mean(feature, track, bounds, scale)
    positive = mean > 0
    return np.where(positive, own / np.where(positive, mean, 1.0), np.nan)


def _zscore(feature: Feature, track: Track, bounds: Bounds, scale: int) -> Floats:
    """Deviations from the mean; a deviation counts as at least a tenth of the mean, and as one unit."""
    mean, spread = _mean(feature, track, bounds, scale), _std(feature, track, bounds, scale)
    least = np.maximum(LEAST_SPREAD * np.abs(mean), 1 / scale)
    return (_own(feature, track, scale) - mean) / np.maximum(spread, least)


def _own(feature: Feature, track: Track, scale: int) -> Floats:
    own = track.columns[column_keys(feature)[0]][track.at]
    return np.where(own == MISSING, np.nan, own / scale)


def _distinct(feature: Feature, track: Track, bounds: Bounds, scale: int) -> Floats:  # noqa: ARG001
    return windowed.distinct(track, column_keys(feature)[0], bounds).astype(np.float64)


def _new(feature: Feature, track: Track, bounds: Bounds, scale: int) -> Floats:  # noqa: ARG001
    return windowed.is_new(track, column_keys(feature)[0], bounds)


def _since(feature: Feature, track: Track, bounds: Bounds, scale: int) -> Floats:  # noqa: ARG001
    return windowed.since(track, bounds)


def _distance(feature: Feature, track: Track, bounds: Bounds, scale: int) -> Floats:  # noqa: ARG001
    latitude, longitude = column_keys(feature)
    return windowed.moved(track, latitude, longitude, bounds)[0]


def _speed(feature: Feature, track: Track, bounds: Bounds, scale: int) -> Floats:  # noqa: ARG001
    latitude, longitude = column_keys(feature)
    far, hours = windowed.moved(track, latitude, longitude, bounds)
    return far / hours


def _frauds(feature: Feature, track: Track, bounds: Bounds, scale: int) -> Floats:  # noqa: ARG001
    return windowed.frauds(track, bounds, delay=feature.delay).astype(np.float64)


def _risk(feature: Feature, track: Track, bounds: Bounds, scale: int) -> Floats:
    count = bounds[1] - bounds[0]
    return np.where(count > 0, _frauds(feature, track, bounds, scale) / np.maximum(count, 1), np.nan)


def _last(feature: Feature, track: Track, bounds: Bounds, scale: int) -> Floats:
    found = windowed.earlier(track, column_keys(feature)[0], bounds, back=feature.back)
    return np.where(found == MISSING, np.nan, found / scale)


def _gap(feature: Feature, track: Track, bounds: Bounds, scale: int) -> Floats:  # noqa: ARG001
    return windowed.gaps(track, bounds, back=feature.back)


def _code(feature: Feature, track: Track, bounds: Bounds, scale: int) -> Floats:  # noqa: ARG001
    found = windowed.earlier(track, column_keys(feature)[0], bounds, back=feature.back)
    return np.where(found == MISSING, np.nan, (found % CODES).astype(np.float64))


_MEASURES: dict[str, Callable[[Feature, Track, Bounds, int], Floats]] = {
    "count": _count,
    "sum": _sum,
    "mean": _mean,
    "std": _std,
    "max": _max,
    "ratio": _ratio,
    "zscore": _zscore,
    "distinct": _distinct,
    "new": _new,
    "since": _since,
    "distance": _distance,
    "speed": _speed,
    "frauds": _frauds,
    "risk": _risk,
    "last": _last,
    "gap": _gap,
    "code": _code,
}
