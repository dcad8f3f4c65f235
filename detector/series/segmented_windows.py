"""Windows laid over series so that each row is covered, and what models say of windows brought back to rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from detector.arrays import Counts, Flags, Floats
from detector.series.row_errors import How, to_rows
from detector.series.segments import bounds
from detector.series.windows import Windows

BLOCK = 2048

Model = TypeVar("Model")


@dataclass(frozen=True)
class LaidWindows:
    """Windows over rows, with stand-in rows in front of a segment that is too short. Make one with ``lay``.

    - ``values``, (n_laid_rows, n_columns): the rows and those that stand in.
    - ``windows``: where the windows lie in them.
    - ``source``, (n_laid_rows,): the true row that each is, or stands for.
    - ``own``, (n_rows,): where the true rows are among them.
    - ``missing``: values that are not to be believed: of rows that stand in, and of sensors silent for too long.
    """

    values: NDArray[np.float32]
    windows: Windows
    source: Counts
    own: Counts
    missing: Flags | None = None

    @classmethod
    def lay(
        cls,
        values: NDArray[np.float32],
        segment: NDArray[Any],
        length: int,
        *,
        lead: bool = False,
        missing: Flags | None = None,
    ) -> Self:
        """Lay a window at every row of each segment; ``segment`` as for ``Windows.plan``, values without NaN.

        With ``lead`` a window ends at the very first row of a segment, as if that had lasted longer; if not, only a
        segment shorter than a window is lengthened so. ``missing`` is where a sensor has been silent for too long.

        >>> laid = LaidWindows.lay(np.array([[1.0], [2.0], [3.0]], dtype=np.float32), np.array([0, 1, 1]), 2)
        >>> laid.windows.cut(laid.values).tolist()
        [[1.0, 1.0], [2.0, 3.0]]
        """
        ends = bounds(segment)
        more = [length - 1 if lead else max(0, length - (end - first)) for first, end in ends]
        source = np.concatenate(
            [np.r_[np.full(n, first), first:end] for n, (first, end) in zip(more, ends, strict=True)]
        ).astype(np.int64)
        own = np.concatenate([np.arange(*pair) + n for n, pair in zip(np.cumsum(more), ends, strict=True)])
        windows = Windows.plan(np.asarray(segment)[source], length=length)
        laid = cls(np.ascontiguousarray(values[source]), windows, source, own.astype(np.int64))
        doubtful = np.repeat(laid.stands_in[:, None], values.shape[1], axis=1)
        if missing is not None:
            doubtful |= missing[source]
        return replace(laid, missing=doubtful) if doubtful.any() else laid

    @property
    def stands_in(self) -> Flags:
        """The laid rows that are no true rows."""
        flags = np.ones(len(self.source), dtype=bool)
        flags[self.own] = False
        return flags

    @property
    def whole(self) -> Flags:
        """The windows of true rows alone."""
        return self.learnable(np.ones(len(self.own), dtype=bool))

    def of(self, values: NDArray[np.floating[Any]]) -> LaidWindows:
        """The same windows over other columns of the true rows."""
        return replace(self, values=np.ascontiguousarray(values[self.source], dtype=np.float32))

    def clear_of(self, rows: Flags) -> Flags:
        """The windows in which no true row is among ``rows``.

        >>> laid = LaidWindows.lay(np.zeros((4, 1), dtype=np.float32), np.zeros(4), 2)
        >>> laid.clear_of(np.array([True, False, False, False])).tolist()
        [False, True, True]
        """
        count = np.append(0, np.cumsum(rows[self.source]))
        return np.asarray(count[self.windows.stops] == count[self.windows.starts])

    def learnable(self, usable: Flags) -> Flags:
        """The windows of usable rows alone: no row that stands in for one before the beginning, and none not usable.

        >>> laid = LaidWindows.lay(np.zeros((3, 1), dtype=np.float32), np.zeros(3), 2, lead=True)
        >>> laid.learnable(np.array([True, True, True])).tolist()
        [False, True, True]
        """
        bad = np.append(0, np.cumsum(self.stands_in | ~usable[self.source]))
        return np.asarray(bad[self.windows.stops] == bad[self.windows.starts])

    def some(self, chosen: Flags | None) -> Windows:
        """All windows, or those chosen."""
        whole = self.windows
        if chosen is None:
            return whole
        return Windows(whole.stops[chosen], whole.padding[chosen], whole.length, whole.n_rows)

    def blocks(self, chosen: Flags | None = None) -> Iterator[tuple[slice, NDArray[np.float32]]]:
        """The windows, flattened, a block at a time, each with its place among those chosen."""
        return self.some(chosen).blocks(self.values, size=BLOCK)

    def doubtful_blocks(self, chosen: Flags | None = None) -> Iterator[Flags | None]:
        """Which values of each of these blocks are not to be believed; ``None`` where all are."""
        windows = self.some(chosen)
        if self.missing is None:
            yield from [None] * -(-len(windows) // BLOCK)
            return
        for _, block in windows.blocks(self.missing, size=BLOCK):
            yield block if block.any() else None

    def to_rows(
        self, found: Iterable[tuple[slice, NDArray[Any]]], *, how: How, chosen: Flags | None = None, since: int = 0
    ) -> Floats:
        """What was found for windows, block by block, for the true rows; NaN where none of those chosen covers.

        ``since`` as for ``row_errors.to_rows``.
        """
        windows = self.some(chosen)
        if not len(windows):
            return np.full((len(self.own), 1), np.nan)
        values = to_rows(windows, found, how=how, since=since).values
        return (values[:, None] if values.ndim == 1 else values)[self.own]

    def over_rows(self, found: Floats, weights: Floats, *, how: How, chosen: Flags | None = None) -> Floats:
        """As ``to_rows``, of one number a window and column, (n_windows, n_columns): the sum over a row's windows.

        Each window counts by the weight of the place that the row has in it, ``weights`` of shape (length,), over their
        sum: so a row at the edge of a segment, of which few know, counts in part. With ``how="trailing"`` a row has
        what the window has that ends there.

        >>> laid = LaidWindows.lay(np.zeros((4, 1), dtype=np.float32), np.zeros(4), 2)
        >>> laid.over_rows(np.array([[1.0], [3.0], [9.0]]), np.ones(2), how="overlap").ravel().tolist()
        [0.5, 2.0, 6.0, 4.5]
        """
        windows = self.some(chosen)
        if how == "trailing":
            values = np.full((windows.n_rows, found.shape[1]), np.nan)
            values[windows.stops - 1] = found
            return values[self.own]
        total, covered = np.zeros((windows.n_rows, found.shape[1])), np.zeros((windows.n_rows, 1), dtype=bool)
        for place, weight in enumerate((weights / weights.sum()).tolist()):
            rows = windows.starts + place  # no two windows share a start
            total[rows] += weight * found
            covered[rows] = True
        return np.asarray(np.where(covered, total, np.nan)[self.own])


def fold_of_rows(n_rows: int, folds: int) -> Counts:
    """The contiguous fold of each row.

    >>> fold_of_rows(5, 2).tolist()
    [0, 0, 1, 1, 1]
    """
    edges = np.linspace(0, n_rows, folds + 1).astype(np.int64)
    return np.repeat(np.arange(folds, dtype=np.int64), np.diff(edges))


def thinned(chosen: Flags, most: int) -> Flags:
    """At most so many of those chosen, evenly spread.

    >>> thinned(np.array([True, True, False, True]), 2).tolist()
    [True, False, False, True]
    """
    places = np.flatnonzero(chosen)
    if len(places) <= most:
        return chosen
    kept = np.zeros(len(chosen), dtype=bool)
    kept[places[np.linspace(0, len(places) - 1, most).astype(np.int64)]] = True
    return kept


def cross_fit(
    laid: LaidWindows,
    usable: Flags,
    fold: Counts,
    *,
    fit: Callable[[LaidWindows, Flags], Model],
    errors: Sequence[Callable[[Model, Flags], Floats]],
) -> tuple[list[Floats], Model]:
    """Score each row by a model of the other folds, (n_rows, n_columns), and fit a model on all.

    No window that touches a row that is not ``usable`` is learnt from or scored, nor one with rows that stand in; a row
    that no usable window covers is NaN. ``fold`` is that of each row, see ``fold_of_rows``. ``fit`` gets the windows
    and which of them to learn from; each of ``errors`` a model and which windows to score: of these rows, or of others
    in their places, such as copies with planted faults.
    """
    good = laid.learnable(usable)
    parts: list[list[tuple[Flags, Floats]]] = [[] for _ in errors]
    for part in range(int(fold.max()) + 1):
        inside = fold == part
        apart = laid.clear_of(inside)
        model = fit(laid, good & apart)
        for own, measure in zip(parts, errors, strict=True):
            own.append((inside, measure(model, good & ~apart)[inside]))
    return [_gathered(own) for own in parts], fit(laid, good)


def _gathered(parts: list[tuple[Flags, Floats]]) -> Floats:
    """What was found fold by fold, in the order of the rows."""
    rows = np.full((len(parts[0][0]), max(found.shape[1] for _, found in parts)), np.nan)
    for inside, found in parts:
        rows[inside] = found
    return rows
