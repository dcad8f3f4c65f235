"""Rank the rows of labelled tables of categories: the default detector, its members, and what they have to beat.

``python -m benchmarks.categorical FOLDER --protocol one-class``

A set is a Parquet file of text columns and ``y`` (0 normal, 1 anomalous). The protocols are those of
``benchmarks.tabular``. The last line is one JSON object: the means of the default detector over sets and seeds, and
the seconds to fit the slowest of them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.ensemble import IsolationForest
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import OneHotEncoder

from benchmarks.tabular import FUSION, METRICS, NEIGHBOURS, parser_of, sets_of, split, tell
from detector.cleaning.clean import clean
from detector.detectors.table.detector import TabularDetector
from detector.metrics.ranking import ranking_metrics
from detector.schema import Schema


def load(path: Path) -> tuple[pd.DataFrame, NDArray[np.int64]]:
    """Read a set; ends with a sentence that names the file if it is none."""
    frame = pd.read_parquet(path)
    if "y" not in frame or set(frame["y"].unique()) != {0, 1}:
        raise SystemExit(f"{path} must have a column y of zeros and ones, both present.")
    return frame.drop(columns="y").astype("str"), frame["y"].to_numpy(dtype=np.int64)


def rare_values(train: pd.DataFrame, test: pd.DataFrame) -> NDArray[np.float64]:
    """Sum of -log of the smoothed frequency of each value: what looks at columns one by one can do."""
    total = np.zeros(len(test))
    for name in train:
        seen = train[name].value_counts()
        share = (test[name].map(seen).fillna(0.0).to_numpy(dtype=np.float64) + 1) / (len(train) + len(seen) + 1)
        total -= np.log(share)
    return total


def score(train: pd.DataFrame, test: pd.DataFrame, *, same: bool, seed: int) -> tuple[dict[str, Any], float]:
    """Scores by method, and the seconds the default took to fit."""
    schema = Schema(categorical=tuple(train.columns))
    start = time.perf_counter()
    scorer = TabularDetector(schema=schema, random_state=seed).fit(train).scorer_
    seconds = time.perf_counter() - start
    measured = scorer.measure(clean(test, schema).rows)
    scores = {member: measured[member].to_numpy() for member in scorer.members}
    scores[FUSION] = measured["risk"].to_numpy()
    hot = OneHotEncoder(handle_unknown="ignore").fit(train)
    neighbours = NearestNeighbors(n_neighbors=NEIGHBOURS).fit(hot.transform(train))
    forest = IsolationForest(n_estimators=100, random_state=seed).fit(hot.transform(train))
    scores["rare values"] = rare_values(train, test)
    scores["one-hot 5-NN"] = neighbours.kneighbors(None if same else hot.transform(test))[0].mean(axis=1)
    scores["one-hot forest"] = -forest.score_samples(hot.transform(test))
    return scores, seconds


def measure(paths: Sequence[Path], *, protocol: str, seeds: int) -> Iterator[dict[str, Any]]:
    """Yield one record for each set, seed and method."""
    for path in paths:
        frame, y = load(path)
        for seed in range(seeds):
            parts = split(np.arange(len(frame), dtype=np.float64)[:, None], y, protocol=protocol, seed=seed)
            train, test = (
                frame.iloc[rows[:, 0].astype(int)].reset_index(drop=True) for rows in (parts.train, parts.test)
            )
            scores, seconds = score(train, test, same=parts.same, seed=seed)
            for method, risk in scores.items():
                found = ranking_metrics(parts.truth, risk)
                named = {"set": path.stem, "seed": seed, "method": method, "seconds": seconds}
                yield named | {key: found[key] for key in METRICS}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark from the command line."""
    parser = parser_of("categorical", __doc__.partition("\n")[0], seeds=1)
    options = parser.parse_args(arguments)
    paths = sets_of(parser, options, ".parquet")
    results = pd.DataFrame(measure(paths, protocol=options.protocol, seeds=options.seeds))
    slowest = float(results["seconds"].max())
    print("\n" + json.dumps(tell(results, options) | {"slowest_fit_seconds": round(slowest, 1)}))


if __name__ == "__main__":
    main()
