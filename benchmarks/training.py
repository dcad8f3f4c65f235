"""Seconds of training to the same average precision: our autoencoder beside PyOD's, on large labelled tables.

``python -m benchmarks.training FOLDER --sets 32_shuttle,8_celeba --output training.csv``

Sets are those of ``benchmarks.tabular``, but whole: half of the normal rows, at most ``--rows``, are learnt from, and
of all others at most as many are scored. Each fit is a process of its own, and its seconds are those until it could
score: the start of TensorFlow or PyTorch is in them, and our calibration and graph. Ours is
``TabularDetector(members=("autoencoder",))`` with several bounds on its updates, PyOD's its ``AutoEncoder`` with
several batch sizes and numbers of epochs, on one thread. The target of a set is the best average precision of PyOD's
settings; the seconds of each side are those of its fastest setting that reaches it to within ``--slack``. The last
line is one JSON object: ``ratio`` is the geometric mean over the sets on which ours reaches it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.tabular import load, write
from detector.metrics.ranking import ranking_metrics

OURS, PYOD = "ours", "pyod"
SETTINGS: dict[str, list[dict[str, int]]] = {
    OURS: [{"max_steps": 500}, {"max_steps": 1500}, {"max_steps": 6000}],
    PYOD: [
        {"batch_size": 1024, "epoch_num": 10},
        {"batch_size": 256, "epoch_num": 3},
        {"batch_size": 256, "epoch_num": 10},
        {"batch_size": 32, "epoch_num": 10},
    ],
}
Values = NDArray[np.float64]


def divided(path: Path, *, rows: int) -> tuple[Values, Values, NDArray[np.int64]]:
    """Normal rows to learn from, rows to score, and the truth of these; at most ``rows`` of each."""
    X, y = load(path)
    rng = np.random.default_rng(0)
    normal = rng.permutation(np.flatnonzero(y == 0))
    fitted = normal[: min(rows, len(normal) // 2)]
    others = rng.permutation(np.setdiff1d(np.arange(len(X)), fitted))[:rows]
    return X[fitted], X[others], y[others]


def ours(train: Values, test: Values, settings: dict[str, int]) -> tuple[float, Values]:
    """Seconds to train the autoencoder of the detector alone, and its scores."""
    from detector.detectors.table.detector import TabularDetector
    from detector.encoders.table import TableAutoencoder
    from detector.training.settings import Training

    columns = [f"x{i}" for i in range(train.shape[1])]
    rows, others = (pd.DataFrame(values, columns=columns) for values in (train, test))
    autoencoder = TableAutoencoder(training=Training(max_steps=settings["max_steps"]))
    started = time.perf_counter()
    fitted = TabularDetector(members=("autoencoder",), autoencoder=autoencoder).fit(rows)
    seconds = time.perf_counter() - started
    return seconds, -fitted.score_samples(others)


def pyod(train: Values, test: Values, settings: dict[str, int]) -> tuple[float, Values]:
    """Seconds to train PyOD's autoencoder, and its scores."""
    started = time.perf_counter()
    from pyod.models.auto_encoder import AutoEncoder

    fitted = AutoEncoder(verbose=0, random_state=0, **settings).fit(train)
    seconds = time.perf_counter() - started
    return seconds, np.asarray(fitted.decision_function(test))


def once(path: Path, method: str, settings: dict[str, int], *, rows: int) -> dict[str, Any]:
    """Train and score one set in one way."""
    train, test, truth = divided(path, rows=rows)
    seconds, risk = {OURS: ours, PYOD: pyod}[method](train, test, settings)
    said = " ".join(f"{name}={value}" for name, value in settings.items())
    found = ranking_metrics(truth, risk)
    measured = {"seconds": seconds, "auroc": found["auroc"], "ap": found["ap"]}
    return {
        "set": path.stem,
        "rows": len(train),
        "columns": train.shape[1],
        "method": method,
        "settings": said,
    } | measured


def apart(path: Path, method: str, settings: dict[str, int], *, rows: int) -> dict[str, Any]:
    """The same in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.training", str(path), "--rows", str(rows)]
    environment = os.environ | ({"OMP_NUM_THREADS": "1"} if method == PYOD else {})
    command += ["--sets", path.stem, "--once", method, json.dumps(settings)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{method} failed on {path}: {done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def summary(records: pd.DataFrame, *, slack: float) -> pd.DataFrame:
    """For each set the target, and the seconds of each method's fastest setting that reaches it; NaN if none does."""
    target = records[records["method"] == PYOD].groupby("set")["ap"].max()
    reached = records[records["ap"] >= records["set"].map(target) - slack]
    seconds = reached.pivot_table(index="set", columns="method", values="seconds", aggfunc="min")
    seconds = seconds.reindex(index=target.index, columns=[OURS, PYOD])
    return seconds.assign(target=target, ratio=seconds[PYOD] / seconds[OURS])


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser("python -m benchmarks.training", description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, help="folder of labelled sets")
    parser.add_argument("--sets", required=True, help="names of the files without .npz, with commas between")
    parser.add_argument(
        "--rows", type=int, default=100_000, help="to learn from, and to score, at most (default: 100000)"
    )
    parser.add_argument("--slack", type=float, default=0.005, help="in average precision (default: .005)")
    parser.add_argument("--output", type=Path, help="CSV file for every fit")
    parser.add_argument("--once", nargs=2, metavar="FIT", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.once:
        method, settings = options.once
        print(json.dumps(once(options.folder, method, json.loads(settings), rows=options.rows)))
        return
    paths = [options.folder / f"{name}.npz" for name in options.sets.split(",")]
    if absent := [path.stem for path in paths if not path.is_file()]:
        parser.error(f"no such sets in {options.folder}: {', '.join(absent)}")
    records = []
    for path in paths:
        for method, settings in ((method, each) for method, tried in SETTINGS.items() for each in tried):
            records.append(apart(path, method, settings, rows=options.rows))
            print("{set}: {method}, {settings}: {seconds:.1f} s, average precision {ap:.3f}".format(**records[-1]))
    results = pd.DataFrame(records)
    write(results, options.output)
    found = summary(results, slack=options.slack)
    print(f"\n{found.to_string(float_format='{:.3f}'.format)}")
    told = found["ratio"].dropna()
    ratio = float(np.exp(np.log(told).mean())) if len(told) else None
    print("\n" + json.dumps({"ratio": ratio, "reached": len(told), "sets": len(found)}))


if __name__ == "__main__":
    main()
