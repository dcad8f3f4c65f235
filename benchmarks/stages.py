"""Where the time of scoring a file goes, stage by stage, and what memory it takes, at several sizes.

``python -m benchmarks.stages [--rows 10000,100000,1000000,10000000] [--output FILE.csv]``

Thirty numeric columns and the detector as it comes, as in ``benchmarks.speed``. Each size is scored in a process of its
own, from Parquet to Parquet, by the job that ``detector score`` runs, with a clock around each stage. It counts the
processor's time in the stage's thread, because stages overlap and a machine may be shared; without that of stages
within it. The networks that explaining runs count as members; Arrow's own threads count in the job alone. What a member
takes is measured apart, by its part of the graph alone on 100,000 rows in one thread. The last line is one JSON object:
for each size, seconds by the wall and of the processor, rows a second, peak memory and the stages' seconds; and the
members' rows a second.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
from onnx import load_model_from_string
from onnx.utils import Extractor
from onnxruntime import InferenceSession

from benchmarks.score_once import peak_memory_mb
from benchmarks.speed import COLUMNS, _run, make_rows, train, write_rows
from detector.cleaning.clean import clean
from detector.detectors.table.scorer import TabularScorer
from detector.onnx.graph import Graph
from detector.persist.bundle import load

SIZES = "10000,100000,1000000,10000000"
SAMPLE = 100_000
STAGES = ("read", "clean", "encode", "members", "join", "known rows", "p-values", "wait in files", "decide", "explain")
WRITE = "write"
JOB = {"job, processor": "processor_seconds", "job, by the wall": "seconds"}


class Clock:
    """Processor seconds of each stage, without those of the stages within it, added up over threads."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._lock = threading.Lock()
        self._inner = threading.local()

    def wrap(self, owner: Any, name: str, stage: str) -> None:
        """Put a clock around a function or method; of one that yields, around each item."""
        function = getattr(owner, name)

        @functools.wraps(function)
        def timed(*given: Any, **named: Any) -> Any:
            found = self.time(stage, functools.partial(function, *given, **named))
            return self._each(stage, found) if isinstance(found, Iterator) else found

        setattr(owner, name, timed)

    def time(self, stage: str, work: Callable[[], Any]) -> Any:
        """Do work, and add its own seconds to a stage."""
        before, self._inner.seconds = getattr(self._inner, "seconds", 0.0), 0.0
        started = time.thread_time()
        try:
            return work()
        finally:
            took = time.thread_time() - started
            with self._lock:
                self.seconds[stage] += took - self._inner.seconds
            self._inner.seconds = before + took

    def _each(self, stage: str, items: Iterable[Any]) -> Iterator[Any]:
        iterator, done = iter(items), object()
        while (item := self.time(stage, lambda: next(iterator, done))) is not done:
            yield item


def score_with_clock(config: Path, rows: Path, output: Path) -> dict[str, Any]:
    """Score a file in this process: its seconds, peak memory, and the processor's seconds, of each stage too."""
    from detector.decide.calibrate import Calibrator
    from detector.decide.fuse import Fusion
    from detector.detectors.table.scoring import TableScoring
    from detector.detectors.table.training_rows import LearntRows
    from pipelines.config import load_config
    from pipelines.scoring import one_off, table
    from pipelines.sinks.files import FileSink

    clock = Clock()
    for owner, name, stage in (
        (one_off, "_read", "read"),
        (table, "clean", "clean"),
        (TabularScorer, "encoded", "encode"),
        (InferenceSession, "run", "members"),
        (Fusion, "standardise", "join"),
        (Fusion, "risk", "join"),
        (LearntRows, "recall", "known rows"),
        (Calibrator, "p_value", "p-values"),
        (table.FrameFolder, "__setitem__", "wait in files"),
        (table.FrameFolder, "__getitem__", "wait in files"),
        (TableScoring, "decision", "decide"),
        (TableScoring, "neighbours", "decide"),
        (TabularScorer, "explain", "explain"),
        (FileSink, "write", WRITE),
    ):
        clock.wrap(owner, name, stage)
    configured = load_config(config)
    started, busy = time.perf_counter(), time.process_time()
    one_off.score(configured, input=str(rows), output=str(output), now=datetime.now(UTC))
    seconds, busy = time.perf_counter() - started, time.process_time() - busy
    return {
        "seconds": seconds,
        "processor_seconds": busy,
        "peak_memory_mb": peak_memory_mb(),
        "stages": dict(clock.seconds),
    }


def member_rates(bundle: Path) -> dict[str, float]:
    """Rows a second of processor time of the part of the graph that each member needs, alone, in one thread."""
    scorer = load(bundle)
    assert isinstance(scorer, TabularScorer), "only tables are trained here"
    model = load_model_from_string(scorer.graph.content)
    inputs = scorer.encoded(clean(make_rows(SAMPLE, seed=2), scorer.schema).rows).inputs()
    rates = {}
    for member in (*scorer.members, "neighbours + contraction"):
        part = Extractor(model).extract_model(list(inputs), member.split(" + "))
        graph = Graph(part.SerializeToString(), threads=1)
        graph.run(inputs)
        started = time.thread_time()
        graph.run(inputs)
        rates[member] = SAMPLE / (time.thread_time() - started)
    return rates


def table_of(found: dict[int, dict[str, Any]]) -> pd.DataFrame:
    """Microseconds of processor time a row by stage and size, with the job's own, and the peak memory."""
    columns = {}
    for rows, each in found.items():
        spent = {stage: 1e6 * each["stages"].get(stage, 0.0) / rows for stage in (*STAGES, WRITE)}
        whole = {name: 1e6 * each[key] / rows for name, key in JOB.items()}
        whole["peak memory, MB"] = each["peak_memory_mb"]
        columns[f"{rows:,} rows"] = spent | whole
    return pd.DataFrame(columns)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser("python -m benchmarks.stages", description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", default=SIZES, help=f"sizes, with commas between (default: {SIZES})")
    parser.add_argument("--train-rows", type=int, default=20_000, help="to learn from (default: 20000)")
    parser.add_argument("--output", type=Path, help="also write the table, as CSV")
    parser.add_argument("--once", nargs=3, type=Path, metavar="FILE", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.once:
        print(json.dumps(score_with_clock(*options.once)))
        return
    try:
        sizes = [int(size) for size in options.rows.split(",")]
    except ValueError:
        parser.error(f"--rows expected whole numbers with commas between, received {options.rows!r}")
    if min(sizes) < 1 or options.train_rows < 1000:
        parser.error("every number of rows must be at least 1, and --train-rows at least 1000")
    found: dict[int, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        config, _, _ = train(folder / "default", None, options.train_rows)
        for size in sizes:
            rows = write_rows(folder / "rows.parquet", size, seed=10)
            command = [sys.executable, "-m", "benchmarks.stages", "--once", config, rows, folder / "scores.parquet"]
            found[size] = json.loads(_run(command).splitlines()[-1])
            print(f"{size:,} rows in {found[size]['seconds']:.1f} s", file=sys.stderr)
        rates = member_rates(config.parent / "bundle")
    table = table_of(found)
    if options.output:
        table.round(3).to_csv(options.output, index_label="stage")
    print(f"Microseconds of processor time a row, {len(COLUMNS)} numeric columns, the detector as it comes")
    print(table.to_string(float_format="{:,.2f}".format))
    print("\nEach member's part of the graph alone, rows a second of one core")
    print("\n".join(f"  {name:<26}{rate:>12,.0f}" for name, rate in rates.items()))
    whole = {str(size): each | {"rows_per_second": round(size / each["seconds"])} for size, each in found.items()}
    print("\n" + json.dumps({"sizes": whole, "members": {name: round(rate) for name, rate in rates.items()}}))


if __name__ == "__main__":
    main()
