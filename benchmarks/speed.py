"""Measure training, scoring from file to file, memory, cold start and size, beside other libraries.

``python -m benchmarks.speed [--rows 1000000] [--against pyod,sklearn]``

Thirty numeric columns. Everything runs in a process of its own, from reading the Parquet file to the written result.
``default`` is the detector as it comes. Peers score a sample of the same kind of rows in the same run, on all cores and
with the batch size that is fastest; see ``benchmarks.speed_peers``. PyOD's pair is its isolation forest and its
autoencoder, one after the other. The last line is one JSON object: ``rows_per_second``, ``ratio_to_pyod``,
``cold_start_seconds`` and ``train_seconds`` are those of autoencoder and forest, the others say whose they are. Without
PyOD its ratios are null.
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
from importlib.metadata import distribution
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from rich.console import Console
from rich.progress import Progress

from benchmarks.speed_peers import PEERS
from detector.cleaning.clean import clean
from detector.detectors.table.detector import TabularDetector
from detector.persist.bundle import save

FEATURES = 30
COLUMNS = [f"x{i}" for i in range(FEATURES)]
CHUNK = 250_000
PAIR, DEFAULT = "autoencoder + forest", "default"
MEMBERS = {PAIR: ("autoencoder", "forest"), DEFAULT: None}
RUNS = 3
COLD_STARTS = 5
ONE_BY_ONE = 200
PEER_ROWS = 5_000  # to learn from: as many as the default keeps to measure distances to
PYOD_PAIR = ("pyod IForest", "pyod AutoEncoder")
NEEDED = {"pyod": ("pyod", "torch", "tqdm"), "sklearn": ("sklearn",)}
PROJECT = "anomaly-detector"
CORES = os.cpu_count() or 1


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


def train(folder: Path, members: tuple[str, ...] | None, rows: int) -> tuple[Path, float, float]:
    """Train, and save the bundle with a configuration beside it.

    Returns the configuration, the seconds the training took, and the milliseconds that one row takes in memory.
    """
    frame = make_rows(rows, seed=1)
    detector = TabularDetector(random_state=0) if members is None else TabularDetector(members=members, random_state=0)
    started = time.perf_counter()
    detector.fit(frame)
    seconds = time.perf_counter() - started
    row = frame.iloc[:1]
    singly = statistics.median(_seconds(partial(detector.scorer_.judge, row)) for _ in range(ONE_BY_ONE))
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
    return config, seconds, 1e3 * singly


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
    for member in ("autoencoder", "forest", "neighbours"):
        fitted = TabularDetector(members=(member,), random_state=0).fit(make_rows(max(500, sizes.train // 10), seed=1))
        rows = clean(frame, fitted.scorer_.schema).rows
        rates[member] = len(rows) / _seconds(partial(fitted.scorer_.measure, rows))
    return rates


def peer_rates(folder: Path, sizes: Sizes, libraries: Sequence[str]) -> dict[str, float]:
    """Rows a second of each peer that is installed, from file to file, and of PyOD's pair in turn."""
    learnt = write_rows(folder / "learnt.parquet", PEER_ROWS, seed=1)
    path = write_rows(folder / "sample.parquet", sizes.sample, seed=2)
    seconds: dict[str, float] = {}
    for name in PEERS:
        library = name.partition(" ")[0]
        if library in libraries and all(find_spec(package) for package in NEEDED[library]):
            command = [sys.executable, "-m", "benchmarks.speed_peers", name, learnt, path]
            tries = [json.loads(_run(command, threads=threads).splitlines()[-1]) for threads in (1, CORES)]
            seconds[name] = min(each["seconds"] for each in tries)
    if all(name in seconds for name in PYOD_PAIR):
        seconds["pyod pair"] = sum(seconds[name] for name in PYOD_PAIR)
    return {name: sizes.sample / value for name, value in seconds.items()}


def install_size() -> float:
    """MB of what scoring alone needs: this project's dependencies without extras, and theirs, as installed here."""
    waiting, sizes = [PROJECT], dict[str, int]()
    while waiting:
        name = canonicalize_name(waiting.pop())
        if name in sizes:
            continue
        found = distribution(name)
        files = [Path(str(found.locate_file(file))) for file in found.files or ()]
        sizes[name] = sum(file.stat().st_size for file in files if file.is_file())
        wanted = [Requirement(line) for line in found.requires or ()]
        waiting += [each.name for each in wanted if each.marker is None or each.marker.evaluate({"extra": ""})]
    return sum(sizes.values()) / 1e6


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _run(command: Sequence[object], *, threads: int | None = None) -> str:
    """Run a command and return what it printed; its own words if it fails."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    if threads is not None:
        environment["OMP_NUM_THREADS"] = str(threads)
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))} failed:\n{done.stderr or done.stdout}")
    return done.stdout


def measure(folder: Path, sizes: Sizes, libraries: Sequence[str], tell: Callable[[str], None]) -> dict[str, Any]:
    """Measure everything; ``tell`` hears what is being done."""
    tell("writing rows")
    rows = write_rows(folder / "rows.parquet", sizes.score, seed=10)
    many = write_rows(folder / "many.parquet", sizes.memory, seed=20)
    row = write_rows(folder / "row.parquet", 1, seed=10)
    detectors: dict[str, dict[str, float]] = {}
    for title, members in MEMBERS.items():
        tell(f"training: {title}")
        config, train_seconds, row_ms = train(folder / title.replace(" ", ""), members, sizes.train)
        tell(f"scoring: {title}")
        runs = [score_once(config, rows) for _ in range(RUNS)]
        rate = sizes.score / statistics.median(run["seconds"] for run in runs)
        tell(f"cold starts: {title}")
        detectors[title] = {
            "train_seconds": train_seconds,
            "rows_per_second": rate,
            "rows_per_second_a_core": rate / CORES,
            "row_ms": row_ms,
            "cold_start_seconds": cold_start(config, row),
            "peak_memory_mb": score_once(config, many)["peak_memory_mb"],
        }
    tell("members alone")
    members_alone = member_rates(sizes)
    tell("peers")
    return {
        "detectors": detectors,
        "members": members_alone,
        "peers": peer_rates(folder, sizes, libraries),
        "install_mb": install_size(),
    }


def figures_of(found: dict[str, Any]) -> dict[str, Any]:
    """What the last line says."""
    ours, default = found["detectors"][PAIR], found["detectors"][DEFAULT]
    pyod = found["peers"].get("pyod pair")
    return {
        "rows_per_second": round(ours["rows_per_second"]),
        "ratio_to_pyod": round(ours["rows_per_second"] / pyod, 1) if pyod else None,
        "peak_memory_mb": round(ours["peak_memory_mb"]),
        "cold_start_seconds": round(ours["cold_start_seconds"], 2),
        "train_seconds": round(ours["train_seconds"], 1),
        "rows_per_second_default": round(default["rows_per_second"]),
        "ratio_to_pyod_default": round(default["rows_per_second"] / pyod, 1) if pyod else None,
        "peak_memory_mb_default": round(default["peak_memory_mb"]),
        "cold_start_seconds_default": round(default["cold_start_seconds"], 2),
        "train_seconds_default": round(default["train_seconds"], 1),
        "row_ms_default": round(default["row_ms"], 1),
        "install_mb": round(found["install_mb"]),
    }


def report(found: dict[str, Any], sizes: Sizes) -> str:
    """Lay out the tables, and the JSON object as the last line."""
    peers, figures = found["peers"], figures_of(found)
    lines = [f"From file to file: {sizes.score:,} rows, trained on {sizes.train:,}; memory at {sizes.memory:,} rows"]
    lines += [pd.DataFrame(found["detectors"]).to_string(float_format="{:,.1f}".format), ""]
    lines.append(f"Each member alone, in memory, {sizes.sample:,} rows")
    lines += [f"  {name:<26}{rate:>12,.0f} rows/s" for name, rate in found["members"].items()]
    lines += ["", f"Others, on {CORES} cores, their fastest batch size, from file to file, {sizes.sample:,} rows"]
    lines += [f"  {name:<26}{rate:>12,.0f} rows/s" for name, rate in peers.items()]
    if figures["ratio_to_pyod"] is None:
        lines.append("  PyOD was not measured, so there is no ratio; the extra `bench` (or `make peers`) adds it")
    return "\n".join([*lines, "", json.dumps(figures)])


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser("python -m benchmarks.speed", description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000, help="to score (default: 1000000)")
    parser.add_argument("--memory-rows", type=int, help="to measure memory with (default: five times --rows)")
    parser.add_argument("--train-rows", type=int, default=200_000, help="to learn from (default: 200000)")
    parser.add_argument("--sample", type=int, default=100_000, help="for each model alone (default: 100000)")
    parser.add_argument(
        "--against", default="pyod,sklearn", help="libraries to compare with, of pyod and sklearn (default: both)"
    )
    parser.add_argument(
        "--output", type=Path, help="also write the figures, and the rates of members and peers, as JSON"
    )
    options = parser.parse_args(arguments)
    sizes = Sizes(options.rows, options.memory_rows or 5 * options.rows, options.train_rows, options.sample)
    if min(sizes.score, sizes.memory, sizes.sample) < 1 or sizes.train < 1000:
        parser.error("every number of rows must be at least 1, and --train-rows at least 1000")
    libraries = options.against.split(",")
    if unknown := sorted(set(libraries) - set(NEEDED)):
        parser.error(f"--against knows {' and '.join(NEEDED)}, received {unknown[0]!r}")
    with tempfile.TemporaryDirectory() as folder, Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("starting", total=9)
        found = measure(Path(folder), sizes, libraries, lambda what: progress.update(task, description=what, advance=1))
    if options.output:
        rates = {name: {key: round(rate) for key, rate in found[name].items()} for name in ("members", "peers")}
        options.output.write_text(json.dumps(figures_of(found) | rates, indent=1) + "\n", encoding="utf-8")
    print(report(found, sizes))


if __name__ == "__main__":
    main()
