"""Score a file with a model of another library, and print the seconds as JSON.

``python -m benchmarks.speed_peers MODEL TRAIN_FILE FILE``

The seconds are from reading the Parquet file to the written result, with the settings that are fastest here: all cores,
and the better of two batch sizes. ``MODEL`` is one of ``PEERS``.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Values = NDArray[np.float64]
Score = Callable[[Values], Any]
CORES = os.cpu_count() or 1
BATCHES = (1_024, 8_192)
"""Rows that PyOD's autoencoder scores at once; its default of 32 is many times slower."""
NEIGHBOURS = 5


def pyod_forest(train: Values) -> list[Score]:
    """PyOD's isolation forest."""
    from pyod.models.iforest import IForest

    return [IForest(n_jobs=CORES).fit(train).decision_function]


def pyod_autoencoder(train: Values) -> list[Score]:
    """PyOD's autoencoder, once for each of ``BATCHES``."""
    from pyod.models.auto_encoder import AutoEncoder

    model = AutoEncoder(verbose=0).fit(train)

    def scoring(batch: int) -> Score:
        def score(values: Values) -> Any:
            model.batch_size = batch
            return model.decision_function(values)

        return score

    return [scoring(batch) for batch in BATCHES]


def pyod_neighbours(train: Values) -> list[Score]:
    """PyOD's mean distance to the five nearest of the rows trained on."""
    from pyod.models.knn import KNN

    return [KNN(n_neighbors=NEIGHBOURS, method="mean", n_jobs=CORES).fit(train).decision_function]


def sklearn_forest(train: Values) -> list[Score]:
    """scikit-learn's isolation forest."""
    from sklearn.ensemble import IsolationForest

    return [IsolationForest(n_jobs=CORES).fit(train).score_samples]


def sklearn_neighbours(train: Values) -> list[Score]:
    """scikit-learn's exact five nearest neighbours, by blocked products on all cores."""
    from sklearn.neighbors import NearestNeighbors

    model = NearestNeighbors(n_neighbors=NEIGHBOURS, algorithm="brute", n_jobs=CORES).fit(train)
    return [lambda values: model.kneighbors(values)[0].mean(axis=1)]


PEERS: dict[str, Callable[[Values], list[Score]]] = {
    "pyod IForest": pyod_forest,
    "pyod AutoEncoder": pyod_autoencoder,
    "pyod KNN": pyod_neighbours,
    "sklearn IsolationForest": sklearn_forest,
    "sklearn NearestNeighbors": sklearn_neighbours,
}


def measure(name: str, train: Path, path: Path) -> dict[str, float]:
    """Seconds to train, and to score the file in the fastest way."""
    started = time.perf_counter()
    ways = PEERS[name](pd.read_parquet(train).to_numpy())
    trained = time.perf_counter() - started
    seconds = []
    for score in ways:
        started = time.perf_counter()
        risk = score(pd.read_parquet(path).to_numpy())
        pd.DataFrame({"risk": np.asarray(risk)}).to_parquet(path.with_suffix(".peer.parquet"))
        seconds.append(time.perf_counter() - started)
    return {"train_seconds": trained, "seconds": min(seconds)}


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))))
