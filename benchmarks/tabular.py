"""Rank the rows of labelled tables: the default detector, each of its members, and peers beside them.

``python -m benchmarks.tabular FOLDER --protocol one-class --seeds 3``

A set is an ``.npz`` file with ``X`` (numbers) and ``y`` (0 normal, 1 anomalous). Sets of more than 10,000
rows are sampled down. Protocols: *one-class* (Livernoche et al., ICLR 2024) fits on a random half of the
normal rows and scores all others; *contaminated* (Han et al., ADBench, NeurIPS 2022) fits on all rows and
scores the same; *dirty* is one-class, but anomalies move to the training rows until they are 1 % of
them. Nothing is tuned to a set. The last line is one JSON object: the means of the default
detector over sets and seeds.
"""

from __future__ import annotations

import argparse
import json
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress
from sklearn.ensemble import IsolationForest
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from benchmarks.kept import keep
from detector.cleaning.clean import clean
from detector.detectors.table.detector import TabularDetector
from detector.metrics.ranking import ranking_metrics

PROTOCOLS = ("one-class", "contaminated", "dirty")
DIRT = 0.01
MAX_ROWS = 10_000
NEIGHBOURS = 5
TINY = 1e-6
FUSION = "fusion"
METRICS = {"auroc": "AUROC", "ap": "average precision"}


@dataclass(frozen=True)
class Split:
    """Rows to fit on, rows to score, and the truth of the latter."""

    train: NDArray[np.float64]
    test: NDArray[np.float64]
    truth: NDArray[np.int64]
    same: bool
    """Whether the rows to score are the rows to fit on."""


Peer = Callable[[Split, int], NDArray[np.float64]]


def load(path: Path) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Read a set.

    Raises
    ------
    SystemExit
        With a sentence that names the file, if it is not such a set.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            X, y = arrays["X"].astype(np.float64), arrays["y"].astype(np.int64).ravel()
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise SystemExit(f"{path} is not an .npz file with arrays X and y of numbers: {error}") from error
    if X.ndim != 2 or len(X) != len(y) or not np.isfinite(X).all() or set(np.unique(y)) != {0, 1}:
        raise SystemExit(f"{path} must hold a finite table X, and in y a 0 or 1 for each row, both present.")
    return X, y


def split(X: NDArray[np.float64], y: NDArray[np.int64], *, protocol: str, seed: int) -> Split:
    """Sample a set down and divide it by the protocol.

    >>> X, y = np.arange(10.0)[:, None], np.repeat([0, 1], [8, 2])
    >>> parts = split(X, y, protocol="one-class", seed=0)
    >>> len(parts.train), len(parts.test), int(parts.truth.sum())
    (4, 6, 2)
    """
    rng = np.random.default_rng(seed)
    if len(X) > MAX_ROWS:
        kept = rng.choice(len(X), MAX_ROWS, replace=False)
        X, y = X[kept], y[kept]
    if protocol == "contaminated":
        return Split(X, X, y, same=True)
    normal = rng.permutation(np.flatnonzero(y == 0))
    fitted = normal[: len(normal) // 2]
    if protocol == "dirty":
        anomalies = rng.permutation(np.flatnonzero(y == 1))
        most = max(1, round(len(fitted) * DIRT / (1 - DIRT)))
        fitted = np.concatenate([fitted, anomalies[: min(most, len(anomalies) // 2)]])
    others = np.setdiff1d(np.arange(len(X)), fitted)
    return Split(X[fitted], X[others], y[others], same=False)


def score_members(parts: Split, seed: int) -> dict[str, NDArray[np.float64]]:
    """Score by the default detector: each member alone, and their fusion."""
    columns = [f"x{i}" for i in range(parts.train.shape[1])]
    detector = TabularDetector(random_state=seed).fit(pd.DataFrame(parts.train, columns=columns))
    scorer = detector.scorer_
    measured = scorer.measure(clean(pd.DataFrame(parts.test, columns=columns), scorer.schema).rows)
    scores = {member: measured[member].to_numpy() for member in scorer.members}
    return scores | {FUSION: measured["risk"].to_numpy()}


def isolation_forest(parts: Split, seed: int) -> NDArray[np.float64]:
    """Score by scikit-learn's forest of 100 trees."""
    model = IsolationForest(n_estimators=100, random_state=seed).fit(parts.train)
    return np.asarray(-model.score_samples(parts.test))


def exact_neighbours(parts: Split, _seed: int) -> NDArray[np.float64]:
    """Score by the mean distance to the five nearest of all training rows, standardised; never to itself."""
    scaler = StandardScaler().fit(parts.train)
    model = NearestNeighbors(n_neighbors=NEIGHBOURS).fit(scaler.transform(parts.train))
    distance, _ = model.kneighbors(None if parts.same else scaler.transform(parts.test))
    return np.asarray(distance.mean(axis=1))


def nearest_in_two_scalings(parts: Split, _seed: int) -> NDArray[np.float64]:
    """Score by the distance to the nearest training row, never to itself: standardised and min-max scaled, z-scored."""
    total = np.zeros(len(parts.test))
    for scaler in (StandardScaler().fit(parts.train), MinMaxScaler().fit(parts.train)):
        model = NearestNeighbors(n_neighbors=1).fit(scaler.transform(parts.train))
        known = np.log(model.kneighbors(None)[0][:, 0] + TINY)
        found = known if parts.same else np.log(model.kneighbors(scaler.transform(parts.test))[0][:, 0] + TINY)
        total += (found - known.mean()) / (known.std() or 1.0)
    return total


def pyod_peer(name: str) -> Peer:
    """Score by a PyOD model with its default settings."""

    def score(parts: Split, seed: int) -> NDArray[np.float64]:
        module = import_module(f"pyod.models.{name.lower().replace('autoencoder', 'auto_encoder')}")
        settings = {"random_state": seed, "verbose": 0} if name == "AutoEncoder" else {}
        model = getattr(module, name)(**settings)
        return np.asarray(model.fit(parts.train).decision_function(parts.test))

    return score


def peers() -> dict[str, Peer]:
    """List the peers that are installed, by the name the tables show."""
    found: dict[str, Peer] = {
        "sklearn forest": isolation_forest,
        "exact 5-NN": exact_neighbours,
        "1-NN twice": nearest_in_two_scalings,
    }
    if find_spec("pyod") is not None:
        needed = ("ECOD", "HBOS", *(["AutoEncoder"] if find_spec("torch") is not None else []))
        found |= {f"PyOD {name}": pyod_peer(name) for name in needed}
    return found


def measure(paths: Sequence[Path], *, protocol: str, seeds: int) -> Iterator[dict[str, Any]]:
    """Yield one record for each set, seed and method: its AUROC and average precision."""
    for path in paths:
        X, y = load(path)
        for seed in range(seeds):
            parts = split(X, y, protocol=protocol, seed=seed)
            scores = score_members(parts, seed)
            scores |= {name: peer(parts, seed) for name, peer in peers().items()}
            for method, risk in scores.items():
                found = ranking_metrics(parts.truth, risk)
                yield {"set": path.stem, "seed": seed, "method": method} | {key: found[key] for key in METRICS}


def table(records: pd.DataFrame, metric: str) -> str:
    """Lay out a metric: a row for each set, a column for each method, the mean and its spread below.

    The spread is the standard deviation over seeds of the mean over sets.
    """
    order = list(dict.fromkeys(records["method"]))
    rows = records.pivot_table(index="set", columns="method", values=metric, aggfunc="mean")[order]
    by_seed = records.pivot_table(index="seed", columns="method", values=metric, aggfunc="mean")[order]
    rows.loc["mean"] = by_seed.mean()
    if len(by_seed) > 1:
        rows.loc["sd over seeds"] = by_seed.std()
    rows.index.name = rows.columns.name = None
    return str(rows.to_string(float_format="{:.3f}".format))


def by_group(records: pd.DataFrame, groups: dict[str, list[str]], metric: str) -> str:
    """Lay out a metric's mean over the sets of each group; ``groups`` names sets by what follows their number."""
    group_of = {name: group for group, names in groups.items() for name in names}
    named = records.assign(group=records["set"].str.replace(r"^\d+_", "", regex=True).map(group_of))
    order = list(dict.fromkeys(records["method"]))
    rows = named.pivot_table(index="group", columns="method", values=metric, aggfunc="mean")[order]
    rows.index.name = rows.columns.name = None
    return str(rows.to_string(float_format="{:.3f}".format))


def parser_of(name: str, description: str, *, seeds: int = 3) -> argparse.ArgumentParser:
    """The options that all benchmarks of labelled tables have."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=description)
    parser.add_argument("folder", type=Path, help="folder of labelled sets")
    parser.add_argument("--protocol", choices=PROTOCOLS, required=True)
    parser.add_argument("--seeds", type=int, default=seeds, help=f"seeds 0, 1, ... (default: {seeds})")
    parser.add_argument("--output", type=Path, help="CSV file for every set, seed and method")
    return parser


def sets_of(parser: argparse.ArgumentParser, options: argparse.Namespace, suffix: str) -> list[Path]:
    """The files of the sets; ends with a sentence if there are none, or no seeds."""
    paths = sorted(options.folder.glob(f"*{suffix}"))
    if not paths:
        parser.error(f"no {suffix} files in {options.folder}")
    if options.seeds < 1:
        parser.error(f"--seeds must be at least 1, got {options.seeds}")
    return paths


def tell(results: pd.DataFrame, options: argparse.Namespace) -> dict[str, float]:
    """Write results where it was asked for, print a table of each metric, and return the means of the default."""
    write(results, options.output)
    for metric, title in METRICS.items():
        print(f"\n{title}, {options.protocol}\n{table(results, metric)}")
    own = results[results["method"] == FUSION]
    return {metric: round(float(own[metric].mean()), 4) for metric in METRICS}


def write(records: pd.DataFrame, path: Path | None) -> None:
    """Write records as CSV, if anywhere."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        records.to_csv(path, index=False, float_format="%.4f", lineterminator="\n")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark from the command line."""
    parser = parser_of("tabular", __doc__.partition("\n")[0])
    parser.add_argument("--groups", type=Path, help="JSON: groups of sets, {name: [set, ...]}, for means of each")
    options = parser.parse_args(arguments)
    paths = sets_of(parser, options, ".npz")

    records: list[dict[str, Any]] = []
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task(options.protocol, total=len(paths) * options.seeds)
        for record in measure(paths, protocol=options.protocol, seeds=options.seeds):
            if not records or (record["set"], record["seed"]) != (records[-1]["set"], records[-1]["seed"]):
                if records and options.output is not None:
                    keep(pd.DataFrame(records), options.output, by=["set", "seed", "method"])
                progress.update(task, description=f"{record['set']}, seed {record['seed']}", advance=1)
            records.append(record)

    results = pd.DataFrame(records)
    write(results, options.output)
    for metric, title in METRICS.items():
        print(f"\n{title}, {options.protocol}, mean over {options.seeds} seeds\n{table(results, metric)}")
        if options.groups is not None:
            print(f"\n{title}, by group\n{by_group(results, json.loads(options.groups.read_text()), metric)}")
    fusion = results[results["method"] == FUSION]
    print("\n" + json.dumps({metric: round(float(fusion[metric].mean()), 4) for metric in METRICS}))


if __name__ == "__main__":
    main()
