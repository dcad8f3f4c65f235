"""Score batch after batch while the process is killed at random, and count the rows that were lost or doubled.

``python -m benchmarks.soak [--batches 1000]``

The batches are shared out among four ways from source to scores. Every run is a process of its own, as after a restart;
every second one, about, is killed with SIGKILL at a random point. The last line is one JSON object.
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
from collections.abc import Sequence
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
    "score.judged",
    "landing.write",
    "score.staged",
    "landing.rename",
    "landing.renamed",
    "landing.insert",
    "landing.delivered",
    "score.moving",
    "score.committing",
    "score.committed",
    "run.ending",
)
KILLED = -9
KILL_SHARE = 0.5
NEEDED_BY_CHILDREN = [
    "pipelines.incremental",
    "pipelines.landing.table",
    "pipelines.intake.table",
    "pipelines.service.once",
]


def train(folder: Path) -> Path:
    """Fit a detector of one small forest, and save its bundle."""
    from detector.bundle import save
    from detector.schema import Schema
    from detector.tabular import TabularDetector

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
        connection = sqlite3.connect(self.folder / "service.db")
        (still_open,) = connection.execute("SELECT count(*) FROM batches WHERE state != 'done'").fetchone()
        connection.close()
        return {
            "lost": sum(key not in scored for key in range(self.written)),
            "doubled": sum(times - 1 for times in scored.values()),
            "unknown": sum(key >= self.written for key in scored),
            "open": int(still_open),
        }


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


def run(folder: Path, fault: str = "") -> int:
    """Score in a process of its own; its exit code. The process is forked from one that has all modules loaded."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(NEEDED_BY_CHILDREN)
    child = context.Process(target=score_in_child, args=(str(folder), fault, str(folder / "run.log")))
    child.start()
    child.join()
    return int(child.exitcode or 0)


def soak(site: Site, batches: int, rng: random.Random) -> dict[str, int]:
    """Add so many batches, scoring after each, with kills; then score to the end."""
    kills = failures = 0
    for _ in range(batches):
        site.add(rng.randint(1, 200))
        while True:
            fault = f"{rng.choice(POINTS)}:{rng.choice((1, 1, 1, 2))}" if rng.random() < KILL_SHARE else ""
            code = run(site.folder, fault)
            kills += code == KILLED
            failures += code not in (0, KILLED)
            if code != KILLED:
                break
    failures += run(site.folder) != 0
    return site.count() | {"batches": batches, "rows": site.written, "kills": kills, "failures": failures}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; the exit code says whether a row was lost or doubled."""
    parser = argparse.ArgumentParser("python -m benchmarks.soak", description=__doc__.partition("\n")[0])
    parser.add_argument("--batches", type=int, default=1_000, help="in all (default: 1000)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    rng, started, totals = random.Random(options.seed), time.monotonic(), Counter[str]()
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    try:
        bundle = train(folder)
        for number, way in enumerate(WAYS):
            share = options.batches // len(WAYS) + (number < options.batches % len(WAYS))
            site = Site(folder / str(number), bundle, way, shares=way == "files to table")
            found = soak(site, share, rng)
            print(f"{way}: {found}", file=sys.stderr, flush=True)
            totals.update(found)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(dict(totals) | {"seconds": round(time.monotonic() - started)}))
    return int(any(totals[name] for name in ("lost", "doubled", "unknown", "open", "failures")))


if __name__ == "__main__":
    sys.exit(main())
