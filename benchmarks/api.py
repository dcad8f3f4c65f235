"""Measure how long ``detector serve`` takes to score events that a program asks about, and its memory.

``python -m benchmarks.api [--requests 500]``

Payments with two features of a card's past, a detector of forest and neighbours, one client over one connection, all
on this machine. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import http.client
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

from benchmarks.service import memory_of
from pipelines.api import keys
from pipelines.config import load_config
from pipelines.simulate import simulate_transactions
from pipelines.store import open_store
from pipelines.training.train import train

LEARNT, SCORED, ASKED, BATCH = 20_000, 4_000, 1_000, 1_000
SETTINGS: dict[str, Any] = {
    "name": "payments",
    "source": {"path": "past.parquet"},
    "columns": {
        "key": "transaction_id",
        "time": "time",
        "entity": "card_id",
        "label": "is_fraud",
        "numeric": ["amount"],
        "categorical": ["merchant_category", "country"],
        "others": "ignore",
    },
    "features": {"history": ["count by card_id over 1d", "ratio of amount by card_id over 30d"]},
    "train": {"autoencoder": {"enabled": False}},
    "policy": {"quantile": 0.999},
    "output": {"path": "scores.parquet"},
    "tracking": {"enabled": False},
    "alerts": {"enabled": False},
    "service": {"port": 0, "settle": 0, "api": {"per_second": 10_000}},
}


def prepare(folder: Path) -> list[dict[str, Any]]:
    """Train a detector, put rows where the service looks for them, and return others to ask about."""
    start = datetime.now(UTC).replace(tzinfo=None) - timedelta(days=60)
    rows = simulate_transactions(LEARNT + SCORED + ASKED, start=start, days=60, seed=0)
    (folder / "in").mkdir()
    rows.iloc[:LEARNT].to_parquet(folder / "past.parquet")
    (folder / "detector.yaml").write_text(yaml.safe_dump(SETTINGS))
    train(load_config(folder), now=datetime.now(UTC))
    (folder / "detector.yaml").write_text(yaml.safe_dump(SETTINGS | {"source": {"path": "in"}}))
    rows.iloc[LEARNT : LEARNT + SCORED].to_parquet(folder / "in" / "first.parquet")
    asked = rows.iloc[LEARNT + SCORED :].drop(columns="is_fraud")
    found: list[dict[str, Any]] = json.loads(asked.to_json(orient="records", date_format="iso", date_unit="us"))
    return found


class Client:
    """One connection with a key."""

    def __init__(self, address: str, key: str) -> None:
        host, _, port = address.removeprefix("http://").partition(":")
        self._line = http.client.HTTPConnection(host, int(port), timeout=60)
        self._headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}

    def score(self, body: dict[str, Any]) -> float:
        """Ask, and return the seconds until the answer was read."""
        sent = json.dumps(body)
        started = time.perf_counter()
        self._line.request("POST", "/v1/score", body=sent, headers=self._headers)
        answer = self._line.getresponse()
        said = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"the service answered {answer.status}: {said.decode()[:500]}")
        return time.perf_counter() - started


def measure(client: Client, events: Sequence[dict[str, Any]], requests: int) -> dict[str, float]:
    """Milliseconds for one event, as a dry run and kept; rows a second of a batch."""
    found: dict[str, float] = {}
    for name, dry in (("dry", True), ("kept", False)):
        times = [
            1e3 * client.score({"event": events[number % len(events)], "dry_run": dry}) for number in range(requests)
        ]
        found |= {
            f"{name}_median_ms": statistics.median(times),
            f"{name}_p99_ms": sorted(times)[int(0.99 * len(times))],
        }
    batch = [events[number % len(events)] | {"transaction_id": f"b{number}"} for number in range(BATCH)]
    seconds = statistics.median(client.score({"events": batch, "dry_run": True}) for _ in range(10))
    return found | {"batch_rows_a_second": BATCH / seconds}


def main(words: Sequence[str] | None = None) -> None:
    """Print what was measured."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--requests", type=int, default=500)
    given = parser.parse_args(words)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        events = prepare(folder)
        store = open_store(load_config(folder).service.store)
        with store.write() as session:
            key = keys.create(session, "benchmark", ["score"], days=1, now=datetime.now(UTC))
        store.close()
        log = folder / "log"
        with log.open("w") as stream:
            process = subprocess.Popen([sys.executable, "-m", "pipelines", "serve", name], stderr=stream)
        try:
            while "scored 4,000" not in log.read_text():
                time.sleep(0.5)
            time.sleep(5)
            idle = memory_of(process.pid)
            address = re.findall(r"answering on (http://[0-9.]+:[0-9]+)", log.read_text())[0]
            client = Client(address, key)
            for event in events[:20]:
                client.score({"event": event, "dry_run": True})
            found = measure(client, events, given.requests) | {"idle_mb": idle, "used_mb": memory_of(process.pid)}
        finally:
            process.terminate()
            process.wait(60)
    for title, value in found.items():
        print(f"{title:22} {value:10,.1f}")
    print(json.dumps({title: round(value, 1) for title, value in found.items()}))


if __name__ == "__main__":
    main()
