"""What labels taught about the events before a row: an input of the head, as an ONNX graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import pandas as pd

from detector.arrays import Floats
from detector.members.event_sequence import EventWindow
from detector.onnx.graph import Graph
from detector.onnx.parts import Parts

EVENTS = "events before"
"""The head's name for this input."""
GRAPH = "head_events"


@dataclass(frozen=True)
class EventScore:
    """The log-odds that a row is an anomaly, as a network sees it among the events before it.

    - ``window``: which columns of a row hold these events.
    - ``graph``: ``window`` → ``log_odds`` (n, 1).
    - ``shift``: what is added to these, as the network learnt from a sample of the normal rows.
    """

    window: EventWindow
    graph: Graph
    shift: float = 0.0

    def score(self, rows: pd.DataFrame) -> Floats:
        """Of each cleaned row, shape (n_rows,)."""
        return self._log_odds(self.window.encode(rows))

    def falls(self, rows: pd.DataFrame) -> Floats:
        """How far the score falls without each channel, shape (n_rows, n_channels); 0 where it rises."""
        window, channels = self.window.encode(rows), len(self.window.steps.channels)
        score, found = self._log_odds(window), np.zeros((len(rows), channels))
        for channel in range(channels):
            hidden = window.copy()
            hidden[:, channel::channels] = np.nan
            found[:, channel] = np.maximum(score - self._log_odds(hidden), 0.0)
        return found

    def to_parts(self) -> Parts:
        """Everything, as a bundle keeps it."""
        return Parts({"window": self.window.state(), "shift": self.shift}, {}, {GRAPH: self.graph.content})

    @classmethod
    def from_parts(cls, parts: Parts) -> Self:
        """The inverse of ``to_parts``."""
        window = EventWindow.from_state(parts.facts["window"])
        return cls(window, Graph(parts.graphs[GRAPH]), parts.facts["shift"])

    def _log_odds(self, window: Floats) -> Floats:
        return self.graph.run({"window": window})["log_odds"][:, 0].astype(np.float64) + self.shift
