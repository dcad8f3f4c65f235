"""The way that rows take through the code: how many modules they visit, and how often it changes from one to another.

``python benchmarks/way.py [--transactions N] [--readings N]``; the last line is JSON. With ``PYTHONPATH`` set to
another checkout, that one is measured.

A batch is scored by the service's own job, with features of a card's history and one target for alerts; a second one
of sensors. Modules of ``detector`` and ``pipelines`` are counted that run in it, once a first batch has loaded all. A
change of module is a call whose caller is in another module, and the return from it; what other libraries do in
between does not count, and neither do imports. Resuming a generator is a call, and its yield a return.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Any

import pandas as pd
import yaml

OURS = ("detector", "pipelines")
MOST_PAIRS = 12
HISTORY = ["count by card_id over 1d", "ratio of amount by card_id over 30d", "new of device by card_id over 30d"]
TRANSACTIONS = {
    "columns": {
        "key": "transaction_id",
        "time": "time",
        "entity": "card_id",
        "numeric": ["amount"],
        "categorical": ["channel", "merchant_category"],
        "others": "ignore",
    },
    "features": {"history": HISTORY},
    "policy": {"quantile": 0.98},
    "train": {"autoencoder": {"enabled": False}, "neighbours": {"enabled": False}},
}
SENSORS = {
    "kind": "sensors",
    "columns": {"key": "id", "time": "time", "entity": "machine"},
    "policy": {"quantile": 0.99},
}


class Way:
    """Follows the calls of all threads within a ``with`` block."""

    def __init__(self) -> None:
        self.visits: Counter[str] = Counter()
        self.changes: Counter[tuple[str, str]] = Counter()
        self._local = threading.local()

    def __enter__(self) -> Way:
        threading.setprofile(self._follow)
        sys.setprofile(self._follow)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)
        threading.setprofile(None)

    def _follow(self, frame: FrameType, event: str, _: object) -> None:
        if event not in ("call", "return"):
            return
        module = str(frame.f_globals.get("__name__", ""))
        if module.partition(".")[0] not in OURS or frame.f_code.co_name == "<module>":
            return
        if not hasattr(self._local, "stack"):
            self._local.stack = []
        stack: list[str] = self._local.stack
        if event == "call":
            self.visits[module] += 1
            if stack and stack[-1] != module:
                self.changes[stack[-1], module] += 1
            stack.append(module)
        elif stack:
            stack.pop()
            if stack and stack[-1] != module:
                self.changes[module, stack[-1]] += 1

    def figures(self) -> dict[str, int]:
        """The two counts."""
        return {"modules": len(self.visits), "changes": sum(self.changes.values())}

    def report(self, title: str) -> None:
        """Print the counts and the pairs that change most, both directions together."""
        pairs: Counter[tuple[str, str]] = Counter()
        for (one, other), count in self.changes.items():
            pairs[min(one, other), max(one, other)] += count
        print(f"{title}: {len(self.visits)} modules, {sum(self.changes.values()):,} changes of module")
        for (one, other), count in pairs.most_common(MOST_PAIRS):
            print(f"{count:>8,}  {one} <> {other}")
        print()


def follow(folder: Path, settings: dict[str, Any], *, past: pd.DataFrame, batches: Sequence[pd.DataFrame]) -> Way:
    """Train on the past, score all batches but the last as a warm-up, and follow the last."""
    from pipelines.config import load_config
    from pipelines.progress import be_quiet
    from pipelines.store import Run, open_store

    try:
        from pipelines.service.instance import Service
    except ImportError:  # as it was called up to 4640342
        from pipelines.service.serve import Service  # type: ignore[attr-defined]

    be_quiet()
    (folder / "in").mkdir(parents=True)
    past.to_parquet(folder / "past.parquet")
    common = {"name": "way", "bundle": "bundle", "tracking": {"enabled": False}} | settings
    served = {
        "source": {"path": "in"},
        "output": {"path": "scores.parquet"},
        "service": {"settle": 0, "port": 0},
        "alerts": {"file": {"path": "alerts.jsonl"}, "log": {"enabled": False}},
    }
    for name, more in (("train", {"source": {"path": "past.parquet"}}), ("detector", served)):
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(common | more), encoding="utf-8")
    command = [sys.executable, "-m", "pipelines", "train", str(folder / "train.yaml")]
    done = subprocess.run(command, cwd=folder, env=_environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    config = load_config(folder / "detector.yaml")
    store = open_store(config.service.store)
    service = Service(config, store)
    service.leadership.lead()
    try:
        for number, batch in enumerate(batches):
            batch.to_parquet(folder / "in" / f"{number}.parquet")
            way = Way()
            with way:
                found = service.run_and_follow("score", trigger="command")
            with store.read() as session:
                run = session.get_one(Run, found)
                if run.rows != len(batch):
                    raise SystemExit(f"expected {len(batch)} rows to be scored, were {run.rows}: {run.error}")
    finally:
        store.close()
    return way


def transactions(folder: Path, rows: int) -> Way:
    """Payments of a few weeks; the last of them are scored."""
    from pipelines.simulate import simulate_transactions

    payments = simulate_transactions(4_000, seed=3, fraud_rate=0.05).drop(columns=["scenario", "reported_at"])
    past = len(payments) - 2 * rows
    cuts = [payments.iloc[past + rows * i : past + rows * (i + 1)] for i in range(2)]
    return follow(folder, TRANSACTIONS, past=payments.iloc[:past], batches=cuts)


def sensors(folder: Path, rows: int) -> Way:
    """Readings of one machine; the last of them are scored."""
    from pipelines.simulate import simulate_sensors

    length = 3_000 + 2 * rows
    readings = simulate_sensors(length, seed=3, machines=1, sensors=4, every=timedelta(minutes=1))
    readings = readings.drop(columns=["anomaly", "anomaly_kind", "anomaly_sensor"])
    readings.insert(0, "id", range(length))
    cuts = [readings.iloc[3_000 + rows * i : 3_000 + rows * (i + 1)] for i in range(2)]
    return follow(folder, SENSORS, past=readings.iloc[:3_000], batches=cuts)


def _environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "TF_CPP_MIN_LOG_LEVEL": "3"}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--transactions", type=int, default=100)
    parser.add_argument("--readings", type=int, default=200)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        payments = transactions(Path(folder) / "transactions", options.transactions)
        readings = sensors(Path(folder) / "sensors", options.readings)
    payments.report(f"{options.transactions} transactions")
    readings.report(f"{options.readings} readings of a machine")
    print(json.dumps({"transactions": payments.figures(), "readings": readings.figures()}))


if __name__ == "__main__":
    main()
