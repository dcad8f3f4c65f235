"""The past of many entities on disk: speed, memory, size, restart and rebuilding from the source.

``python -m benchmarks.past --events 10000000 --entities 1000000 [--folder F] [--out F]``; the last line is JSON.

Events come in time order, in batches, from cards of which few pay often and most pay seldom; every so many rows the
past is written as the service writes it, on disk from the first. Each step is a process of its own, so that its memory
is its own; "anonymous" is what a process cannot give back, without pages of files.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from detector.features import History, load_history
from pipelines.config import Config
from pipelines.features import rebuild, stored_history
from pipelines.features.engine import FeatureEngine

LINES = [
    "count by card_id over 1d, 7d, 30d",
    "mean of amount by card_id over 90d",
    "count by terminal_id over 1d",
]
DAYS, SKEW, TERMINALS = 120, 2.0, 50
"""Of the source; how unlike cards are (the first percent have a tenth of the events); cards to one terminal."""
EVERY = 500_000
"""Rows after which the past is written, as in the service."""
LOOKED_UP, MORE = 2_000, 2_000_000
"""Single events of random cards, and events that are pushed to the past that was built."""


def engine_of(most_megabytes: float) -> FeatureEngine:
    """What adds the features, with no past."""
    columns = {"key": "id", "time": "time", "entity": "card_id", "numeric": ["amount"], "others": "ignore"}
    features = {"history": LINES, "most_megabytes": most_megabytes}
    return FeatureEngine(Config(name="past", source={"path": "rows"}, columns=columns, features=features))


def events(count: int, entities: int, batch: int) -> Iterator[pd.DataFrame]:
    """Events in time order."""
    seconds = DAYS * 86_400
    for number, first in enumerate(range(0, count, batch)):
        rng, size = np.random.default_rng(number), min(batch, count - first)
        since = np.sort(rng.uniform(first, first + size, size)) * (seconds / count)
        card = (entities * rng.random(size) ** SKEW).astype(np.int64)
        terminal = rng.integers(0, max(1, entities // TERMINALS), size)
        yield pd.DataFrame(
            {
                "id": pd.Series(np.char.add("p", np.arange(first, first + size).astype(str)), dtype="str"),
                "time": np.datetime64("2024-01-01", "us") + since.astype("timedelta64[s]"),
                "card_id": pd.Series(np.char.add("card-", card.astype(str)), dtype="str"),
                "terminal_id": pd.Series(np.char.add("t-", terminal.astype(str)), dtype="str"),
                "amount": np.round(rng.lognormal(3.5, 1.0, size), 2),
            }
        )


def write_source(folder: Path, given: argparse.Namespace) -> dict[str, Any]:
    """Write the events as files, as a source has them."""
    for number, frame in enumerate(events(given.events, given.entities, given.batch)):
        frame.to_parquet(folder / f"{number:06d}.parquet", index=False)
    return {"source_gb": size_of(folder)}


def pushed(source: Path, place: Path, most: float, *, rows: int | None = None) -> dict[str, Any]:
    """Push the files of the source, and write the past as the service does."""
    return pushed_to(engine_of(most), map(pd.read_parquet, sorted(source.iterdir())), place, rows=rows)


def gone_on(source: Path, built: Path, place: Path) -> dict[str, Any]:
    """Push more events to the past that was built: the files of the end of the source, once more and later."""
    engine, files = engine_of(0.0), sorted(source.iterdir())
    engine.history = load_history(stored_history.find(built / "past"))
    files = files[-MORE // len(pd.read_parquet(files[0])) :]
    frames = [pd.read_parquet(path) for path in files]
    took = frames[-1]["time"].max() - frames[0]["time"].min()
    later = (frame.assign(id=frame["id"] + "x", time=frame["time"] + took) for frame in frames)
    return pushed_to(engine, later, place)


def pushed_to(
    engine: FeatureEngine, frames: Iterable[pd.DataFrame], place: Path, *, rows: int | None = None
) -> dict[str, Any]:
    """Push events, and write the past as the service does."""
    since, done, number = 0, 0, 0
    started, busy, saving = time.perf_counter(), time.process_time(), 0.0
    for frame in frames:
        engine.history.push(frame)
        since, done = since + len(frame), done + len(frame)
        if since >= EVERY:
            number, since = number + 1, 0
            began = time.perf_counter()
            write(engine, place, number)
            saving += time.perf_counter() - began
        if rows is not None and done >= rows:
            break
    write(engine, place, number + 1)
    taken = time.perf_counter() - started
    return {
        "events_per_second": round(done / taken),
        "events_per_cpu_second": round(done / (time.process_time() - busy)),
        "share_of_time_writing": round(saving / taken, 3),
        "state_gb": size_of(place),
    }


def write(engine: FeatureEngine, place: Path, number: int) -> None:
    """One snapshot, in place of the one before."""
    place.mkdir(exist_ok=True)
    stored_history.forget_idle(engine.history)
    path = stored_history.keep(engine.history, place / f"past-{number:08d}", most=engine.most_bytes)
    for other in place.iterdir():
        if other != path:
            stored_history.remove(other)


def restarted(source: Path, path: Path, entities: int) -> dict[str, Any]:
    """Open the past, look up entities, and push a batch."""
    started = time.perf_counter()
    history = load_history(path)
    opened = time.perf_counter() - started
    frame = pd.read_parquet(max(source.iterdir()))
    one = looked_up(history.copy(), frame, entities)
    started = time.perf_counter()
    history.push(frame.assign(id=frame["id"] + "x", time=frame["time"] + (frame["time"].max() - frame["time"].min())))
    batch = time.perf_counter() - started
    return {
        "restart_seconds": round(opened, 3),
        "ms_per_event": round(1000 * float(np.median(one)), 3),
        "ms_per_event_p99": round(1000 * float(np.quantile(one, 0.99)), 3),
        "first_batch_seconds": round(batch, 2),
    }


def looked_up(history: History, frame: pd.DataFrame, entities: int) -> list[float]:
    """Seconds of single events of random cards."""
    found, rng = [], np.random.default_rng(1)
    row = frame.iloc[-1].to_dict()
    for number, card in enumerate(rng.integers(0, entities, LOOKED_UP).tolist()):
        event = row | {"id": f"one-{number}", "card_id": f"card-{card}"}
        started = time.perf_counter()
        history.push_one(event)
        found.append(time.perf_counter() - started)
    return found


def rebuilt(source: Path, place: Path, processes: int) -> dict[str, Any]:
    """Build the past from the source."""
    engine = engine_of(0.0)
    started = time.perf_counter()
    frames = (pd.read_parquet(path) for path in sorted(source.iterdir()))
    history, rows = rebuild.from_source(engine, frames, place, processes=processes)
    taken = time.perf_counter() - started
    if history is None:
        raise SystemExit("nothing was built")
    stored_history.keep(history, place / "past", most=0)
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6
    return {"seconds": round(taken, 1), "events_per_second": round(rows / taken), "largest_process_gb": children}


def same(source: Path, place: Path, built: Path, entities: int) -> dict[str, Any]:
    """How many of random cards have other features by the past that was built than by the one that was pushed."""
    (path,) = place.glob("past-*")
    pasts = [load_history(path).copy(), load_history(stored_history.find(built / "past")).copy()]
    row, differ = pd.read_parquet(max(source.iterdir())).iloc[-1].to_dict(), 0
    for number, card in enumerate(np.random.default_rng(2).integers(0, entities, LOOKED_UP).tolist()):
        event = row | {"id": f"same-{number}", "card_id": f"card-{card}"}
        one, other = (list(past.push_one(event).values()) for past in pasts)
        differ += not np.array_equal(one, other, equal_nan=True)
    return {"cards_compared": LOOKED_UP, "cards_that_differ": differ}


def size_of(folder: Path) -> float:
    """Gigabytes of all files below a folder; one that lies at several places counts once."""
    found = {stat.st_ino: stat.st_size for stat in map(Path.stat, folder.rglob("*"))}
    return round(sum(found.values()) / 1e9, 3)


class Memory:
    """The most memory that this process has held while it worked, in gigabytes."""

    def __init__(self) -> None:
        self.anonymous = 0.0
        self._ends = threading.Event()

    def watched(self, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What some work returns, with its memory."""
        watching = threading.Thread(target=self._watch, daemon=True)
        watching.start()
        found = work()
        self._ends.set()
        watching.join()
        return {**found, "peak_anonymous_gb": round(self.anonymous, 3), "peak_gb": round(self._now("VmHWM"), 3)}

    def _watch(self) -> None:
        while not self._ends.wait(0.05):
            self.anonymous = max(self.anonymous, self._now("RssAnon"))

    @staticmethod
    def _now(name: str) -> float:
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return 1024 * int(status.split(f"{name}:")[1].split()[0]) / 1e9


def step_of(given: argparse.Namespace) -> Callable[[], dict[str, Any]]:
    """What one process does."""
    source, place = given.folder / "source", given.folder / "past"
    return {
        "source": lambda: write_source(source, given),
        "push": lambda: pushed(source, place, 0.0),
        "push on disk": lambda: pushed(source, given.folder / "small", 0.0, rows=given.compare),
        "push in memory": lambda: pushed(source, given.folder / "small", 1e9, rows=given.compare),
        "go on": lambda: gone_on(source, given.folder / "built", given.folder / "small"),
        "restart": lambda: restarted(source, stored_history.find(given.folder / "built" / "past"), given.entities),
        "rebuild 1": lambda: rebuilt(source, given.folder / "built", 1),
        "rebuild 2": lambda: rebuilt(source, given.folder / "built", 2),
        "same": lambda: same(source, place, given.folder / "built", given.entities),
    }[given.step]


def measured(given: argparse.Namespace) -> dict[str, Any]:
    """Each step in a process of its own."""
    found: dict[str, Any] = {"events": given.events, "entities": given.entities, "batch": given.batch}
    arguments = [f"--{name}={getattr(given, name)}" for name in ("events", "entities", "batch", "compare", "folder")]

    def run(step: str) -> dict[str, Any]:
        shutil.rmtree(given.folder / "small", ignore_errors=True)
        command = [sys.executable, "-m", "benchmarks.past", f"--step={step}", *arguments]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        print(f"{step}: {done.stdout.strip()}", flush=True)
        answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return answer

    (given.folder / "source").mkdir(parents=True, exist_ok=True)
    found |= run("source")
    for processes in given.processes:
        found |= {f"rebuild_{processes}_{name}": value for name, value in run(f"rebuild {processes}").items()}
    found["built_gb"] = size_of(given.folder / "built")
    found |= {f"restart_{n}".replace("restart_restart", "restart"): v for n, v in run("restart").items()}
    found |= {f"go_on_{name}": value for name, value in run("go on").items()}
    if given.rebuild_only:
        return found
    found |= {f"push_{name}": value for name, value in run("push").items()}
    found |= {n: v for n, v in run("same").items() if n.startswith("cards")}
    disk, memory = run("push on disk"), run("push in memory")
    found["compared_events"] = given.compare
    found["ratio_to_memory"] = round(disk["events_per_second"] / memory["events_per_second"], 2)
    found["ratio_to_memory_cpu"] = round(disk["events_per_cpu_second"] / memory["events_per_cpu_second"], 2)
    found["in_memory_peak_gb"] = memory["peak_anonymous_gb"]
    found["on_disk_peak_gb"] = disk["peak_anonymous_gb"]
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--entities", type=int, default=1_000_000)
    parser.add_argument("--batch", type=int, default=250_000)
    parser.add_argument("--compare", type=int, default=2_000_000)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2], help="of rebuilding")
    parser.add_argument("--rebuild-only", action="store_true", help="the past is built, and not pushed from the start")
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--step", default=None, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.step is not None:
        print(json.dumps(Memory().watched(step_of(given))))
        return
    with tempfile.TemporaryDirectory(prefix="past-", dir=given.folder) as folder:
        given.folder = Path(folder)
        found = measured(given)
    for name, value in found.items():
        print(f"{name:<32} {value:>14,}")
    if given.out is not None:
        given.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
