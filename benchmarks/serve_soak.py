"""Two real services over one source, killed and paused at random; count what was lost, doubled or told twice.

``python -m benchmarks.serve_soak [--kills 100] [--seed 0]``

Both instances run ``detector serve`` with its own scheduler, and take turns to lead. Files come in all the while. One
instance in turn is killed with SIGKILL and started anew, or, one time in five, the leader is stopped with SIGSTOP until
the other has taken over, and then goes on. The last line is one JSON object.

``python -m benchmarks.serve_soak --growth 60 [--per-minute 20]``

One instance that nobody disturbs, for so many minutes: its memory, minute by minute, while its metrics are scraped.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import yaml

from benchmarks.soak import Site, train

LEASE = 2.0
PAUSE_SHARE = 0.2
ROWS = (1, 200)
PATIENCE = 120.0
STARTED = 10.0
"""Seconds after which an instance that was started anew can be asked to end."""
SCRAPE = 15.0
MOST_GROWTH = 20.0
"""MB in an hour, from the end of its first minute on."""


class Instance:
    """One ``detector serve`` in a folder."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self.name = name
        self.start()

    def start(self) -> None:
        """Begin, or begin anew."""
        with (self.folder / f"{self.name}.log").open("ab") as log:
            command = [sys.executable, "-m", "pipelines", "serve", str(self.folder)]
            self.process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        os.kill(self.process.pid, number)

    def memory(self) -> float:
        """What it holds of the machine's memory, in MB."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text(encoding="ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

    def scrape(self) -> None:
        """Ask for its metrics, as Prometheus does."""
        said = (self.folder / f"{self.name}.log").read_text(encoding="utf-8")
        if found := re.search(r"answering on (http://[0-9.]+:[0-9]+)", said):
            with urllib.request.urlopen(found[1] + "/metrics", timeout=30) as answer:
                answer.read()

    def kill(self) -> None:
        """End it at once, and start it anew."""
        self.send(signal.SIGKILL)
        self.process.wait()
        self.start()


def prepare(folder: Path, way: str) -> Site:
    """A site whose services score and deliver every second."""
    jobs: dict[str, object] = {name: {"when": "every 1s"} for name in ("score", "deliver")}
    jobs |= {name: {"enabled": False} for name in ("retrain", "drift", "housekeeping")}
    settings: dict[str, object] = {"jobs": jobs, "lease": LEASE, "stop_within": 10.0}
    site = Site(folder / "site", train(folder), way, shares=True, settings=settings, policy={"quantile": 0.95})
    file = site.folder / "detector.yaml"
    values = yaml.safe_load(file.read_text(encoding="utf-8"))
    values["columns"] = {"key": "id", "time": "at"}
    # Rows are a minute apart, so each flagged row is an event of its own, told once.
    told = {"a_day": 1_000_000, "window_minutes": 0.1, "file": {"path": "alerts.jsonl"}, "log": {"enabled": False}}
    values["alerts"] = told
    file.write_text(yaml.safe_dump(values), encoding="utf-8")
    return site


def leader(site: Site) -> int:
    """The process that leads, as the state says; 0 if none does."""
    found = _ask(site, "SELECT holder FROM leases")
    parts = str(found[0][0]).split("/") if found else []
    return int(parts[1]) if len(parts) > 1 else 0


def alerts(site: Site) -> dict[str, int]:
    """Alerts in the outbox and lines that were delivered; how many of each say the same twice."""
    opened = Counter(first for (first,) in _ask(site, "SELECT first_at FROM alerts WHERE kind = 'opened'"))
    file = site.folder / "alerts.jsonl"
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    ids = Counter(json.loads(line)["id"] for line in lines)
    return {
        "alerts": opened.total(),
        "alerts_doubled": opened.total() - len(opened),
        "alerts_undelivered": opened.total() - len(ids),
        "delivered_doubled": ids.total() - len(ids),
    }


def _ask(site: Site, question: str) -> list[tuple[object, ...]]:
    connection = sqlite3.connect(site.folder / "service.db", timeout=30)
    try:
        return connection.execute(question).fetchall()
    except sqlite3.OperationalError:
        return []
    finally:
        connection.close()


def wait_until(done: Callable[[], bool], seconds: float) -> bool:
    """Whether it came true in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if done():
            return True
        time.sleep(0.1)
    return False


def disturb(site: Site, pair: Sequence[Instance], rng: random.Random) -> str:
    """Kill an instance, or stop the leader until the other leads."""
    leads = [each for each in pair if each.process.pid == leader(site)]
    if leads and rng.random() < PAUSE_SHARE:
        (paused,) = leads
        paused.send(signal.SIGSTOP)
        wait_until(lambda: leader(site) not in (0, paused.process.pid), 5 * LEASE)
        time.sleep(rng.uniform(0, 2))
        if rng.random() < 0.5:  # the other one ends, so that the paused one leads again
            next(each for each in pair if each is not paused).kill()
        paused.send(signal.SIGCONT)
        return "paused"
    rng.choice(leads or pair).kill()
    return "killed"


def soak(site: Site, kills: int, rng: random.Random) -> dict[str, int]:
    """Disturb so many times while rows come in; then let all be scored and delivered, and count."""
    pair = [Instance(site.folder, name) for name in ("one", "two")]
    done = Counter[str]()
    try:
        while done["killed"] < kills:
            site.add(rng.randint(*ROWS))
            time.sleep(rng.uniform(0.2, 2.5))
            done[disturb(site, pair, rng)] += 1
            if done["killed"] % 10 == 0:
                print(f"{done['killed']} killed, {done['paused']} paused", file=sys.stderr, flush=True)
        wait_until(lambda: len(site.scored()) == site.written, PATIENCE)
        wait_until(lambda: alerts(site)["alerts_undelivered"] == 0, PATIENCE)
        time.sleep(STARTED)
    finally:
        for each in pair:
            each.process.terminate()
        codes = [each.process.wait(PATIENCE) for each in pair]
    ended = {"failures": sum(code != 0 for code in codes)}
    return site.count() | alerts(site) | dict(done) | {"rows": site.written} | ended


def growth(site: Site, minutes: int, per_minute: int, rng: random.Random) -> dict[str, object]:
    """Have batches come in at a steady pace, and look at the memory of the service at the end of each minute."""
    one, memory, started = Instance(site.folder, "one"), list[float](), time.monotonic()
    scraped = started
    try:
        for batch in range(minutes * per_minute):
            site.add(rng.randint(*ROWS))
            time.sleep(max(0.0, started + (batch + 1) * 60 / per_minute - time.monotonic()))
            if time.monotonic() - scraped > SCRAPE:
                one.scrape()
                scraped = time.monotonic()
            if (batch + 1) % per_minute == 0:
                memory.append(round(one.memory(), 1))
                print(f"minute {len(memory)}: {memory[-1]} MB, {batch + 1} batches", file=sys.stderr, flush=True)
        wait_until(lambda: len(site.scored()) == site.written, PATIENCE)
        wait_until(lambda: alerts(site)["alerts_undelivered"] == 0, PATIENCE)
    finally:
        one.process.terminate()
        code = one.process.wait(PATIENCE)
    counted = site.count() | alerts(site) | {"rows": site.written, "batches": site.batches, "failures": int(code != 0)}
    return counted | {"memory": memory, "growth": round(memory[-1] - memory[0], 1)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; the exit code says whether anything was lost or doubled."""
    parser = argparse.ArgumentParser("python -m benchmarks.serve_soak", description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--growth", type=int, metavar="MINUTES", help="look at the memory of one that is not disturbed")
    parser.add_argument("--per-minute", type=int, default=20, help="batches that come in, for --growth")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--way", default="files to table")
    parser.add_argument("--keep", action="store_true", help="leave the folder for a look")
    options = parser.parse_args(arguments)
    folder, started = Path(tempfile.mkdtemp(prefix="serve-soak-")), time.monotonic()
    rng = random.Random(options.seed)
    try:
        site = prepare(folder, options.way)
        found: dict[str, object] = dict(soak(site, options.kills, rng)) if options.growth is None else {}
        found |= {} if options.growth is None else growth(site, options.growth, options.per_minute, rng)
    finally:
        if options.keep:
            print(folder, file=sys.stderr)
        else:
            shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(found | {"seconds": round(time.monotonic() - started)}))
    wrong = ("lost", "doubled", "unknown", "open", "alerts_doubled", "alerts_undelivered", "failures")
    too_much = float(str(found.get("growth", 0))) > MOST_GROWTH * max(1.0, (options.growth or 0) / 60)
    return int(too_much or any(found[name] for name in wrong))


if __name__ == "__main__":
    sys.exit(main())
