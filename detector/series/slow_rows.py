"""Rows averaged over a few steps, and every so-manieth of them in a series of its own: long windows at little cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from detector.arrays import Counts, Flags, Floats
from detector.series.segmented_windows import LaidWindows
from detector.series.segments import bounds


@dataclass(frozen=True)
class SlowRows:
    """Windows that reach ``stride`` times as far. Make them with ``SlowRows.lay``.

    - ``laid``: windows over averaged rows, of which those of one segment that lie ``stride`` apart stand together.
    - ``full``, (n_rows,): where an average is not cut at the edge of a segment; else it is not believed.
    - ``order``, (n_rows,): the row at each of their places.
    """

    laid: LaidWindows
    full: Flags
    order: Counts

    @classmethod
    def lay(
        cls,
        values: NDArray[np.float32],
        segment: NDArray[Any],
        length: int,
        *,
        stride: int,
        lead: bool = False,
        missing: Flags | None = None,
    ) -> Self:
        """Lay windows of ``length`` averages, one at every row; for the other parameters see ``LaidWindows.lay``.

        >>> rows = np.arange(6, dtype=np.float32)[:, None]
        >>> slow = SlowRows.lay(rows, np.zeros(6), 2, stride=2)
        >>> slow.order.tolist()
        [0, 2, 4, 1, 3, 5]
        >>> slow.laid.windows.cut(slow.laid.values).tolist()
        [[0.0, 1.5], [1.5, 3.5], [0.5, 2.5], [2.5, 4.5]]
        """
        ends = bounds(segment)
        order = np.concatenate(
            [np.arange(first + phase, end, stride) for first, end in ends for phase in range(min(stride, end - first))]
        )
        number = np.repeat(np.arange(len(ends)), [end - first for first, end in ends])
        place = np.concatenate([np.arange(end - first) % stride for first, end in ends])
        averaged, full = average(values, segment, stride, trailing=lead)
        doubtful = np.repeat(~full[:, None], values.shape[1], axis=1)
        laid = LaidWindows.lay(
            averaged[order],
            (number * stride + place)[order],
            length,
            lead=lead,
            missing=(doubtful if missing is None else doubtful | missing)[order],
        )
        return cls(laid, full, order.astype(np.int64))

    def usable(self, usable: Flags, segment: NDArray[Any], stride: int) -> Flags:
        """Which places hold averages of enough rows, and of usable ones alone; ``usable`` is of the rows."""
        bad, _ = average((~usable)[:, None].astype(np.float32), segment, stride, trailing=False)
        return np.asarray((self.full & (bad[:, 0] == 0))[self.order])

    def to_rows(self, found: Floats) -> Floats:
        """What was found for the places, for the rows."""
        rows = np.empty_like(found)
        rows[self.order] = found
        return rows


def average(
    values: NDArray[np.float32], segment: NDArray[Any], rows: int, *, trailing: bool
) -> tuple[NDArray[np.float32], Flags]:
    """The mean over so many rows around each, or up to each, and where no row was wanting, at the edge of a segment.

    >>> found, full = average(np.array([[0.0], [2.0], [7.0]], dtype=np.float32), np.zeros(3), 2, trailing=True)
    >>> found.ravel().tolist(), full.tolist()
    ([0.0, 1.0, 4.5], [False, True, True])
    """
    averaged, full = values.copy(), np.ones(len(values), dtype=bool)
    for first, end in bounds(segment) if rows > 1 else []:
        place = np.arange(end - first)
        before = rows - 1 if trailing else rows // 2
        low, high = np.maximum(place - before, 0), np.minimum(place - before + rows, end - first)
        total = np.vstack([np.zeros((1, values.shape[1])), np.cumsum(values[first:end], axis=0, dtype=np.float64)])
        averaged[first:end] = (total[high] - total[low]) / (high - low)[:, None]
        full[first:end] = high - low == rows
    return averaged, full
