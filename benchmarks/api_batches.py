"""Compare how two versions of the service score batches, by turns in one run.

``python -m benchmarks.api_batches OTHER [--rounds 8]``

OTHER is the folder of another version, such as a worktree of git. Each serves the detector of ``benchmarks.api`` from a
copy of one folder. Every round asks both for batches of 1,000 events, as JSON, as Arrow, to be held, and for one event
that is not plain. Others may use the machine as well: it is the ratios that say something, of this version to the other
in the same round. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from benchmarks.api import BATCH, Client, prepare, processor_ms
from pipelines.api import keys
from pipelines.config import load_config
from pipelines.store import open_store

Ask = Callable[[Client], float]
Service = tuple[Client, int]

OWN = Path(__file__).parents[1]
TIMES = {"json": 12, "arrow": 12, "held": 4, "odd": 24}
"""Requests of each kind a round."""


@contextmanager
def served(tree: Path, folder: Path) -> Iterator[tuple[str, int]]:
    """A version of the service over a project's folder; yields its address and the number of its process."""
    log = folder / "log"
    environment = os.environ | {"PYTHONPATH": str(tree)}
    with log.open("w") as stream:
        command = [sys.executable, "-m", "pipelines", "serve", str(folder)]
        process = subprocess.Popen(command, stderr=stream, cwd=tree, env=environment)
    try:
        while "scored 4,000" not in log.read_text():
            if process.poll() is not None:
                raise RuntimeError(f"the service ended: {log.read_text()[-2_000:]}")
            time.sleep(0.5)
        yield re.findall(r"answering on (http://[0-9.]+:[0-9]+)", log.read_text())[0], process.pid
    finally:
        process.terminate()
        process.wait(60)


def bodies(events: Sequence[Mapping[str, Any]]) -> dict[str, Ask]:
    """What is asked, by its name."""
    batch = [{**events[number % len(events)], "transaction_id": f"b{number}"} for number in range(BATCH)]
    table = pa.Table.from_pylist(batch)
    odd = {**events[0], "amount": f" {events[0]['amount']}"}
    return {
        "json": lambda client: client.score({"events": batch, "dry_run": True}),
        "arrow": lambda client: client.score_stream(table),
        "held": lambda client: client.score({"events": batch}),
        "odd": lambda client: client.score({"event": odd, "dry_run": True}),
    }


def measure(ask: Ask, client: Client, pid: int, times: int) -> tuple[float, float]:
    """Milliseconds until an answer (median), and of the service's processor time for it."""
    client.close()  # a server closes what lies idle
    ask(client)
    had = processor_ms(pid)
    waited = [1e3 * ask(client) for _ in range(times)]
    return statistics.median(waited), (processor_ms(pid) - had) / times


def by_turns(own: Service, other: Service, asked: Mapping[str, Ask], rounds: int) -> dict[str, float]:
    """Medians of both versions, and of their ratios in each round."""
    found, versions = dict[str, float](), (own, other)
    for name, ask in asked.items():
        measured: list[list[tuple[float, float]]] = [[], []]
        for number in range(rounds):
            for version in (0, 1) if number % 2 else (1, 0):
                measured[version].append(measure(ask, *versions[version], TIMES[name]))
        for place, what in enumerate(("ms", "processor_ms")):
            ours, theirs = ([each[place] for each in rounds_of] for rounds_of in measured)
            found |= {
                f"{name}_{what}": statistics.median(ours),
                f"{name}_{what}_other": statistics.median(theirs),
                f"{name}_{what}_ratio": statistics.median(a / b for a, b in zip(ours, theirs, strict=True)),
            }
    return found


def main(words: Sequence[str] | None = None) -> None:
    """Print what was measured."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("other", type=Path)
    parser.add_argument("--rounds", type=int, default=8)
    given = parser.parse_args(words)
    with tempfile.TemporaryDirectory() as name:
        folders = [Path(name) / version for version in ("own", "other")]
        folders[0].mkdir()
        events = prepare(folders[0])
        store = open_store(load_config(folders[0]).service.store)
        with store.write() as session:
            key = keys.create(session, "benchmark", ["score"], days=1, now=datetime.now(UTC))
        store.close()
        shutil.copytree(folders[0], folders[1])
        with served(OWN, folders[0]) as own, served(given.other.resolve(), folders[1]) as other:
            clients = [(Client(address, key), pid) for address, pid in (own, other)]
            load = os.getloadavg()[0]
            found = by_turns(clients[0], clients[1], bodies(events), given.rounds)
    found |= {"load_before": load, "load_after": os.getloadavg()[0]}
    print(json.dumps({title: round(value, 2) for title, value in found.items()}))


if __name__ == "__main__":
    main()
