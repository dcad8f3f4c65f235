"""An isolation forest on what windows look like: each sensor's level, spread, trend and residual."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from detector.arrays import Flags, Floats
from detector.members.isolation_forest import Trees
from detector.onnx.graph import Graph
from detector.series.row_errors import How
from detector.series.segmented_windows import LaidWindows

KINDS = ("level", "spread", "trend", "residual")
ROWS_AT_ONCE = 512


@dataclass(frozen=True)
class WindowForest:
    """A fitted forest. Made by ``detector.detectors.series.fit``.

    - ``trees``: for reasons.
    - ``graph``: the same trees, for scores.
    """

    trees: Trees
    graph: Graph

    def scores(self, features: NDArray[np.float32], laid: LaidWindows, *, how: How, chosen: Flags | None) -> Floats:
        """How easily each row's windows are isolated, of shape (n_rows, 1); higher is more anomalous.

        ``features`` are those of all windows, shape (n_windows, 4 * n_sensors); ``chosen`` the windows to look at.
        """
        table = features if chosen is None else features[chosen]
        if not len(table):
            return np.full((len(laid.own), 1), np.nan)
        found = self.graph.run({"table": table}, ["forest"])["forest"]
        return laid.to_rows([(slice(0, len(found)), found[:, 0])], how=how, chosen=chosen)

    def contributions(
        self, features: NDArray[np.float32], laid: LaidWindows, *, how: How, chosen: Flags | None
    ) -> Floats:
        """What each sensor adds to these scores, of shape (n_rows, n_sensors), up to a constant."""
        features = features if chosen is None else features[chosen]

        def blocks() -> Iterator[tuple[slice, Floats]]:
            for start in range(0, len(features), ROWS_AT_ONCE):
                part = slice(start, min(start + ROWS_AT_ONCE, len(features)))
                found = self.trees.contributions(features[part])
                by_sensor = found.reshape(len(found), len(KINDS), -1).sum(axis=1)
                yield part, np.repeat(by_sensor[:, None], laid.windows.length, axis=1)

        return laid.to_rows(blocks(), how=how, chosen=chosen)

    def state(self) -> dict[str, NDArray[Any]]:
        """The arrays, for npz; the graph is kept apart."""
        return self.trees.state()

    @classmethod
    def from_state(cls, arrays: dict[str, NDArray[Any]], graph: bytes) -> Self:
        """The inverse of ``state``."""
        return cls(Trees.from_state(arrays), Graph(graph))


def window_features(laid: LaidWindows, residuals: Floats) -> NDArray[np.float32]:
    """Each sensor's mean, deviation, slope and mean residual in each window: (n_windows, 4 * n_sensors), means first.

    Residuals are the rows' squared ones; NaN, not known, counts as none.

    >>> laid = LaidWindows.lay(np.array([[1.0], [2.0], [6.0]], dtype=np.float32), np.zeros(3), 3)
    >>> window_features(laid, np.array([[0.0], [1.0], [8.0]])).round(2).tolist()
    [[3.0, 2.1600000858306885, 2.5, 3.0]]
    """
    length, n_sensors = laid.windows.length, laid.values.shape[1]
    lever = np.arange(length, dtype=np.float32) - np.float32((length - 1) / 2)
    lever /= (lever**2).sum()
    left = laid.of(np.nan_to_num(residuals))
    features = np.empty((len(laid.windows), len(KINDS) * n_sensors), dtype=np.float32)
    for (part, block), (_, error) in zip(laid.blocks(), left.blocks(), strict=True):
        rows = block.reshape(len(block), length, n_sensors)
        slope = np.einsum("t,wts->ws", lever, rows)
        mean_error = error.reshape(rows.shape).mean(axis=1)
        features[part] = np.hstack([rows.mean(axis=1), rows.std(axis=1), slope, mean_error])
    return features
