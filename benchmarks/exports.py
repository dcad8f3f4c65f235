"""What it costs to tell the rows that came before, and what an export of everything takes.

``python -m benchmarks.exports [--rows 1000000] [--known 10000000] [--runs 3] [--output FILE.json]``

Payments with a key, a time, an account, a code and eight amounts, and the detector as it comes, scored by the job of
the service. A file of new rows is scored with ``service.repeated_rows: skip`` and with ``score``, in turn, each time in
a new project and a process of its own: once where nothing is known, once where so many other rows are. The figures are
seconds of the processor, and the ratio is the median of that of skip to score. Then an export of the same rows and a
tenth more is scored. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.soak import Site

AMOUNTS = [f"amount_{number}" for number in range(8)]
TRAINED_ON = 20_000
CHUNK = 1_000_000


def draw(rows: int, *, first: int) -> pd.DataFrame:
    """Payments with consecutive keys.

    >>> draw(2, first=7)["id"].tolist()
    ['P0000000007', 'P0000000008']
    """
    rng = np.random.default_rng(first)
    number = np.arange(first, first + rows)
    return pd.DataFrame(
        {
            "id": [f"P{each:010d}" for each in number],
            "at": pd.Timestamp("2026-01-01") + pd.to_timedelta(number, unit="s"),
            "account": rng.integers(0, 50_000, rows).astype(str),
            "code": rng.integers(0, 300, rows).astype(str),
            **{name: rng.lognormal(3, 1, rows).round(2) for name in AMOUNTS},
        }
    )


def train(folder: Path) -> Path:
    """The detector as it comes."""
    from detector.detectors.table.detector import TabularDetector
    from detector.persist.bundle import save
    from detector.schema import Schema

    schema = Schema(key="id", time="at", entity="account", numeric=tuple(AMOUNTS), categorical=("code",))
    detector = TabularDetector(schema=schema, random_state=0).fit(draw(TRAINED_ON, first=10**9))
    return save(detector.scorer_, folder / "bundle")


def remember(site: Site, known: int) -> None:
    """Have so many other rows known, as after earlier batches of a million."""
    from pipelines.config import load_config
    from pipelines.ingest.row_marks import day_of, marks_of_keys
    from pipelines.ingest.row_memory import RowMemory
    from pipelines.store import open_store

    config = load_config(site.folder)
    store = open_store(config.service.store)
    memory, day = RowMemory(store, config.name), day_of(datetime.now(UTC))
    for first in range(0, known, CHUNK):
        with store.write() as session:
            memory.add(session, marks_of_keys((f"K{first + each:010d}" for each in range(CHUNK)), day=day), since=0)
    store.close()


def score(folder: Path) -> dict[str, float]:
    """Score what has come in, in this process: its seconds, of the processor too, and what was scored."""
    from pipelines.config import load_config
    from pipelines.jobs.context import Context
    from pipelines.progress import be_quiet
    from pipelines.scoring.job import score_new
    from pipelines.store import open_store

    be_quiet()
    config = load_config(folder)
    store = open_store(config.service.store)
    started, busy = time.perf_counter(), time.process_time()
    facts = score_new(Context(config, store, datetime.now(UTC))).facts
    took = {"seconds": time.perf_counter() - started, "processor_seconds": time.process_time() - busy}
    store.close()
    return took | {name: facts[name] for name in ("scored", "repeated")}


def apart(folder: Path) -> dict[str, float]:
    """The same in a process of its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(score, folder).result()


def compare(place: Path, bundle: Path, *, rows: int, known: int, runs: int) -> dict[str, Any]:
    """New rows, with and without telling them; then an export of everything."""
    took: dict[str, list[float]] = {"skip": [], "score": []}
    export: dict[str, float] = {}
    for number in range(runs):
        for setting, seconds in took.items():
            site = Site(place / setting, bundle, "files to files", settings={"repeated_rows": setting})
            if setting == "skip":
                remember(site, known)
            draw(rows, first=0).to_parquet(site.input / "new.parquet", index=False)
            seconds.append(apart(site.folder)["processor_seconds"])
            print(f"{known:,} known, {setting}: {seconds[-1]:.1f} s of the processor", file=sys.stderr, flush=True)
            if setting == "skip" and number == runs - 1:
                every = pd.concat([draw(rows, first=0), draw(rows // 10, first=rows)])
                every.to_parquet(site.input / "of-all.parquet", index=False)
                export = apart(site.folder) | {"state_megabytes": (site.folder / "service.db").stat().st_size / 1e6}
            shutil.rmtree(site.folder)
    ratios = [skip / plain for skip, plain in zip(took["skip"], took["score"], strict=True)]
    return {"known": known, "processor_seconds": took, "ratio": statistics.median(ratios), "export": export}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser("python -m benchmarks.exports", description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--known", type=int, default=10_000_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--output", type=Path)
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="exports-") as folder:
        bundle = train(Path(folder))
        found = [
            compare(Path(folder), bundle, rows=given.rows, known=known, runs=given.runs) for known in (0, given.known)
        ]
    text = json.dumps({"rows": given.rows, "found": found})
    if given.output is not None:
        given.output.write_text(text + "\n", encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
