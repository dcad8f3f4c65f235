"""Score a backlog of many files while the process is killed at random; count the rows that were lost or doubled.

``python -m benchmarks.backlog [--rows 50000000] [--file-rows 1000000] [--kills 20] [--output FILE.json]``

Files of rows with a key, a time and two amounts lie there when the service starts, as after a move to it. Every run
is a process of its own, as after a restart: so many are killed with SIGKILL at any moment, unless they end before, and
the last one goes on to the end. The last line is one JSON object; what was killed is scored again, so rows a second are
too few.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from benchmarks.soak import KILLED, Site, draw, run, train


def lay(site: Site, rows: int, file_rows: int) -> None:
    """Write so many rows into files, all at once."""
    for number, first in enumerate(range(0, rows, file_rows)):
        part = min(file_rows, rows - first)
        draw(part, first=first, seed=number).to_parquet(site.input / f"{number:05d}.parquet", index=False)
    site.written = rows


def times_scored(site: Site) -> NDArray[np.uint8]:
    """How often each key has scores."""
    found = np.zeros(site.written, dtype=np.uint8)
    for path in sorted((site.folder / "scores").glob("*.parquet")):
        np.add.at(found, pq.read_table(path, columns=["id"])["id"].to_numpy(), 1)
    return found


def score_all(site: Site, kills: int, rng: random.Random, *, longest: float) -> dict[str, float]:
    """Score to the end; ``longest`` is the seconds after which a run that is to be killed has been."""
    started, runs, killed = time.monotonic(), 0, 0
    while True:
        code = run(site.folder, kill_after=rng.uniform(0, longest) if killed < kills else None)
        runs += 1
        killed += code == KILLED
        print(f"{runs} runs, {killed} killed, {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
        if code != KILLED:
            return {"exit_code": code, "runs": runs, "kills": killed, "seconds": time.monotonic() - started}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; the exit code says whether a row was lost or doubled."""
    parser = argparse.ArgumentParser("python -m benchmarks.backlog", description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=50_000_000, help="in all (default: 50000000)")
    parser.add_argument("--file-rows", type=int, default=1_000_000, help="of a file (default: 1000000)")
    parser.add_argument("--kills", type=int, default=20, help="runs that are killed (default: 20)")
    parser.add_argument("--longest", type=float, default=60.0, help="seconds a run lives that is killed (default: 60)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="also write the result, as JSON")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="backlog-") as place:
        site = Site(Path(place) / "site", train(Path(place)), "files to files")
        lay(site, options.rows, options.file_rows)
        found = {"load_before": os.getloadavg()[0]}
        found |= score_all(site, options.kills, random.Random(options.seed), longest=options.longest)
        scored = times_scored(site)
        counts = {"rows": options.rows, "lost": int((scored == 0).sum()), "doubled": int((scored > 1).sum())}
        found = counts | {"open": site.count_open()} | found
    found["rows_per_second"] = options.rows / found["seconds"]
    text = json.dumps({name: round(value, 1) for name, value in found.items()})
    if options.output:
        options.output.write_text(text + "\n", encoding="utf-8")
    print(text)
    return int(any(found[name] for name in ("lost", "doubled", "open", "exit_code")))


if __name__ == "__main__":
    sys.exit(main())
