"""Unbroken segments of rows: where each begins, values carried on in it, and smoothing that does not leave it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from detector.arrays import Counts, Flags, Floats

KERNEL_REACH = 4.0


def bounds(segment: NDArray[Any]) -> list[tuple[int, int]]:
    """The first row of each segment, and the row after its last; the rows of one stand together.

    >>> bounds(np.array([0, 0, 7]))
    [(0, 2), (2, 3)]
    """
    segment = np.asarray(segment)
    begins = np.append(0, np.flatnonzero(segment[1:] != segment[:-1]) + 1)
    return list(zip(begins.tolist(), np.append(begins[1:], len(segment)).tolist(), strict=True))


def carry_on(values: Floats, segment: NDArray[Any], otherwise: Floats) -> Floats:
    """Put each sensor's last value of the segment in place of NaN; what it has otherwise, before there is one.

    >>> values = np.array([[np.nan], [1.0], [np.nan], [np.nan]])
    >>> carry_on(values, np.array([0, 0, 0, 1]), np.array([5.0])).ravel().tolist()
    [5.0, 1.0, 1.0, 5.0]
    """
    missing = np.isnan(values)
    if not missing.any():
        return values
    place = np.arange(len(values))[:, None]
    last = np.maximum.accumulate(np.where(missing, -1, place), axis=0)
    begins = np.concatenate([np.full(end - first, first) for first, end in bounds(segment)])[:, None]
    return np.where(last >= begins, np.take_along_axis(values, np.maximum(last, 0), axis=0), otherwise)


def reach(rows: float) -> int:
    """How many rows to either side ``smooth`` looks at.

    >>> reach(5.0), reach(0.0)
    (20, 0)
    """
    return int(KERNEL_REACH * rows)


def _kernel(rows: float, *, trailing: bool) -> tuple[Counts, Floats]:
    """How many rows away those are that count, and what each counts."""
    lags = np.arange(-reach(rows), 1 if trailing else reach(rows) + 1)
    kernel = np.exp(-np.abs(lags) / rows)
    return lags, kernel / kernel.sum()


def smooth(values: Floats, segment: NDArray[Any], rows: float, *, trailing: bool = False) -> Floats:
    """Weigh each row with its neighbours of the same segment, by exp(-distance / rows), as far as four times ``rows``.

    The ends of a segment are taken to go on. 0 rows leave the values as they are; ``trailing`` counts only rows before.

    >>> smooth(np.array([[0.0], [0.0], [1.0], [0.0]]), np.zeros(4), 0.5, trailing=True).round(3).ravel().tolist()
    [0.0, 0.0, 0.867, 0.117]
    """
    back = reach(rows)
    if back < 1:
        return values
    ahead = 0 if trailing else back
    _, kernel = _kernel(rows, trailing=trailing)
    result = np.empty_like(values, dtype=np.float64)
    for first, end in bounds(segment):
        longer = np.pad(values[first:end], ((back, ahead), (0, 0)), mode="edge")
        total = np.zeros((end - first, values.shape[1]))
        for place, weight in enumerate(kernel):
            total += weight * longer[place : place + end - first]
        result[first:end] = total
    return result


def smooth_at(
    wanted: Counts,
    values: Floats,
    segment: NDArray[Any],
    rows: float,
    *,
    trailing: bool = False,
    ceiling: Floats | None = None,
) -> Floats:
    """What ``smooth`` makes of some rows, shape (n_wanted, n_columns).

    ``ceiling``, (n_columns,), is what another row counts at most where the wanted one is not larger itself: how much it
    looks like its neighbours is then bounded, however large they are.

    >>> values = np.array([[0.0], [9.0], [0.0]])
    >>> smooth_at(np.array([0, 1]), values, np.zeros(3), 0.5, ceiling=np.array([1.0])).round(2).ravel().tolist()
    [0.1, 6.88]
    """
    own = values[wanted]
    if reach(rows) < 1:
        return own
    parts = bounds(segment)
    part = np.searchsorted([end for _, end in parts], wanted, side="right")
    first, last = np.array(parts)[part].T
    limit = None if ceiling is None else np.maximum(ceiling, own)
    total = np.zeros_like(own, dtype=np.float64)
    for lag, weight in zip(*_kernel(rows, trailing=trailing), strict=True):
        beside = values[np.clip(wanted + lag, first, last - 1)]
        total += weight * (beside if limit is None else np.minimum(beside, limit))
    return total


def runs(flagged: Flags, segment: NDArray[Any], join: int = 0) -> list[tuple[int, int]]:
    """First and last row of each flagged run; runs of one segment with at most ``join`` rows between them are one.

    >>> runs(np.array([True, False, True, True]), np.array([0, 0, 0, 1]), 1)
    [(0, 2), (3, 3)]
    """
    found: list[tuple[int, int]] = []
    for row in np.flatnonzero(flagged).tolist():
        if found and row - found[-1][1] <= join + 1 and segment[row] == segment[found[-1][1]]:
            found[-1] = (found[-1][0], row)
        else:
            found.append((row, row))
    return found


def bridged(flagged: Flags, over: Flags, segment: NDArray[Any], most: int) -> Flags:
    """The flagged rows, and between two of one segment those of ``over``, where all are and they are ``most`` at most.

    >>> flagged, over = np.array([True, False, False, True]), np.array([False, True, True, False])
    >>> bridged(flagged, over, np.zeros(4), 2).tolist(), bridged(flagged, over, np.zeros(4), 1).tolist()
    ([True, True, True, True], [True, False, False, True])
    """
    found, rows = flagged.copy(), np.flatnonzero(flagged)
    before, after = rows[:-1], rows[1:]
    apart = (after - before > 1) & (after - before <= most + 1) & (segment[before] == segment[after])
    for first, last in zip(before[apart].tolist(), after[apart].tolist(), strict=True):
        found[first + 1 : last] = over[first + 1 : last].all()
    return found


def near(flagged: Flags, segment: NDArray[Any], rows: int) -> Flags:
    """The flagged rows and those of the same segment at most so many rows away.

    >>> near(np.array([False, True, False, False]), np.array([0, 0, 0, 0]), 1).tolist()
    [True, True, True, False]
    """
    wide = np.zeros(len(flagged), dtype=bool)
    for first, end in bounds(segment) if flagged.any() else []:
        own = np.flatnonzero(flagged[first:end])
        edges = np.bincount(np.maximum(own - rows, 0), minlength=end - first + 1)
        edges = edges - np.bincount(np.minimum(own + rows + 1, end - first), minlength=end - first + 1)
        wide[first:end] = np.cumsum(edges)[:-1] > 0
    return wide
