"""Measure what a scheduled run costs over the bare scoring, and the memory of a service that waits.

``python -m benchmarks.service [--rows 1000000]``

Thirty numeric columns, a detector without neighbours, Parquet in and out. Both ways of scoring run in processes of
their own, in turn. The last line is one JSON object: ``overhead`` is the median of the pairs' ratios less one, and
``processor_overhead`` the same of processor time, which a busy machine disturbs less.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from benchmarks.speed import train, write_rows

MEMBERS = ("autoencoder", "forest")
IDLE_SECONDS = 20

BARE = """
import sys, time
from datetime import UTC, datetime
from pipelines.config import load_config
from pipelines.progress import be_quiet
from pipelines.scoring.one_off import score
be_quiet()
config = load_config(sys.argv[1])
started, cpu = time.perf_counter(), time.process_time()
score(config, input=sys.argv[2], output=sys.argv[3], now=datetime.now(UTC))
print(time.perf_counter() - started, time.process_time() - cpu)
"""
SCHEDULED = """
import sys, time
import pipelines.scoring.batch_transaction  # as a service that runs has loaded it
from pipelines.config import load_config
from pipelines.progress import be_quiet
from pipelines.service.once import run_once
from pipelines.store import open_store
be_quiet()
config = load_config(sys.argv[1])
store = open_store(config.service.store)
started, cpu = time.perf_counter(), time.process_time()
run = run_once(config, store, "score")
assert run.rows == int(sys.argv[2]), run.rows
print(time.perf_counter() - started, time.process_time() - cpu)
"""


def configure(folder: Path, bundle: Path, **service: Any) -> Path:
    """Write a configuration whose source is a folder that grows."""
    folder.mkdir(parents=True)
    (folder / "in").mkdir()
    settings = {
        "name": "overhead",
        "source": {"path": "in"},
        "policy": {"quantile": 0.999},
        "output": {"path": "scores.parquet"},
        "bundle": str(bundle),
        "tracking": {"enabled": False},
        "service": {"settle": 0, "port": 0} | service,
    }
    file = folder / "detector.yaml"
    file.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return file


def seconds_of(code: str, *arguments: object) -> tuple[float, float]:
    """Seconds that a piece of code took in a process of its own: by the clock, and of the processor."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=_environment())
    if done.returncode:
        raise SystemExit(done.stderr)
    wall, processor = done.stdout.splitlines()[-1].split()
    return float(wall), float(processor)


def overhead(folder: Path, bundle: Path, rows: Path, *, count: int, pairs: int) -> dict[str, Any]:
    """Score the same file in both ways, in turn."""
    bare, scheduled = [], []
    for number in range(pairs):
        config = configure(folder / f"run{number}", bundle)
        os.link(rows, config.parent / "in" / "rows.parquet")
        bare.append(seconds_of(BARE, config, rows, config.parent / "bare.parquet"))
        scheduled.append(seconds_of(SCHEDULED, config, count))
        shutil.rmtree(config.parent)
    wall, processor = (
        statistics.median(after[part] / before[part] for before, after in zip(bare, scheduled, strict=True)) - 1
        for part in (0, 1)
    )
    return {
        "overhead": round(wall, 3),
        "processor_overhead": round(processor, 3),
        "bare_seconds": round(statistics.median(seconds for seconds, _ in bare), 2),
        "scheduled_seconds": round(statistics.median(seconds for seconds, _ in scheduled), 2),
    }


def idle_memory(folder: Path, bundle: Path) -> float:
    """MB that `detector serve` holds after it has scored a file and waited a while."""
    jobs = {"score": {"when": "every 2s"}, "retrain": {"enabled": False}, "drift": {"enabled": False}}
    config = configure(folder / "idle", bundle, jobs=jobs)
    write_rows(config.parent / "in" / "rows.parquet", 20_000, seed=5)
    log = (config.parent / "log").open("w", encoding="utf-8")
    with (
        log,
        subprocess.Popen(
            [sys.executable, "-m", "pipelines", "serve", str(config)], stderr=log, env=_environment()
        ) as process,
    ):
        time.sleep(IDLE_SECONDS)
        memory = memory_of(process.pid)
        process.terminate()
    if not (config.parent / "scores").is_dir():
        raise SystemExit((config.parent / "log").read_text(encoding="utf-8"))
    return memory


def memory_of(process: int) -> float:
    """MB that a process holds, as Linux says."""
    lines = Path(f"/proc/{process}/status").read_text(encoding="ascii").splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS:")).split()[1]) / 1024


def _environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path) or str(Path.cwd())}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser("python -m benchmarks.service", description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000, help="to score (default: 1000000)")
    parser.add_argument("--train-rows", type=int, default=20_000, help="to learn from (default: 20000)")
    parser.add_argument("--pairs", type=int, default=3, help="how often (default: 3)")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = write_rows(folder / "rows.parquet", options.rows, seed=10)
        config, *_ = train(folder / "detector", MEMBERS, options.train_rows)
        bundle = config.parent / "bundle"
        found = overhead(folder, bundle, rows, count=options.rows, pairs=options.pairs)
        found["idle_memory_mb"] = round(idle_memory(folder, bundle))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
