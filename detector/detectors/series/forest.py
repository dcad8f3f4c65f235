"""Fit an isolation forest on window features, and find what each sensor adds to its score in normal rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import IsolationForest

from detector.arrays import Flags, Floats
from detector.detectors.series.model import ModelledSeries
from detector.errors import ParityError
from detector.members.isolation_forest import Trees
from detector.members.window_forest import WindowForest
from detector.onnx.graph import Graph
from detector.series.segmented_windows import thinned

MAX_SAMPLES = 256
MOST_ROWS = 2000
PROBE = 256
PARITY = 1e-3


def fit_forest(features: NDArray[np.float32], *, trees: int, random_state: int) -> WindowForest:
    """Grow trees on the features of windows.

    Parameters
    ----------
    features : array of shape (n_windows, n_features)
        From ``window_features``.
    trees : int
        How many.
    random_state : int
        Their seed.

    Raises
    ------
    ParityError
        If the ONNX graph answers differently from scikit-learn.

    >>> features = np.random.default_rng(0).normal(size=(300, 4)).astype(np.float32)
    >>> fit_forest(features, trees=10, random_state=0).trees.feature.shape[0]
    10
    """
    from detector.onnx import text as onnx_text

    forest = IsolationForest(
        n_estimators=trees, max_samples=min(MAX_SAMPLES, len(features)), random_state=random_state
    ).fit(features)
    grown = Trees.from_forest(forest)
    graph = Graph(onnx_text.join({"forest": grown.to_onnx()}, ["forest"]))
    probe = features[:PROBE]
    answered: NDArray[Any] = -(2.0 ** graph.run({"table": probe})["forest"][:, 0].astype(np.float64))
    difference = float(np.abs(answered - forest.score_samples(probe)).max())
    if not difference < PARITY:
        raise ParityError(
            f"The ONNX graph of the forest differs from scikit-learn by {difference:.2g}; at most {PARITY:g} is "
            f"allowed. Please report this with the versions of onnxruntime and scikit-learn."
        )
    return WindowForest(grown, graph)


def usual_forest(seen: ModelledSeries, judged: Flags) -> Floats:
    """What each sensor adds to the forest's score in normal rows, so that what is beyond it sums to the score's excess.

    Parameters
    ----------
    seen : ModelledSeries
        The training steps by the finished model.
    judged : boolean array of shape (n_steps,)
        Those that count as normal; 2,000 of them are looked at.
    """
    model, sample = seen.model, thinned(judged, MOST_ROWS)
    usual = np.zeros(len(model.scaling.known))
    if model.forest is None:
        return usual
    parts = seen.forest_by_sensor(sample)[sample]
    apart = seen.parts["forest"][sample, 0] - parts.sum(axis=1)  # the same constant in each row
    usual = np.asarray(parts.mean(axis=0), dtype=np.float64)
    location = float(model.fusion.location[model.members.index("forest")])
    moving = model.scaling.moving
    usual[moving] += (location - float(np.median(apart)) - usual.sum()) / moving.sum()
    return usual
