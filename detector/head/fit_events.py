"""Teach a network the events before labelled rows, and score these rows as if it had not seen them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from detector.arrays import Flags, Floats, Places
from detector.encoders.event_classifier import EventClassifier
from detector.head.events import EventScore
from detector.head.labelled import LabelledRows
from detector.members.event_sequence import EventWindow, Steps
from detector.onnx.graph import joined
from detector.onnx.parity import largest_difference

MOST_NORMAL_ROWS = 20_000
"""Normal rows that a network learns from, a random sample. More, and training takes longer; fewer, and rare habits of
honest people are not known."""
MOST_PROBE_ROWS = 2_000


@dataclass(frozen=True)
class EventRecipe:
    """How events are learnt from.

    - ``steps``: the columns that hold them.
    - ``network``: what reads them.
    """

    steps: Steps
    network: EventClassifier

    def fit(self, rows: pd.DataFrame, truth: Flags, random_state: int) -> tuple[EventScore, float]:
        """The score that rows taught, and how far the graph is from Keras. Raises ``ParityError`` if that is far."""
        few = _sampled(truth, random_state)
        kept = (len(few) - truth.sum()) / (~truth).sum()
        rows, truth = rows.iloc[few], truth[few]
        window = EventWindow.fit(rows, self.steps)
        prepare = window.to_onnx()
        steps = joined({"window": prepare}, ["steps"]).run({"window": window.encode(rows)})["steps"]
        probe = steps[:: max(1, len(steps) // MOST_PROBE_ROWS)]
        fitted = self.network.fit(steps, truth, timesteps=self.steps.length, probe=probe, random_state=random_state)
        found = joined({"network": fitted.scorer}).run({"steps": probe})["log_odds"]
        parity = largest_difference({"events": fitted.probe}, {"events": found}, source="the Keras network")
        graph = joined({"window": prepare, "network": fitted.scorer}, ["log_odds"])
        return EventScore(window, graph, shift=float(np.log(kept))), parity

    def held_out(self, rows: pd.DataFrame, labelled: LabelledRows, parts: list[Places], random_state: int) -> Floats:
        """The score of each row by a network that did not learn from its part, and from nothing after the last began.

        Rows of the last part are scored by what was known before it; those of an earlier part by what the other earlier
        parts taught. Missing where nothing could be learnt, and of rows in no part.
        """
        found = np.full(len(rows), np.nan)
        last, before = len(parts) - 1, labelled.before(parts, len(parts) - 1)
        for number, part in enumerate(parts):
            past = before if number == last else before[~np.isin(before, part)]
            if labelled.has_both(past) and len(part):
                score, _ = self.fit(rows.iloc[past], labelled.truth[past], random_state)
                found[part] = score.score(rows.iloc[part])
        return found


def _sampled(truth: Flags, random_state: int) -> Places:
    """All anomalies, and as many of the normal rows as a network learns from."""
    normal = np.random.default_rng(random_state).permutation(np.flatnonzero(~truth))[:MOST_NORMAL_ROWS]
    return np.sort(np.concatenate([np.flatnonzero(truth), normal]))
