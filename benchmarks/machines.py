"""Seconds and peak memory of many machines with one shared model: scored at once, and batch by batch in the service.

``python -m benchmarks.machines [--machines 500,5000] [--output FILE.csv]``

Ten sensors, a reading every five minutes. The model is that of `detector train`, learnt from a sample of the machines.
``score`` is what `detector score` does with a day of all machines in one Parquet file; ``batch`` is a run of the
service with the next hour of all machines, the median of some, after a day before. Each is a process of its own, and
seconds are those of the processor. One machine in fifty has a fault in its last three hours. The last line is one JSON
object.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from benchmarks.score_once import peak_memory_mb
from benchmarks.speed import _run

SENSORS = [f"s{number}" for number in range(10)]
START, EVERY = pd.Timestamp("2026-03-01"), pd.Timedelta(minutes=5)
DAY, HOUR, AT_ONCE = 288, 12, 500
FAULTY = 50
FIGURES = ("machines", "work", "rows", "seconds", "rows_a_second", "peak_mb", "first_peak_mb", "state_mb", "flagged")
CHILD = """
import json, sys
from pathlib import Path
from benchmarks import machines
from pipelines.progress import be_quiet
be_quiet()
work, config, *others = sys.argv[1:]
if work == "score":
    print(json.dumps(machines.score_once(Path(config), Path(others[0]))))
else:
    print(json.dumps(machines.score_batches(Path(config), *map(int, others))))
"""


def readings(machines: range, steps: range, *, faults_from: int) -> pd.DataFrame:
    """Readings of some machines: sensors that move together, each machine with a phase and levels of its own."""
    time_ = np.arange(steps.start, steps.stop)
    parts = []
    for machine in machines:
        rng = np.random.default_rng([machine, steps.start + 10 * DAY])
        own = np.random.default_rng(machine)
        phase, level = own.uniform(0, 2 * np.pi), own.normal(0, 0.3, len(SENSORS))
        load = np.sin(2 * np.pi * time_ / 48 + phase)[:, None]
        values = 10 + level + load * np.linspace(1, 3, len(SENSORS)) + rng.normal(0, 0.1, (len(time_), len(SENSORS)))
        if machine % FAULTY == 0:
            values[time_ >= faults_from, machine % len(SENSORS)] += 4.0
        frame = pd.DataFrame(values, columns=SENSORS)
        frame.insert(0, "time", START + time_ * EVERY)
        frame.insert(1, "machine", f"m{machine:05d}")
        parts.append(frame)
    return pd.concat(parts).sort_values("time", kind="stable", ignore_index=True)


def write(path: Path, machines: int, steps: range) -> int:
    """Write the readings of that many machines, in the order of time within some machines at once."""
    rows, writer = 0, None
    path.parent.mkdir(parents=True, exist_ok=True)
    for first in range(0, machines, AT_ONCE):
        frame = readings(range(first, min(first + AT_ONCE, machines)), steps, faults_from=DAY - 3 * HOUR)
        table = pa.Table.from_pandas(frame, preserve_index=False)
        writer = writer or pq.ParquetWriter(path, table.schema)
        writer.write_table(table)
        rows += len(frame)
    if writer is not None:
        writer.close()
    return rows


def configure(folder: Path, bundle: Path, source: Path, **sections: Any) -> Path:
    """Write a configuration of sensors."""
    folder.mkdir(parents=True, exist_ok=True)
    values: dict[str, Any] = {
        "name": "machines",
        "kind": "sensors",
        "source": {"path": str(source)},
        "columns": {"time": "time", "entity": "machine"},
        "series": {"wait": 60},
        "policy": {"quantile": 0.999},
        "output": {"path": "scores.parquet"},
        "bundle": str(bundle),
        "tracking": {"enabled": False},
        "alerts": {"log": {"enabled": False}},
        "service": {"settle": 0, "port": 0},
    }
    file = folder / "detector.yaml"
    file.write_text(yaml.safe_dump(values | sections), encoding="utf-8")
    return file


def train(folder: Path, machines: int) -> Path:
    """Train as `detector train` does on three days of that many machines; its bundle."""
    from pipelines.config import load_config
    from pipelines.training.train import train as train_job

    write(folder / "train.parquet", machines, range(-3 * DAY, 0))
    config = configure(folder, folder / "bundle", folder / "train.parquet")
    train_job(load_config(config), now=datetime.now(UTC))
    return folder / "bundle"


def score_once(config: Path, rows: Path) -> dict[str, Any]:
    """Score a file in this process."""
    from pipelines.config import load_config
    from pipelines.scoring.one_off import score

    started = time.process_time()
    found = score(load_config(config), input=str(rows), now=datetime.now(UTC))
    return {
        "rows": found.rows,
        "seconds": time.process_time() - started,
        "flagged": found.flagged,
        "peak_mb": peak_memory_mb(),
    }


def score_batches(config: Path, machines: int, batches: int) -> dict[str, Any]:
    """Run the service's job in this process: a day of all machines, then hour after hour."""
    import sqlalchemy as sa

    from pipelines.config import load_config
    from pipelines.service.once import run_once
    from pipelines.store import SeriesTail, open_store

    configured = load_config(config)
    store, seconds, rows, first_mb = open_store(configured.service.store), [], 0, 0.0
    for number in range(batches + 1):
        if number == 1:
            first_mb = peak_memory_mb()
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak begins anew
        begin = 0 if number == 0 else DAY + (number - 1) * HOUR
        rows = write(config.parent / "in" / f"{number:03d}.parquet", machines, range(begin, DAY + number * HOUR))
        started = time.process_time()
        run = run_once(configured, store, "score")
        seconds.append(time.process_time() - started)
        print(f"{machines} machines, batch {number}: {run.note}, {seconds[-1]:.1f} s", file=sys.stderr, flush=True)
    with store.read() as session:
        state = session.scalars(sa.select(sa.func.sum(sa.func.length(SeriesTail.rows)))).one()
    return {
        "rows": rows,
        "seconds": statistics.median(seconds[1:]),
        "peak_mb": peak_memory_mb(),
        "first_peak_mb": first_mb,
        "state_mb": int(state or 0) / 1e6,
    }


def measure(folder: Path, bundle: Path, machines: int, batches: int) -> list[dict[str, Any]]:
    """What both ways of scoring take with that many machines."""
    rows = folder / "rows.parquet"
    once = configure(folder / "once", bundle, rows)
    write(rows, machines, range(DAY))
    found = [json.loads(_run([sys.executable, "-c", CHILD, "score", once, rows]).splitlines()[-1])]
    service = configure(folder / "service", bundle, folder / "service" / "in")
    command = [sys.executable, "-c", CHILD, "batch", service, machines, batches]
    found.append(json.loads(_run(command).splitlines()[-1]))
    return [
        {"machines": machines, "work": work, **figures, "rows_a_second": figures["rows"] / figures["seconds"]}
        for work, figures in zip(("score", "batch"), found, strict=True)
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser("python -m benchmarks.machines", description=__doc__.partition("\n")[0])
    parser.add_argument("--machines", default="500,5000", help="how many, one after the other (default: 500,5000)")
    parser.add_argument("--learn-from", type=int, default=50, help="machines in the sample (default: 50)")
    parser.add_argument("--batches", type=int, default=3, help="hours that the service scores (default: 3)")
    parser.add_argument("--output", type=Path, help="a CSV file for the figures")
    options = parser.parse_args(arguments)
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        bundle = train(Path(name) / "detector", options.learn_from)
        for machines in map(int, options.machines.split(",")):
            found += measure(Path(name) / str(machines), bundle, machines, options.batches)
            print(pd.DataFrame(found[-2:]).round(1).to_string(index=False), flush=True)
    figures = pd.DataFrame(found).reindex(columns=list(FIGURES)).round(1)
    if options.output is not None:
        figures.to_csv(options.output, index=False)
    print(json.dumps({f"{each['work']}_{each['machines']}": each for each in figures.to_dict("records")}))


if __name__ == "__main__":
    main()
