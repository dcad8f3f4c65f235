"""Measure training, scoring from file to file, memory and cold start, beside PyOD.

``python -m benchmarks.speed [--rows 1000000]``

Thirty numeric columns. Scoring runs in a process of its own, from reading the Parquet file to the written
result. The last line is one JSON object with the figures of autoencoder and forest; the default detector,
whose neighbours cost most, has its own line in the table. PyOD's models have their default settings and score
a sample of the same kind of rows; without PyOD the ratio is null.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress

from detector.cleaning.clean import clean
from detector.detectors.table.detector import TabularDetector
from detector.persist.bundle import save

FEATURES = 30
COLUMNS = [f"x{i}" for i in range(FEATURES)]
CHUNK = 250_000
MEASURED = ("autoencoder", "forest")
MEMBERS = ("autoencoder", "forest", "neighbours")
RUNS = 3
COLD_STARTS = 5
PEER_ROWS = 5_000  # for PyOD to learn from; more would not make it score faster or slower


@dataclass(frozen=True)
class Sizes:
    """How many rows each part of the benchmark has."""

    score: int
    memory: int
    train: int
    sample: int


def make_rows(rows: int, *, seed: int) -> pd.DataFrame:
    """Draw rows of a few hidden causes; one in two hundred is stretched, which makes it unusual.

    >>> make_rows(3, seed=0).shape
    (3, 30)
    """
    mixing = np.random.default_rng(0).normal(size=(6, FEATURES))
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(rows, 6)) @ mixing + 0.3 * rng.normal(size=(rows, FEATURES))
    values[rng.random(rows) < 0.005] *= 4.0
    return pd.DataFrame(values, columns=COLUMNS)


def write_rows(path: Path, rows: int, *, seed: int) -> Path:
    """Write that many rows as Parquet, a chunk at a time."""
    with pq.ParquetWriter(path, pa.schema([(name, pa.float64()) for name in COLUMNS])) as writer:
        for start in range(0, rows, CHUNK):
            chunk = make_rows(min(CHUNK, rows - start), seed=seed + start)
            writer.write_table(pa.Table.from_pandas(chunk, preserve_index=False))
    return path


def train(folder: Path, members: tuple[str, ...], rows: int) -> tuple[Path, float]:
    """Train, save the bundle with a configuration beside it, and say how many seconds the training took."""
    frame = make_rows(rows, seed=1)
    started = time.perf_counter()
    detector = TabularDetector(members=members, random_state=0).fit(frame)
    seconds = time.perf_counter() - started
    folder.mkdir()
    save(detector.scorer_, folder / "bundle")
    settings = {
        "name": "speed",
        "source": {"path": str(folder.parent / "rows.parquet")},
        "policy": {"quantile": 0.999},
        "output": {"path": "scores.parquet"},
        "bundle": "bundle",
        "tracking": {"enabled": False},
    }
    config = folder / "detector.yaml"
    config.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return config, seconds


def score_once(config: Path, rows: Path) -> dict[str, float]:
    """Score a file in a process of its own: its seconds and its peak memory."""
    output = config.parent / "scores.parquet"
    measured: dict[str, float] = json.loads(
        _run([sys.executable, "-m", "benchmarks.score_once", config, rows, output]).splitlines()[-1]
    )
    return measured


def cold_start(config: Path, row: Path) -> float:
    """Return the seconds of a whole process that scores a file of one row; the median of five."""
    installed = Path(sys.executable).parent / "detector"
    start = [installed] if installed.exists() else [sys.executable, "-c", "from pipelines.cli import app; app()"]
    command = [*start, "score", config, "--input", row, "--output", config.parent / "one.parquet"]
    return statistics.median(_seconds(partial(_run, command)) for _ in range(COLD_STARTS))


def member_rates(sizes: Sizes) -> dict[str, float]:
    """Rows a second of each member alone, in memory; trained on few rows, which does not change its speed."""
    frame, rates = make_rows(sizes.sample, seed=2), {}
    for member in MEMBERS:
        fitted = TabularDetector(members=(member,), random_state=0).fit(make_rows(sizes.train // 10, seed=1))
        rows = clean(frame, fitted.scorer_.schema).rows
        rates[member] = len(rows) / _seconds(partial(fitted.scorer_.measure, rows))
    return rates


def pyod_rates(folder: Path, sizes: Sizes) -> dict[str, float]:
    """Rows a second of PyOD's ``IForest`` and ``AutoEncoder``, from file to file, and of both in turn."""
    if any(find_spec(name) is None for name in ("pyod", "torch", "tqdm")):
        return {}
    from pyod.models.auto_encoder import AutoEncoder
    from pyod.models.iforest import IForest

    frame = make_rows(PEER_ROWS, seed=1)
    path = write_rows(folder / "sample.parquet", sizes.sample, seed=2)
    seconds = {}
    for name, model in {"IForest": IForest(), "AutoEncoder": AutoEncoder(verbose=0)}.items():
        model.fit(frame.to_numpy())
        seconds[name] = _seconds(partial(_score_peer, model, path))
    seconds["both"] = sum(seconds.values())
    return {name: sizes.sample / value for name, value in seconds.items()}


def _score_peer(model: Any, path: Path) -> None:
    values: NDArray[np.float64] = pd.read_parquet(path).to_numpy()
    risk = model.decision_function(values)
    pd.DataFrame({"risk": risk}).to_parquet(path.with_suffix(".scores.parquet"))


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _run(command: Sequence[object]) -> str:
    """Run a command and return what it printed; its own words if it fails."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))} failed:\n{done.stderr or done.stdout}")
    return done.stdout


def measure(folder: Path, sizes: Sizes, tell: Callable[[str], None]) -> dict[str, Any]:
    """Measure everything; ``tell`` hears what is being done."""
    tell("writing rows")
    rows = write_rows(folder / "rows.parquet", sizes.score, seed=10)
    row = write_rows(folder / "row.parquet", 1, seed=10)
    detectors: dict[str, dict[str, float]] = {}
    for title, members in {"autoencoder + forest": MEASURED, "default, all members": MEMBERS}.items():
        tell(f"training: {title}")
        config, train_seconds = train(folder / "-".join(members), members, sizes.train)
        tell(f"scoring: {title}")
        runs = [score_once(config, rows) for _ in range(RUNS if members == MEASURED else 1)]
        tell(f"cold starts: {title}")
        detectors[title] = {
            "train_seconds": train_seconds,
            "rows_per_second": sizes.score / statistics.median(run["seconds"] for run in runs),
            "cold_start_seconds": cold_start(config, row),
            "peak_memory_mb": max(run["peak_memory_mb"] for run in runs),
        }
    tell(f"memory: {sizes.memory:,} rows")
    many = write_rows(folder / "many.parquet", sizes.memory, seed=20)
    config = folder / "-".join(MEASURED) / "detector.yaml"
    peak = score_once(config, many)["peak_memory_mb"]
    tell("members alone")
    members_alone = member_rates(sizes)
    tell("PyOD")
    return {
        "detectors": detectors,
        "members": members_alone,
        "pyod": pyod_rates(folder, sizes),
        "peak_memory_mb": peak,
    }


def report(found: dict[str, Any], sizes: Sizes) -> str:
    """Lay out the tables, and the JSON object as the last line."""
    ours, pyod = found["detectors"]["autoencoder + forest"], found["pyod"]
    ratio = round(ours["rows_per_second"] / pyod["both"], 1) if pyod else None
    lines = [f"From file to file: {sizes.score:,} rows, trained on {sizes.train:,}"]
    lines.append(pd.DataFrame(found["detectors"]).T.to_string(float_format="{:,.1f}".format))
    lines += [f"Peak memory for {sizes.memory:,} rows: {found['peak_memory_mb']:,.0f} MB", ""]
    lines.append(f"Each member alone, in memory, {sizes.sample:,} rows")
    lines += [f"  {name:<12}{rate:>12,.0f} rows/s" for name, rate in found["members"].items()]
    lines += ["", f"PyOD, default settings, from file to file, {sizes.sample:,} rows"]
    lines += [f"  {name:<12}{rate:>12,.0f} rows/s" for name, rate in pyod.items()]
    if not pyod:
        lines.append("  not installed, so there is no ratio; the extra `bench` (or `make peers`) adds it")
    figures = {
        "rows_per_second": round(ours["rows_per_second"]),
        "ratio_to_pyod": ratio,
        "peak_memory_mb": round(found["peak_memory_mb"]),
        "cold_start_seconds": round(ours["cold_start_seconds"], 2),
        "train_seconds": round(ours["train_seconds"], 1),
    }
    return "\n".join([*lines, "", json.dumps(figures)])


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser("python -m benchmarks.speed", description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000, help="to score (default: 1000000)")
    parser.add_argument("--memory-rows", type=int, help="to measure memory with (default: five times --rows)")
    parser.add_argument("--train-rows", type=int, default=200_000, help="to learn from (default: 200000)")
    parser.add_argument("--sample", type=int, default=100_000, help="for each model alone (default: 100000)")
    options = parser.parse_args(arguments)
    sizes = Sizes(options.rows, options.memory_rows or 5 * options.rows, options.train_rows, options.sample)
    if min(sizes.score, sizes.memory, sizes.sample) < 1 or sizes.train < 1000:
        parser.error("every number of rows must be at least 1, and --train-rows at least 1000")
    with tempfile.TemporaryDirectory() as folder, Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("starting", total=9)
        found = measure(Path(folder), sizes, lambda what: progress.update(task, description=what, advance=1))
    print(report(found, sizes))


if __name__ == "__main__":
    main()
