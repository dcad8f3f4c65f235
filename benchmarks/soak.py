"""Score batch after batch while the process is killed at random, and count the rows that were lost or doubled.

``python -m benchmarks.soak [--batches 1000]``

The batches are shared out among four ways from source to scores, which go on side by side. Every run is a process of
its own, as after a restart; about half of them are killed with SIGKILL, some at a named point, some at any moment. Each
way says how far it is; the last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import shutil
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

WAYS = ("files to files", "files to table", "table to files", "table to table")
POINTS = (
    "leader.begun",
    "run.begun",
    "score.looked",
    "score.claiming",
    "score.claimed",
    "score.opened",
    "score.read",
    "score.computed",
    "landing.write",
    "score.staged",
    "score.moving",
    "score.committing",
    "score.committed",
    "run.ending",
)
POINTS_OF_FILES = ("landing.rename", "landing.renamed")
POINTS_OF_A_TABLE = ("landing.insert", "landing.delivered")
KILLED = -9
POINT_SHARE, MOMENT_SHARE = 0.35, 0.25
"""Of the runs, those to be killed at a named point, and at any moment of the time that a run takes."""
REPORT_EVERY = 25
NEEDED_BY_CHILDREN = [
    "pipelines.scoring.batch_transaction",
    "pipelines.sinks.batch_table",
    "pipelines.ingest.table",
    "pipelines.service.once",
]


def train(folder: Path) -> Path:
    """Fit a detector of one small forest, and save its bundle."""
    from detector.detectors.table.detector import TabularDetector
    from detector.persist.bundle import save
    from detector.schema import Schema

    schema = Schema(key="id", time="at", numeric=("amount", "fee"))
    detector = TabularDetector(schema=schema, members=("forest",), trees=20).fit(draw(600, first=0, seed=0))
    return save(detector.scorer_, folder / "bundle")


def draw(rows: int, *, first: int, seed: int) -> pd.DataFrame:
    """Some rows with consecutive keys.

    >>> draw(3, first=7, seed=0)["id"].tolist()
    [7, 8, 9]
    """
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "id": np.arange(first, first + rows),
            "at": pd.Timestamp("2026-01-01") + pd.to_timedelta(np.arange(first, first + rows), unit="m"),
            "amount": rng.normal(40, 5, rows).round(2),
            "fee": rng.normal(1, 0.1, rows).round(4),
        }
    )


class Site:
    """A project in a folder, whose input grows and whose scores can be counted.

    Parameters
    ----------
    folder : Path
        Made when missing.
    bundle : Path
        The detector.
    way : str
        One of ``WAYS``.
    settings : mapping
        More of the section ``service``.
    shares : bool
        Whether scores in a table lie in the database of the service's state.
    """

    def __init__(
        self,
        folder: Path,
        bundle: Path,
        way: str,
        *,
        settings: dict[str, object] | None = None,
        shares: bool = False,
        policy: dict[str, object] | None = None,
        store: str = "sqlite:///service.db",
    ) -> None:
        self.folder = folder
        self.source, self.target = way.split(" to ")
        self.written = 0
        self.batches = 0
        self.input = folder / "in"
        self.input.mkdir(parents=True)
        self.scores_url = store if shares else "sqlite:///scores.db"
        values = {
            "name": "soak",
            "source": {"path": "in"} if self.source == "files" else {"url": "sqlite:///source.db", "table": "rows"},
            "columns": {"key": "id"},
            "policy": policy or {"quantile": 0.99},
            "output": {"path": "scores.parquet"}
            if self.target == "files"
            else {"url": self.scores_url, "table": "scores"},
            "bundle": str(bundle),
            "tracking": {"enabled": False},
            "service": {"store": store, "settle": 0, "cursor": "id", "lateness": 5, "lease": 2.0, "port": 0}
            | (settings or {}),
        }
        (folder / "detector.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")

    def add(self, rows: int) -> None:
        """Have rows come in: a new file, or more rows in the table."""
        frame = draw(rows, first=self.written, seed=self.written)
        self.written += rows
        self.batches += 1
        if self.source == "table":
            with sqlite3.connect(self.folder / "source.db") as connection:
                frame.to_sql("rows", connection, if_exists="append", index=False)
            connection.close()
        elif self.target == "files":
            frame.to_csv(self.input / f"{self.batches:05d}.csv", index=False)
        else:
            frame.to_parquet(self.input / f"{self.batches:05d}.parquet")

    def scored(self) -> Counter[int]:
        """How often each key has scores."""
        if self.target == "files":
            files = sorted((self.folder / "scores").glob("*.parquet"))
            return Counter(int(key) for file in files for key in pd.read_parquet(file, columns=["id"])["id"])
        name = "scores.db" if self.scores_url.endswith("scores.db") else "service.db"
        connection = sqlite3.connect(self.folder / name)
        try:
            return Counter(key for (key,) in connection.execute("SELECT id FROM scores"))
        except sqlite3.OperationalError:
            return Counter()
        finally:
            connection.close()

    def count(self) -> dict[str, int]:
        """How many rows were lost, doubled, or come from nowhere; how many batches are open."""
        scored = self.scored()
        return {
            "lost": sum(key not in scored for key in range(self.written)),
            "doubled": sum(times - 1 for times in scored.values()),
            "unknown": sum(key >= self.written for key in scored),
            "open": self.count_open(),
        }

    def count_open(self) -> int:
        """How many batches are not done."""
        connection = sqlite3.connect(self.folder / "service.db")
        (found,) = connection.execute("SELECT count(*) FROM batches WHERE state != 'done'").fetchone()
        connection.close()
        return int(found)


def score_in_child(folder: str, fault: str, log: str = os.devnull) -> None:
    """One run of the scoring job, in this process; killed where ``fault`` says."""
    from pipelines.config import load_config
    from pipelines.progress import be_quiet
    from pipelines.service.logs import configure
    from pipelines.service.once import run_once
    from pipelines.store import open_store

    os.environ["DETECTOR_FAULT"] = fault
    be_quiet()
    with Path(log).open("a", encoding="utf-8") as stream:
        configure("pretty", stream=stream)
        config = load_config(folder)
        run_once(config, open_store(config.service.store), "score")


def run(folder: Path, fault: str = "", *, kill_after: float | None = None) -> int:
    """Score in a process of its own; its exit code. The process is forked from one that has all modules loaded.

    Parameters
    ----------
    folder : Path
        The site's.
    fault : str
        Where the process kills itself, as ``DETECTOR_FAULT`` says it.
    kill_after : float, optional
        Seconds after which it is killed, wherever it is.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(NEEDED_BY_CHILDREN)
    child = context.Process(target=score_in_child, args=(str(folder), fault, str(folder / "run.log")))
    child.start()
    child.join(kill_after)
    if child.is_alive():
        child.kill()
        child.join()
    return int(child.exitcode or 0)


def soak(site: Site, batches: int, rng: random.Random, *, say: Callable[[str], object] = len) -> dict[str, int]:
    """Add so many batches, scoring after each, with kills; then score to the end."""
    points = [*POINTS, *(POINTS_OF_FILES if site.target == "files" else POINTS_OF_A_TABLE)]
    kills = failures = runs = 0
    usual, started = 1.0, time.monotonic()
    for number in range(1, batches + 1):
        site.add(rng.randint(1, 200))
        code = KILLED
        while code == KILLED:
            lot, begun = rng.random(), time.monotonic()
            fault = f"{rng.choice(points)}:1" if lot < POINT_SHARE else ""
            moment = rng.uniform(0, usual) if POINT_SHARE <= lot < POINT_SHARE + MOMENT_SHARE else None
            code = run(site.folder, fault, kill_after=moment)
            if code == 0:
                usual = time.monotonic() - begun
            runs += 1
            kills += code == KILLED
            if code not in (0, KILLED):
                failures += 1
                say(f"a run failed with {code}:\n{(site.folder / 'run.log').read_text(encoding='utf-8')[-3_000:]}")
        if number % REPORT_EVERY == 0:
            minutes = (time.monotonic() - started) / 60
            say(f"{number} of {batches} batches, {runs} runs, {kills} killed, {failures} failed, {minutes:.1f} min")
    failures += run(site.folder) != 0
    counts = site.count()
    say(f"{batches} batches: {', '.join(f'{count} {name}' for name, count in counts.items())}")
    return counts | {"batches": batches, "rows": site.written, "runs": runs, "kills": kills, "failures": failures}


def soak_way(way: str, batches: int, *, folder: Path, bundle: Path, seed: int) -> dict[str, int]:
    """Soak one way from source to scores, and say how far it is."""
    site = Site(folder / way.replace(" ", "-"), bundle, way, shares=way == "files to table")
    rng = random.Random(f"{seed} {way}")
    return soak(site, batches, rng, say=lambda text: print(f"{way}: {text}", file=sys.stderr, flush=True))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; the exit code says whether a row was lost or doubled."""
    parser = argparse.ArgumentParser("python -m benchmarks.soak", description=__doc__.partition("\n")[0])
    parser.add_argument("--batches", type=int, default=1_000, help="in all (default: 1000)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    started, totals = time.monotonic(), Counter[str]()
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    shares = [options.batches // len(WAYS) + (n < options.batches % len(WAYS)) for n in range(len(WAYS))]
    try:
        go = partial(soak_way, folder=folder, bundle=train(folder), seed=options.seed)
        # Processes, not threads: two threads that start children at once mix up their exit codes.
        with ProcessPoolExecutor(len(WAYS), mp_context=multiprocessing.get_context("spawn")) as pool:
            for found in pool.map(go, WAYS, shares):
                totals.update(found)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(dict(totals) | {"seconds": round(time.monotonic() - started)}))
    return int(any(totals[name] for name in ("lost", "doubled", "unknown", "open", "failures")))


if __name__ == "__main__":
    sys.exit(main())
