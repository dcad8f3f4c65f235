"""A neural autoencoder of windows as scoring needs it: an ONNX graph and how sensors are scaled for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from detector.arrays import Floats
from detector.onnx.graph import Graph

LIMIT = 1e6
"""Where the values that reach the graph end, as while fitting."""


@dataclass(frozen=True)
class WindowNetwork:
    """Windows → windows as they should have been. Made by ``detector.detectors.series.encoders``.

    - ``graph``: ``values`` → ``expected``.
    - ``centre``, ``scale``, (n_sensors,): what is subtracted from the sensors' scaled values, and then divided by,
      before they reach the graph.
    """

    graph: Graph
    centre: Floats
    scale: Floats

    def rebuild(self, X: NDArray[np.float32]) -> NDArray[np.float32]:
        """Windows, one a row, through the network."""
        sensors = len(self.centre)
        values = (X.reshape(-1, sensors) - self.centre) / self.scale
        given = np.clip(values, -LIMIT, LIMIT).astype(np.float32).reshape(X.shape)
        expected = self.graph.run({"values": given}, ["expected"])["expected"]
        back = expected.reshape(-1, sensors).astype(np.float64) * self.scale + self.centre
        return np.asarray(back.reshape(X.shape), dtype=np.float32)

    def state(self) -> dict[str, NDArray[Any]]:
        """The arrays, for npz; the graph is kept apart."""
        return {"centre": self.centre, "scale": self.scale}

    @classmethod
    def from_state(cls, arrays: dict[str, NDArray[Any]], graph: bytes) -> Self:
        """The inverse of ``state``."""
        return cls(Graph(graph), arrays["centre"], arrays["scale"])
