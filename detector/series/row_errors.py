"""Window errors → rows: by the mean or the least over the windows that cover a row, or by the last step alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from detector.arrays import Counts, Floats
from detector.errors import SettingError, ShapeError, nearest
from detector.series.windows import Windows

How = Literal["overlap", "least", "trailing"]


@dataclass(frozen=True)
class RowErrors:
    """Window errors by row.

    - ``values``, (n_rows, n_sensors), or (n_rows,) where a window had one error: NaN where no window covers the row, or
      none with a known error.
    - ``covering``, (n_rows,): how many windows cover each row.
    """

    values: Floats
    covering: Counts


def to_rows(
    windows: Windows,
    errors: NDArray[Any] | Iterable[tuple[slice, NDArray[Any]]],
    *,
    how: How = "overlap",
    since: int = 0,
) -> RowErrors:
    """Give each row the errors of the windows that cover it; the same to the last bit, whatever the size of the blocks.

    Errors are of shape (n_windows, timesteps, n_sensors), the same flattened, or (n_windows,) for one error a window;
    or blocks of it with their places, in the order of ``Windows.blocks``. NaN is unknown, and left out.

    ``how`` is "overlap", the mean over all windows that cover the row; "least", the least error of those windows; or,
    for use as rows arrive, "trailing", the last step of the window that ends at the row. A window's steps before
    ``since`` are left out: then a row does not wait for windows that go on for long after it. Raises ``ShapeError`` if
    the errors do not fit the windows, or blocks are missing or out of order; ``SettingError`` if ``how`` is unknown.

    >>> windows = Windows.plan(np.zeros(4), length=2)
    >>> errors = np.array([[1.0, 3.0], [5.0, 7.0], [9.0, 2.0]])
    >>> to_rows(windows, errors).values.ravel().tolist()
    [1.0, 4.0, 8.0, 2.0]
    >>> to_rows(windows, errors, how="least").values.ravel().tolist()
    [1.0, 3.0, 7.0, 2.0]
    >>> to_rows(windows, errors, how="trailing").values.ravel().tolist()
    [nan, 3.0, 7.0, 2.0]
    >>> to_rows(windows, errors, since=1).values.ravel().tolist()
    [nan, 3.0, 7.0, 2.0]
    """
    if how not in get_args(How):
        raise SettingError(f"to_rows knows no how={how!r}. {nearest(how, get_args(How))}")
    blocks = [(slice(0, len(windows)), errors)] if isinstance(errors, np.ndarray) else errors
    rows: _Rows | None = None
    done = 0
    for part, block in blocks:
        if part.start != done or part.stop - part.start != len(block):
            raise ShapeError(
                f"to_rows expected errors for windows from {done} on, got {len(block)} for windows {part.start} to "
                f"{part.stop - 1}. Pass one for each window; blocks in order, each with the slice that blocks() gave."
            )
        steps = _as_steps(block, windows.length)
        rows = rows or _Rows(windows, steps.shape[2], how, flat=block.ndim == 1, since=since)
        rows.add(part, steps)
        done = part.stop
    if rows is None or done != len(windows):
        raise ShapeError(f"to_rows expected errors for {len(windows)} windows, got {done}. Pass one for each window.")
    return rows.finish()


class _Rows:
    """Row errors in the making. A row's windows are always added from the first to the last."""

    def __init__(self, windows: Windows, width: int, how: How, *, flat: bool, since: int) -> None:
        self.windows, self.how, self.flat, self.since = windows, how, flat, since
        self.values = np.full((windows.n_rows, width), 0.0 if how == "overlap" else np.inf)
        self.unknown = np.zeros((windows.n_rows, width), dtype=np.int64)

    def add(self, part: slice, errors: Floats) -> None:
        if errors.shape[2] != self.values.shape[1]:
            raise ShapeError(
                f"to_rows expected {self.values.shape[1]} sensors in every block, got {errors.shape[2]}. Pass blocks "
                f"of the same sensors."
            )
        join, nothing = (np.add, 0.0) if self.how == "overlap" else (np.minimum, np.inf)
        # By step first: then what is joined lies side by side in memory, which is several times faster.
        last = self.windows.length - 1
        steps = [last] if self.how == "trailing" else list(range(last, self.since - 1, -1))
        by_step = np.ascontiguousarray(errors[:, steps].transpose(1, 0, 2))
        unknown = np.isnan(by_step)
        gaps = bool(unknown.any())
        if gaps:
            by_step = np.where(unknown, nothing, by_step)
        before, padding = self.windows.stops[part] - self.windows.length, self.windows.padding[part]
        strides = np.unique(np.diff(before))
        even = len(strides) < 2 and not padding.any()
        stride = int(strides[0]) if len(strides) else 1
        for place, step in enumerate(steps):
            # No two rows are the same, as no two stops are. Evenly spaced ones are a slice, which is faster.
            own = slice(None) if even else padding <= step
            rows = slice(before[0] + step, before[-1] + step + 1, stride) if even else before[own] + step
            self.values[rows] = join(self.values[rows], by_step[place, own])
            if gaps:
                self.unknown[rows] += unknown[place, own]

    def finish(self) -> RowErrors:
        windows = self.windows
        since = windows.length - 1 if self.how == "trailing" else self.since
        first = np.maximum(windows.starts, windows.stops - windows.length + since)
        n = windows.n_rows + 1
        covering = np.cumsum(np.bincount(first, minlength=n) - np.bincount(windows.stops, minlength=n))[:-1]
        known = covering[:, None] - self.unknown
        values = self.values / np.maximum(known, 1) if self.how == "overlap" else self.values
        values = np.where(known, values, np.nan)
        return RowErrors(values[:, 0] if self.flat else values, covering)


def _as_steps(errors: NDArray[Any], length: int) -> Floats:
    """Errors as (n_windows, length, n_sensors)."""
    if errors.ndim == 1:
        return np.broadcast_to(errors.astype(np.float64)[:, None, None], (len(errors), length, 1))
    fits = errors.ndim == 3 and errors.shape[1] == length
    if not fits and not (errors.ndim == 2 and errors.shape[1] and errors.shape[1] % length == 0):
        raise ShapeError(
            f"to_rows expected errors of shape (n_windows, {length}, n_sensors), the same flattened to two dimensions, "
            f"or (n_windows,). Received: {errors.shape}."
        )
    width = int(np.prod(errors.shape[1:])) // length
    return errors.reshape(len(errors), length, width).astype(np.float64, copy=False)
