"""Rank planted anomalies in real tables of numbers and categories: the default detector, its members, and peers.

``python -m benchmarks.mixed FOLDER --protocol one-class``

A set is a CSV file; its rows count as normal, odd ones too. Columns of numbers with more than five values are numbers,
of text with at most 200 values categories. Others, and those that count rows, are left out, and tables without both
kinds are skipped. Labelled tables of both kinds are rare, so anomalies are planted: see ``plant``. Half of the rows
train. Of the others one in twenty is spoilt; with ``--protocol dirty`` one in a hundred of those that train, too. The
last line is one JSON object: the means of the default detector over sets and seeds.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.compose import make_column_transformer
from sklearn.ensemble import IsolationForest
from sklearn.impute import SimpleImputer
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from benchmarks.tabular import FUSION, MAX_ROWS, METRICS, NEIGHBOURS, parser_of, sets_of, tell
from detector.cleaning.clean import clean
from detector.detectors.table.detector import TabularDetector
from detector.metrics.ranking import ranking_metrics
from detector.schema import Schema

SPOILT, DIRT = 0.05, 0.01
LEAST_VALUES, MOST_LEVELS = 5, 200
KINDS = ("scaled", "far", "numbers", "categories", "cells", "unusual")


def load(path: Path) -> tuple[pd.DataFrame, Schema] | None:
    """A table and what its columns are; None without numbers or without categories."""
    frame = pd.read_csv(path, low_memory=False)
    values = frame.nunique()
    is_number = {name: pd.api.types.is_numeric_dtype(frame[name]) for name in frame}
    counts = [name for name in frame if pd.api.types.is_integer_dtype(frame[name]) and values[name] == len(frame)]
    numbers = tuple(name for name in frame if is_number[name] and values[name] > LEAST_VALUES and name not in counts)
    categories = tuple(name for name in frame if not is_number[name] and 2 <= values[name] <= MOST_LEVELS)
    if not numbers or not categories:
        return None
    schema = Schema(numeric=numbers, categorical=categories)
    found = frame[list(schema.features)].astype(dict.fromkeys(numbers, np.float64))
    return found.sample(min(MAX_ROWS, len(found)), random_state=0, ignore_index=True), schema


def plant(rows: pd.DataFrame, others: pd.DataFrame, schema: Schema, rng: np.random.Generator) -> pd.DataFrame:
    """Spoil each row in one way, drawn by chance.

    - ``scaled``: a number three to twenty times as large, or as small. ``far``: one beyond all others, by half their
      range to twice that.
    - ``numbers``, ``categories``: all of them of another row. ``cells``: of a third of the columns, at least one, that
      of another row. ``unusual``: each category any of its values, rare ones as often as others.
    """
    spoilt = rows.reset_index(drop=True)
    numbers, categories = list(schema.numeric), list(schema.categorical)
    low, high = others[numbers].min(), others[numbers].max()
    values = {name: others[name].dropna().unique() for name in categories}
    for at in range(len(spoilt)):
        kind, other = rng.choice(KINDS), others.iloc[rng.integers(len(others))]
        name = str(rng.choice(numbers))
        if kind == "scaled" and spoilt.at[at, name]:
            spoilt.at[at, name] *= rng.uniform(3, 20) ** rng.choice([-1, 1])
        elif kind in ("scaled", "far"):
            beyond = (high[name] - low[name]) * rng.uniform(0.5, 2)
            spoilt.at[at, name] = high[name] + beyond if rng.random() < 0.5 else low[name] - beyond
        elif kind == "unusual":
            spoilt.loc[at, categories] = [rng.choice(values[name]) for name in categories]
        else:
            every = numbers + categories
            some = list(rng.choice(every, max(1, len(every) // 3), replace=False))
            chosen = {"numbers": numbers, "categories": categories, "cells": some}[kind]
            spoilt.loc[at, chosen] = other[chosen]
    return spoilt


def score(train: pd.DataFrame, test: pd.DataFrame, schema: Schema, *, seed: int) -> dict[str, NDArray[np.float64]]:
    """Scores by method."""
    scorer = TabularDetector(schema=schema, random_state=seed).fit(train).scorer_
    measured = scorer.measure(clean(test, schema, drop_duplicates=False).rows)
    scores = {member: measured[member].to_numpy() for member in scorer.members} | {FUSION: measured["risk"].to_numpy()}
    plain = make_column_transformer(
        (make_pipeline(SimpleImputer(), StandardScaler()), list(schema.numeric)),
        (OneHotEncoder(handle_unknown="ignore", sparse_output=False), list(schema.categorical)),
    ).fit(train)
    known, asked = plain.transform(train), plain.transform(test)
    neighbours = NearestNeighbors(n_neighbors=NEIGHBOURS).fit(known)
    scores["one-hot 5-NN"] = neighbours.kneighbors(asked)[0].mean(axis=1)
    forest = IsolationForest(n_estimators=100, random_state=seed).fit(known)
    scores["one-hot forest"] = -forest.score_samples(asked)
    return scores


def measure(paths: Sequence[Path], *, protocol: str, seeds: int) -> Iterator[dict[str, Any]]:
    """Yield one record for each set, seed and method."""
    for path in paths:
        loaded = load(path)
        if loaded is None:
            print(f"{path.name} has no numbers, or no categories: skipped")
            continue
        rows, schema = loaded
        for seed in range(seeds):
            rng = np.random.default_rng(seed)
            order = rng.permutation(len(rows))
            train, test = (rows.iloc[part].reset_index(drop=True) for part in np.array_split(order, 2))
            truth = (rng.random(len(test)) < SPOILT).astype(np.int64)
            test[truth == 1] = plant(test[truth == 1], rows, schema, rng).to_numpy()
            if protocol == "dirty":
                dirt = rng.random(len(train)) < DIRT
                train[dirt] = plant(train[dirt], rows, schema, rng).to_numpy()
            for method, risk in score(train, test, schema, seed=seed).items():
                found = ranking_metrics(truth, risk)
                yield {"set": path.stem, "seed": seed, "method": method} | {key: found[key] for key in METRICS}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark from the command line."""
    parser = parser_of("mixed", __doc__.partition("\n")[0], seeds=1)
    options = parser.parse_args(arguments)
    if options.protocol == "contaminated":
        parser.error("the protocols are one-class and dirty: nobody knows which rows of a table are anomalous")
    paths = sets_of(parser, options, ".csv")
    results = pd.DataFrame(measure(paths, protocol=options.protocol, seeds=options.seeds))
    print("\n" + json.dumps(tell(results, options)))


if __name__ == "__main__":
    main()
