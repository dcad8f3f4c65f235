"""What scoring on Spark costs: seconds and processor seconds by rows and by partitions, without and with features.

``python -m benchmarks.spark [--rows 200000] [--output FILE]``

Each measurement is a process of its own on two cores of this machine. The slope over rows is what a row costs on a
cluster as well; what is left at no rows is Spark's own start. The last line is one JSON object, from which
``docs/spark.md`` computes a day of a milliard rows.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

PARTITIONS = (2, 4, 8)
SIZES = (1, 4)
"""Times ``--rows``."""
KINDS = ("plain", "features")
TRAINED_ON = 5_000
FILES = 8
HISTORY = ["count by card over 1d, 7d", "ratio of amount by card over 30d", "count by shop over 1h, 1d"]
TICKS = os.sysconf("SC_CLK_TCK")


def draw(rows: int, *, seed: int, first: int = 0) -> pd.DataFrame:
    """Payments of cards and shops of which few have most, with 20 more numbers.

    >>> draw(2, seed=0).shape
    (2, 25)
    """
    rng = np.random.default_rng(seed)
    numbers = rng.normal(size=(rows, 20)) * np.linspace(0.5, 2.0, 20)  # alike for every seed
    return pd.DataFrame(
        {
            "id": np.arange(first, first + rows),
            "at": pd.Timestamp("2026-03-01") + pd.to_timedelta(np.sort(rng.integers(0, 86_400_000, rows)), unit="ms"),
            "card": [f"c{each}" for each in (rng.pareto(1.2, rows) * 1_000).astype(int) % 200_000],
            "shop": [f"s{each}" for each in (rng.pareto(1.0, rows) * 50).astype(int) % 20_000],
            "amount": np.round(rng.lognormal(3, 1, rows), 2),
            **{f"n{place}": numbers[:, place] for place in range(20)},
        }
    )


def prepare(folder: Path, rows: int) -> None:
    """Write the rows of every size, and train both detectors."""
    from pipelines.config import load_config
    from pipelines.training.train import train

    draw(TRAINED_ON, seed=0).to_parquet(folder / "past.parquet")
    for size in SIZES:
        place = folder / f"rows-{size}"
        place.mkdir()
        for file in range(FILES):
            count = size * rows // FILES
            draw(count, seed=10 + file, first=TRAINED_ON + file * count).to_parquet(place / f"{file}.parquet")
    for kind in KINDS:
        (folder / kind).mkdir()
        columns: dict[str, str | list[str]] = {"key": "id", "time": "at", "entity": "card", "others": "ignore"}
        columns |= {"numeric": ["amount", *(f"n{place}" for place in range(20))]}
        settings = {
            "name": kind,
            "source": {"path": str(folder / "past.parquet")},
            "columns": columns,
            "features": {"history": HISTORY if kind == "features" else []},
            "policy": {"quantile": 0.999},
            "train": {"autoencoder": {"training": {"epochs": 2}}},
            "tracking": {"enabled": False},
        }
        (folder / kind / "detector.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
        train(load_config(folder / kind), now=_now())


def score_once(folder: Path, kind: str, size: int, partitions: int) -> dict[str, float]:
    """Score in this process: seconds from a running Spark to the batch in place, and of all processors."""
    from pyspark.sql import SparkSession

    from pipelines.config import load_config
    from pipelines.spark.score import score_on_spark

    settings = {"default.parallelism": str(partitions), "sql.shuffle.partitions": str(partitions)}
    settings |= {"ui.enabled": "false", "ui.showConsoleProgress": "false", "driver.host": "127.0.0.1"}
    builder = SparkSession.builder.master("local[2]").config("spark.driver.memory", "2g")
    for name, value in settings.items():
        builder = builder.config(f"spark.{name}", value)
    spark = builder.getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    before, started = _processor_seconds(), time.perf_counter()
    report = score_on_spark(
        load_config(folder / kind),
        input=str(folder / f"rows-{size}"),
        output=str(folder / f"scores-{kind}-{size}-{partitions}"),
        batch="b",
        now=_now(),
    )
    seconds, processor = time.perf_counter() - started, _processor_seconds() - before
    spark.stop()
    return {"rows": report.scored, "seconds": seconds, "processor_seconds": processor}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and write the table."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--rows", type=int, default=200_000, help="of the smallest table")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("results") / "spark.csv")
    parser.add_argument("--once", nargs=4, metavar=("FOLDER", "KIND", "SIZE", "PARTITIONS"), help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.once:
        folder, kind, size, partitions = given.once
        print(json.dumps(score_once(Path(folder), kind, int(size), int(partitions))))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder, given.rows)
        found = []
        for kind in KINDS:
            for size, partitions in [(size, 8) for size in SIZES] + [(SIZES[-1], each) for each in PARTITIONS[:-1]]:
                measured = _apart(folder, kind, size, partitions)
                found.append({"kind": kind, "partitions": partitions, **measured})
                print(json.dumps(found[-1]), flush=True)
    table = pd.DataFrame(found).round({"seconds": 1, "processor_seconds": 1, "bytes": 0})
    table.to_csv(given.output, index=False)
    print(json.dumps({kind: slope(table[table["kind"] == kind]) for kind in KINDS}))


def slope(table: pd.DataFrame) -> dict[str, float]:
    """Processor seconds for a million rows, and before the first, by least squares over the sizes at 8 partitions.

    >>> slope(pd.DataFrame({"partitions": 8, "rows": [1e6, 2e6], "processor_seconds": [15.0, 25.0]}))
    {'processor_seconds_a_million_rows': 10.0, 'processor_seconds_at_start': 5.0}
    """
    sizes = table[table["partitions"] == max(PARTITIONS)]
    rise, start = np.polyfit(sizes["rows"] / 1e6, sizes["processor_seconds"], 1)
    return {
        "processor_seconds_a_million_rows": round(float(rise), 1),
        "processor_seconds_at_start": round(float(start), 1),
    }


def _apart(folder: Path, kind: str, size: int, partitions: int) -> dict[str, float]:
    once = ["--once", str(folder), kind, str(size), str(partitions)]
    command = [sys.executable, "-m", "benchmarks.spark", *once]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-3_000:])
    measured: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return measured


def _processor_seconds() -> float:
    """Of this process and all below it: the JVM, and the Python processes that it started."""
    parents, used = dict[int, int](), dict[int, float]()
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended meanwhile
            continue
        parents[int(path.parent.name)] = int(fields[1])
        used[int(path.parent.name)] = sum(map(int, fields[11:15])) / TICKS
    below = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in below} - below:
        below |= more
    return sum(used.get(pid, 0.0) for pid in below)


def _now() -> pd.Timestamp:
    return pd.Timestamp("2026-04-01", tz="UTC")


if __name__ == "__main__":
    main()
