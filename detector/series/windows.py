"""Regular series → windows of fixed length. The way back is in ``detector.series.row_errors``.

A window never reaches over the edge of a segment: another entity, or a gap that splits a series. What is cut is
flattened to ``(n_windows, timesteps * n_sensors)``, in blocks where memory counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, Self, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from detector.arrays import Counts
from detector.errors import DataError, SettingError, ShapeError, nearest

Short = Literal["reject", "pad", "leave"]


@dataclass(frozen=True)
class Windows:
    """Where windows lie in ``n_rows`` rows. Make one with ``Windows.plan``.

    - ``stops``, (n_windows,): the row after each window's last, increasing.
    - ``padding``, (n_windows,): how many of its first steps are no rows, because the segment is shorter than a window.
    - ``length``: steps in a window.
    - ``n_rows``: rows there are.
    """

    stops: Counts
    padding: Counts
    length: int
    n_rows: int

    @classmethod
    def plan(
        cls, segment: NDArray[Any], *, length: int, stride: int = 1, short: Short = "reject", tail: bool = True
    ) -> Self:
        """Lay windows over each segment of rows.

        - ``segment``, (n_rows,): which unbroken segment each row belongs to, such as ``RegularSeries.segment``.
        - ``length``, ``stride``: rows in a window, and from one window's first row to the next one's.
        - ``short``: what becomes of a segment shorter than a window: "reject" is an error; "pad" one window, padded in
          front; "leave" no window, so that its rows stay uncovered.
        - ``tail``: whether a last window, closer than a stride, covers the end of a segment.

        Raises ``DataError`` if there are no rows, if a segment comes in two parts, if one is shorter than a window and
        ``short`` is ``"reject"``, or if no window fits at all; ``SettingError`` if ``length`` or ``stride`` is below 1,
        or ``short`` unknown.

        >>> windows = Windows.plan(np.array([0, 0, 0, 0, 1, 1, 1]), length=3, stride=2)
        >>> windows.starts.tolist(), windows.stops.tolist()
        ([0, 1, 4], [3, 4, 7])
        """
        _check_plan(length, stride, short)
        begins, ends = _segments(np.asarray(segment))
        size = ends - begins
        if short == "reject" and (size < length).any():
            worst = int(np.argmax(size < length))
            raise DataError(
                f"Segment {segment[begins[worst]]} (rows {begins[worst]} to {ends[worst] - 1}) has {size[worst]} rows, "
                f"a window {length}. Choose shorter windows, or short='pad' or 'leave'."
            )
        if short == "leave" and (size < length).all():
            raise DataError(
                f"No window of {length} rows fits: the longest segment has {size.max()} rows. Choose shorter windows, "
                f"or short='pad'."
            )
        many = np.where(size < length, int(short == "pad"), (size - length) // stride + 1)
        begin, end = np.repeat(begins, many), np.repeat(ends, many)
        nth = np.arange(len(begin)) - np.repeat(np.cumsum(many) - many, many)
        stops = np.minimum(begin + nth * stride + length, end)
        if tail:
            stops = np.union1d(stops, ends[size >= length])
        return cls(stops, np.maximum(length - _rows_behind(stops, begins), 0), length, len(segment))

    def __len__(self) -> int:
        return len(self.stops)

    @property
    def starts(self) -> Counts:
        """Each window's first row."""
        return self.stops - self.length + self.padding

    def table(self, entity: NDArray[Any] | pd.Index) -> pd.DataFrame:
        """One line a window: ``entity``, ``start`` and ``end``, its first and last row.

        >>> Windows.plan(np.zeros(3), length=2).table(np.array(["pump"] * 3))
          entity  start  end
        0   pump      0    1
        1   pump      1    2
        """
        starts = self.starts
        return pd.DataFrame({"entity": entity[starts], "start": starts, "end": self.stops - 1})

    def cut(self, values: NDArray[Any]) -> NDArray[Any]:
        """All windows at once, flattened to (n_windows, length * n_sensors); ``blocks`` needs less memory.

        The type of the values, float or boolean, is kept; padding is NaN, or False. Raises ``ShapeError`` if ``values``
        does not have a row for each row that was planned, or holds other than floats or booleans.

        >>> Windows.plan(np.zeros(3), length=2).cut(np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]))
        array([[1., 2., 3., 4.],
               [3., 4., 5., 6.]])
        """
        return self._cut(self._checked(values), slice(0, len(self)))

    def blocks(self, values: NDArray[Any], *, size: int = 512) -> Iterator[tuple[slice, NDArray[Any]]]:
        """The same, ``size`` windows at a time, each block with its place among the windows.

        Raises ``SettingError`` if ``size`` is below 1.

        >>> windows = Windows.plan(np.zeros(4), length=2)
        >>> [(part.start, part.stop, block.shape) for part, block in windows.blocks(np.zeros((4, 5)), size=2)]
        [(0, 2, (2, 10)), (2, 3, (1, 10))]
        """
        if size < 1:
            raise SettingError(f"A block expected at least 1 window. Received: size={size}.")
        values = self._checked(values)
        parts = (slice(first, min(first + size, len(self))) for first in range(0, len(self), size))
        return ((part, self._cut(values, part)) for part in parts)

    def _checked(self, values: NDArray[Any]) -> NDArray[Any]:
        if values.ndim != 2 or len(values) != self.n_rows or values.dtype.kind not in "fb":
            raise ShapeError(
                f"Windows over {self.n_rows} rows expected floats or booleans of shape ({self.n_rows}, n_sensors). "
                f"Received: {values.dtype} of shape {values.shape}. Convert with .astype(float), or plan again."
            )
        return np.ascontiguousarray(values)

    def _cut(self, values: NDArray[Any], part: slice) -> NDArray[Any]:
        stops, padding, width = self.stops[part], self.padding[part], values.shape[1]
        cut = np.empty((len(stops), self.length * width), dtype=values.dtype)
        whole = padding == 0
        if whole.any():
            # A window is one run in memory: picking it from a strided view copies it in one piece.
            shape, strides = (self.n_rows - self.length + 1, cut.shape[1]), (width * values.itemsize, values.itemsize)
            view = np.lib.stride_tricks.as_strided(values, shape, strides, writeable=False)
            cut[whole] = view[stops[whole] - self.length]
        if not whole.all():
            steps = np.arange(self.length) - self.length + stops[~whole, None]
            padded = values[np.maximum(steps, 0)]
            padded[np.arange(self.length) < padding[~whole, None]] = np.nan if values.dtype.kind == "f" else False
            cut[~whole] = padded.reshape(len(padded), -1)
        return cut


def _check_plan(length: int, stride: int, short: str) -> None:
    for name, value in (("length", length), ("stride", stride)):
        if value < 1:
            raise SettingError(f"Windows expected a {name} of at least 1. Received: {name}={value}.")
    if short not in get_args(Short):
        raise SettingError(f"Windows know no short={short!r}. {nearest(short, get_args(Short))}")


def _segments(segment: NDArray[Any]) -> tuple[Counts, Counts]:
    """The first row of each segment, and the row after its last."""
    if not len(segment):
        raise DataError("Windows expected at least one row, got none. Give rows.")
    begins = np.append(0, np.flatnonzero(segment[1:] != segment[:-1]) + 1)
    repeated = pd.Index(segment[begins]).duplicated()
    if repeated.any():
        row = begins[repeated][0]
        raise DataError(
            f"Segment {segment[row]} begins again at row {row}. Sort the rows so that each segment stands together."
        )
    return begins, np.append(begins[1:], len(segment))


def _rows_behind(stops: Counts, begins: Counts) -> Counts:
    """How many rows of its segment lie before each stop."""
    own: Counts = stops - begins[np.searchsorted(begins, stops, side="left") - 1]
    return own
