"""The linear floor of the sensor detectors: windows rebuilt from a few principal components. NumPy alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from detector.arrays import Counts, Flags, Floats
from detector.errors import DataError
from detector.series.row_errors import How
from detector.series.segmented_windows import LaidWindows, thinned

CODE_SHARE = 4
TINY = 1e-9
MOST_INPUTS = 4096
"""Readings in a window up to which all windows are learnt from; of longer ones no more than this are."""


class Rebuilder(Protocol):
    """What makes windows anew from fewer numbers."""

    def rebuild(self, X: NDArray[np.float32]) -> NDArray[np.float32]:
        """Windows, one a row, as they should have been."""


@dataclass(frozen=True)
class WindowPCA:
    """The principal components of windows. Make one with ``WindowPCA.fit``.

    - ``centre``, (n_inputs,): the windows' mean.
    - ``directions``, (n_inputs, n_components): their principal directions.
    - ``variances``, (n_components,): the windows' variance along each.
    - ``noise``: the mean variance along the directions left out.
    """

    centre: NDArray[np.float32]
    directions: NDArray[np.float32]
    variances: Floats
    noise: float

    @classmethod
    def fit(cls, laid: LaidWindows, chosen: Flags, *, variance: float) -> Self:
        """Keep the fewest components that hold a share of the variance, at most a quarter as many as windows chosen.

        They are fewer than the readings of a window that vary: with as many, whatever comes would be rebuilt.

        Raises ``DataError`` if there are fewer than 2 windows.

        >>> wave = np.sin(np.arange(400.0) / 5)[:, None] * [1.0, 3.0]
        >>> laid = LaidWindows.lay(wave.astype(np.float32), np.zeros(400), 32)
        >>> WindowPCA.fit(laid, np.full(369, True), variance=0.95).directions.shape
        (64, 2)
        """
        if laid.windows.length * laid.values.shape[1] > MOST_INPUTS:
            chosen = thinned(chosen, MOST_INPUTS)
        centre, scatter = scatter_of(laid, chosen)
        n = int(chosen.sum())
        if scatter is not None:
            found, directions = np.linalg.eigh(scatter)
        else:  # the small matrix of products between windows has the same spectrum
            centred = laid.some(chosen).cut(laid.values) - centre
            found, left = np.linalg.eigh(centred @ centred.T)
            directions = centred.T @ left / np.sqrt(np.maximum(found, TINY**2))
        found, directions = np.maximum(found[::-1], 0.0), directions[:, ::-1]
        kept = np.cumsum(found)
        real = max(1, int((found > found[0] * len(found) * np.finfo(np.float64).eps).sum()))  # the rest is rounding
        k = min(int(np.searchsorted(kept, variance * kept[-1])) + 1, max(1, n // CODE_SHARE), real)
        if scatter is not None:
            spread = np.diag(scatter)
            k = min(k, max(1, int((spread > spread.max() * len(spread) * np.finfo(np.float64).eps).sum()) - 1))
        left_out = max(float(found[k:].sum()) / (n * max(1, len(centre) - k)), TINY)
        return cls(
            np.asarray(centre, dtype=np.float32),
            directions[:, :k].astype(np.float32),
            np.maximum(found[:k] / n, left_out),
            left_out,
        )

    @property
    def code(self) -> int:
        """How many components there are."""
        return int(self.directions.shape[1])

    def rebuilds_anything(self, length: int) -> bool:
        """Whether no window of so many rows differs from what is rebuilt, but for what sensors have in common.

        Then there are as many components as rows times sensors that are no sum of others.

        >>> twins = np.kron(np.eye(2), np.full((2, 1), 0.5**0.5)).astype(np.float32)
        >>> WindowPCA(np.zeros(4, np.float32), twins, np.ones(2), 1e-9).rebuilds_anything(2)
        True
        """
        by_sensor = np.moveaxis(self.directions.reshape(length, -1, self.code), 1, 0)
        independent = int(np.linalg.matrix_rank(by_sensor.reshape(len(by_sensor), -1)))
        return self.code >= length * independent

    def rebuild(self, X: NDArray[np.float32]) -> NDArray[np.float32]:
        """Project windows, one a row, on the components and back."""
        code = (X - self.centre) @ self.directions
        return np.asarray(code @ self.directions.T + self.centre, dtype=np.float32)

    def complete(self, X: NDArray[np.float32], doubtful: Flags) -> NDArray[np.float32]:
        """Windows, one a row, with what is doubtful in them replaced by what the rest lets one expect.

        The mean given the rest, were windows normal with these components and noise (Tipping and Bishop, Probabilistic
        Principal Component Analysis, JRSS B 1999).

        >>> line = WindowPCA(np.zeros(2, np.float32), np.full((2, 1), 0.5**0.5, np.float32), np.array([4.0]), 1e-6)
        >>> line.complete(np.array([[3.0, 99.0]], np.float32), np.array([[False, True]])).round(3).tolist()
        [[3.0, 3.0]]
        """
        completed, centre = X.copy(), self.centre.astype(np.float64)
        patterns, which = np.unique(doubtful, axis=0, return_inverse=True)
        given = np.where(doubtful, 0.0, X - centre) @ self.directions.astype(np.float64)
        expectation: HiddenValues | None = None
        for number, gone in enumerate(patterns):
            if not gone.any():
                continue
            expectation = expectation or HiddenValues.of(self)
            rows, hidden = np.flatnonzero(which == number), np.flatnonzero(gone)
            completed[np.ix_(rows, hidden)] = expectation.given(given[rows], hidden) + centre[hidden]
        return completed

    def state(self) -> dict[str, NDArray[Any]]:
        """The arrays, for npz."""
        return {name: np.asarray(value) for name, value in vars(self).items()}

    @classmethod
    def from_state(cls, arrays: dict[str, NDArray[Any]]) -> Self:
        """The inverse of ``state``."""
        return cls(arrays["centre"], arrays["directions"], arrays["variances"], float(arrays["noise"]))


@dataclass(frozen=True)
class HiddenValues:
    """What components lead one to expect of values that are hidden, given those that are seen.

    With ``d`` for the directions and ``H`` for their rows of hidden values, a window's code given the rest solves
    ``(dᵀd + noise / variances - HᵀH) code = given``. Hidden values are mostly fewer than components, so the matrix
    without them is inverted once for all windows, and each set of hidden values costs a system of its own size
    (Woodbury's identity).

    - ``directions``, (n_inputs, n_components).
    - ``matrix``, (n_components, n_components): where nothing is hidden.
    - ``solved``, (n_inputs, n_components): the directions times the inverse of that.
    """

    directions: Floats
    matrix: Floats
    solved: Floats

    @classmethod
    def of(cls, pca: WindowPCA) -> Self:
        """What is the same for all windows."""
        directions = pca.directions.astype(np.float64)
        matrix = directions.T @ directions + np.diag(pca.noise / pca.variances)
        return cls(directions, matrix, np.asarray(np.linalg.solve(matrix, directions.T).T, dtype=np.float64))

    def given(self, seen: Floats, hidden: Counts) -> Floats:
        """The values of some inputs, without the centre, one window a row.

        - ``seen``, (n_windows, n_components): the other inputs, without the centre, times their directions.
        - ``hidden``, (n_hidden,): which inputs.
        """
        own = self.directions[hidden]
        if len(hidden) > len(self.matrix):
            return np.asarray(np.linalg.solve(self.matrix - own.T @ own, seen.T).T @ own.T)
        solved = self.solved[hidden]
        return np.asarray(np.linalg.solve(np.eye(len(hidden)) - solved @ own.T, solved @ seen.T).T)


def scatter_of(laid: LaidWindows, chosen: Flags) -> tuple[Floats, Floats | None]:
    """The windows' mean, and the sums of products of what deviates from it; ``None`` where windows are few and long.

    Raises ``DataError`` if there are fewer than 2 windows.
    """
    n, width = int(chosen.sum()), laid.windows.length * laid.values.shape[1]
    if n < 2:
        raise DataError(
            f"Too few windows of {laid.windows.length} usable rows are left to learn from: {n}. Give more normal rows, "
            f"or choose a shorter window or fewer folds."
        )
    centre: Floats = np.zeros(width)
    for _, block in laid.blocks(chosen):
        centre += block.sum(axis=0, dtype=np.float64) / n
    if n < width:
        return centre, None
    scatter = np.zeros((width, width))
    for _, block in laid.blocks(chosen):
        centred = block - centre
        scatter += centred.T @ centred
    return centre, scatter


def squared_errors(
    model: Rebuilder, laid: LaidWindows, *, how: How, pca: WindowPCA, chosen: Flags | None = None, since: int = 0
) -> Floats:
    """Squared residuals of each row and column, over the windows that cover it; NaN where no window chosen does.

    The principal components replace doubtful values. Else a sensor that is silent, and seems to stand still, would be
    blamed on those that move with it, and so would the standstill before a segment begins. ``since`` as for
    ``to_rows``.
    """
    found = ((part, (block - model.rebuild(block)) ** 2) for part, block in _believable(laid, pca, chosen))
    return laid.to_rows(found, how=how, chosen=chosen, since=since)


def expected_values(
    model: Rebuilder, laid: LaidWindows, *, how: How, pca: WindowPCA, chosen: Flags | None = None, since: int = 0
) -> Floats:
    """What each row should have been, over the windows that cover it; as ``squared_errors``."""
    found = ((part, model.rebuild(block)) for part, block in _believable(laid, pca, chosen))
    return laid.to_rows(found, how=how, chosen=chosen, since=since)


def _believable(laid: LaidWindows, pca: WindowPCA, chosen: Flags | None) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    for (part, block), doubtful in zip(laid.blocks(chosen), laid.doubtful_blocks(chosen), strict=True):
        if doubtful is not None:
            some = doubtful.any(axis=1)
            block[some] = pca.complete(block[some], doubtful[some])
        yield part, block
