"""How known rows pull a new one: by a Gaussian kernel around rows that stand for the others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from detector.arrays import Places

NARROWEST = 1e-4
"""The least squared width of the kernel, as a share of a row's squared length: squared distances are float32, and a
narrower kernel would weigh rows by their rounding."""
WIDTH_ROWS = 500
WIDTH_FACTORS = tuple(2.0**power for power in range(-4, 7))
BLOCK = 1_024

Rows = NDArray[np.float32]


@dataclass(frozen=True)
class Cells:
    """Rows that each stand for the known rows nearest to them.

    - ``weight``, (n_cells,): for how many.
    - ``centre``, (n_cells, n_inputs): the mean of these.
    """

    weight: Rows
    centre: Rows

    @classmethod
    def of(cls, rows: Rows, cell: Places, n_cells: int) -> Self:
        """Rows, each with its cell; one without rows counts nothing."""
        weight = np.bincount(cell, minlength=n_cells)
        total = np.zeros((n_cells, rows.shape[1]))
        np.add.at(total, cell, rows.astype(np.float64))
        return cls(weight.astype(np.float32), (total / np.maximum(weight, 1)[:, None]).astype(np.float32))

    def mean(
        self,
        squared: Rows,
        width: float,
        *,
        rows: Rows | None = None,
        cell: Places | None = None,
        product: Callable[[Rows, Rows], Rows] = np.matmul,
    ) -> Rows:
        """The mean of the known rows weighted by a kernel, given squared distances to the cells' rows.

        Distances may all be less by the same. ``rows`` are left out of their ``cell``, where that is not -1.
        """
        inside = np.zeros(0, dtype=np.int64) if cell is None else np.flatnonzero(cell >= 0)
        if cell is not None:
            alone = inside[self.weight[cell[inside]] == 1]
            squared = squared.copy()
            squared[alone, cell[alone]] = np.inf
        least = squared.min(axis=1, keepdims=True)
        least = np.where(np.isfinite(least), least, 0)
        kernel = np.exp((least - squared) * np.float32(0.5 / width))
        pulled = product(kernel, self.weight[:, None] * self.centre)
        total = product(kernel, self.weight[:, None])
        if cell is not None and rows is not None:
            more = inside[self.weight[cell[inside]] > 1]
            own = kernel[more, cell[more]][:, None]
            pulled[more] -= own * rows[more]
            total[more] -= own
        return np.asarray(pulled / np.maximum(total, np.float32(1e-30)))


def times(rows: Rows, matrix: Rows) -> Rows:
    """A product that adds up in the same order however many rows there are, and in this thread alone."""
    return np.asarray(np.einsum("ij,jk->ik", rows, matrix))


def squared_distances(rows: Rows, others: Rows) -> Rows:
    """Between all pairs, shape (n_rows, n_others)."""
    lengths = [(each.astype(np.float64) ** 2).sum(axis=1) for each in (rows, others)]
    return np.asarray(np.maximum(lengths[0][:, None] + lengths[1] - 2.0 * rows @ others.T, 0), dtype=np.float32)


def nearest_of(rows: Rows, others: Rows) -> Places:
    """The place of the nearest of others to each row."""
    blocks = [rows[start : start + BLOCK] for start in range(0, len(rows), BLOCK)]
    return np.concatenate([squared_distances(block, others).argmin(axis=1) for block in blocks])


def choose_prototypes(rows: Rows, count: int) -> Places:
    """Places of rows that stand for all: half by chance, then one by one the row that is farthest from those chosen.

    Rows come in random order. Chance keeps more where rows are many; what is farthest keeps rare rows from being left
    without one near them.
    """
    if count >= len(rows):
        return np.arange(len(rows))
    first = (count + 1) // 2
    away = np.concatenate(
        [squared_distances(rows[at : at + BLOCK], rows[:first]).min(axis=1) for at in range(0, len(rows), BLOCK)]
    )
    away[:first] = -1.0
    chosen = [*range(first)]
    while len(chosen) < count:
        chosen.append(int(away.argmax()))
        away = np.minimum(away, ((rows - rows[chosen[-1]]) ** 2).sum(axis=1))
        away[chosen] = -1.0
    return np.array(chosen)


def kernel_width(sample: Rows, rows: Rows, cells: Cells, cell: Places) -> float:
    """The squared kernel width with which a sample of known rows is rebuilt best, each left out of its cell.

    ``rows`` are those of the cells.
    """
    if len(rows) < 2:
        return 1.0
    sample, cell = sample[:WIDTH_ROWS], cell[:WIDTH_ROWS]
    squared = squared_distances(sample, rows)
    alone = np.flatnonzero((sample == rows[cell]).all(axis=1))
    others = squared.copy()
    others[alone, cell[alone]] = np.inf
    least = others.min(axis=1)
    typical = float(np.median(least)) or (float(np.median(least[least > 0])) if (least > 0).any() else 1.0)
    narrowest = NARROWEST * float(np.median((rows.astype(np.float64) ** 2).sum(axis=1)))
    errors = {}
    for factor in WIDTH_FACTORS:
        width = max(typical * factor, narrowest, 1e-12)
        mean = cells.mean(squared, width, rows=sample, cell=cell)
        errors[width] = float(((sample - mean) ** 2).sum(axis=1).mean())
    return min(errors, key=lambda width: errors[width])
