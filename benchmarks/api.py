"""Measure how long ``detector serve`` takes to score events that a program asks about, and its memory.

``python -m benchmarks.api [--requests 500] [--plain]``

Payments with two features of a card's past (none with ``--plain``), a detector of forest and neighbours, client and
service on this machine: a thousand in one request, as JSON and as Arrow; one event after the other on one connection,
50 and 200 a second on four, the latter also held; a thousand again, beside those that are held; and as many as can be,
by turns with ``mlflow models serve`` of the same detector. The last line is one JSON object; the load of the machine,
which others may use as well, is in it.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml

from benchmarks.service import memory_of
from pipelines.api import keys
from pipelines.api.events import ARROW, JSON
from pipelines.config import load_config
from pipelines.simulate import simulate_transactions
from pipelines.store import open_store
from pipelines.training.train import train

LEARNT, SCORED, ASKED, BATCH, BATCHES, WARM_UP = 20_000, 4_000, 1_000, 1_000, 30, 3
RATE, SECONDS, CLIENTS, ROUNDS = 200.0, 10.0, 4, 3
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


def prepare(folder: Path, settings: dict[str, Any] = SETTINGS) -> list[dict[str, Any]]:
    """Train a detector, put rows where the service looks for them, and return others to ask about."""
    start = datetime.now(UTC).replace(tzinfo=None) - timedelta(days=60)
    rows = simulate_transactions(LEARNT + SCORED + ASKED, start=start, days=60, seed=0)
    (folder / "in").mkdir()
    rows.iloc[:LEARNT].to_parquet(folder / "past.parquet")
    (folder / "detector.yaml").write_text(yaml.safe_dump(settings))
    train(load_config(folder), now=datetime.now(UTC))
    (folder / "detector.yaml").write_text(yaml.safe_dump(settings | {"source": {"path": "in"}}))
    rows.iloc[LEARNT : LEARNT + SCORED].to_parquet(folder / "in" / "first.parquet")
    asked = rows.iloc[LEARNT + SCORED :].drop(columns="is_fraud")
    found: list[dict[str, Any]] = json.loads(asked.to_json(orient="records", date_format="iso", date_unit="us"))
    return found


class Client:
    """One connection with a key."""

    def __init__(self, address: str, key: str = "", *, path: str = "/v1/score") -> None:
        host, _, port = address.removeprefix("http://").partition(":")
        self._line = http.client.HTTPConnection(host, int(port), timeout=60)
        self._key = {"Authorization": f"Bearer {key}"}
        self._path = path

    def score(self, body: dict[str, Any]) -> float:
        """Ask, and return the seconds until the answer was read."""
        return self._send(json.dumps(body).encode(), {"Content-Type": JSON})

    def score_stream(self, table: pa.Table) -> float:
        """The same by an Arrow stream, answered by one, without keeping."""
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(table)
        return self._send(sink.getvalue().to_pybytes(), {"Content-Type": ARROW, "Accept": ARROW}, "?dry_run=true")

    def _send(self, body: bytes, headers: dict[str, str], query: str = "") -> float:
        started = time.perf_counter()
        self._line.request("POST", self._path + query, body=body, headers=self._key | headers)
        answer = self._line.getresponse()
        said = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"the service answered {answer.status}: {said.decode()[:500]}")
        return time.perf_counter() - started

    def close(self) -> None:
        """Close the connection; it is opened anew with the next request."""
        self._line.close()


def steady(clients: Sequence[Client], bodies: Sequence[dict[str, Any]], *, rate: float, seconds: float) -> list[float]:
    """Milliseconds from when each of ``rate`` requests a second was due until its answer was read."""
    begin, waited = time.perf_counter() + 0.1, list[float]()

    def ask(which: int) -> None:
        for number in range(which, int(rate * seconds), len(clients)):
            due = begin + number / rate
            time.sleep(max(0.0, due - time.perf_counter()))
            clients[which].score(bodies[number % len(bodies)])
            waited.append(1e3 * (time.perf_counter() - due))

    _at_once(ask, len(clients))
    return sorted(waited)


def throughput(clients: Sequence[Client], bodies: Sequence[dict[str, Any]], *, seconds: float) -> float:
    """Requests a second that are answered, one after the other on each connection."""
    begin, done = time.perf_counter(), list[int]()

    def ask(which: int) -> None:
        number = which
        while time.perf_counter() < begin + seconds:
            clients[which].score(bodies[number % len(bodies)])
            number += len(clients)
            done.append(number)

    _at_once(ask, len(clients))
    return len(done) / (time.perf_counter() - begin)


def _at_once(work: Callable[[int], None], number: int) -> None:
    with ThreadPoolExecutor(number) as pool:
        list(pool.map(work, range(number)))


@contextmanager
def mlflow_server(folder: Path) -> Iterator[str]:
    """`mlflow models serve` of the same detector, with one worker; yields its address."""
    import mlflow

    config = load_config(folder)
    model = folder / "mlflow"
    mlflow.pyfunc.save_model(
        model,
        loader_module="pipelines.pyfunc",
        data_path=str(config.bundle.resolve()),
        model_config={"policy": SETTINGS["policy"]},
        pip_requirements=["mlflow"],
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", str(model), "-p", str(port)]
    with (folder / "mlflow.log").open("w") as log:
        process = subprocess.Popen(
            [*command, "--env-manager", "local", "-w", "1"],
            stdout=log,
            stderr=log,
            start_new_session=True,
            env={
                **os.environ,
                "PYTHONPATH": str(Path(__file__).parents[1]),
                "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",  # for its uvicorn
            },
        )
    try:
        address = f"http://127.0.0.1:{port}"
        for _ in range(600):
            with suppress(OSError):
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            if process.poll() is not None:
                raise RuntimeError(f"mlflow ended: {(folder / 'mlflow.log').read_text()[-2_000:]}")
            time.sleep(0.5)
        yield address
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(60)


def processor_ms(pid: int) -> float:
    """Milliseconds of processor time that a process has had: others on the machine change it less than the clock."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return 1e3 * (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(clients: Sequence[Client], events: Sequence[dict[str, Any]], requests: int, pid: int) -> dict[str, float]:
    """Rows a second of a batch; milliseconds for one event, as a dry run and kept, and at a steady rate.

    ``pid`` is the service, whose processor time is taken beside.
    """
    client = clients[0]
    batch = [events[number % len(events)] | {"transaction_id": f"b{number}"} for number in range(BATCH)]
    found = measure_batches(client, batch, pid)
    for name, dry in (("dry", True), ("kept", False)):
        had = processor_ms(pid)
        times = [
            1e3 * client.score({"event": events[number % len(events)], "dry_run": dry}) for number in range(requests)
        ]
        found |= {
            f"{name}_median_ms": statistics.median(times),
            f"{name}_p99_ms": sorted(times)[int(0.99 * len(times))],
            f"{name}_processor_ms": (processor_ms(pid) - had) / requests,
        }
    # An amount with a space is read by frames, like whatever is not plain: the same event, the longer way.
    odd = [{"event": event | {"amount": f" {event['amount']}"}, "dry_run": True} for event in events]
    found["frames_median_ms"] = statistics.median(
        1e3 * client.score(odd[number % len(odd)]) for number in range(requests // 4)
    )
    kept = [{"event": event | {"transaction_id": f"s{number}"}} for number, event in enumerate(events)]
    for rate, dry in ((RATE / 4, True), (RATE, True), (RATE, False)):
        had = processor_ms(pid)
        waited = steady(clients, [body | {"dry_run": dry} for body in kept], rate=rate, seconds=SECONDS)
        name = f"{rate:.0f}_a_second" if dry else f"{rate:.0f}_kept_a_second"
        found |= {
            f"{name}_median_ms": statistics.median(waited),
            f"{name}_p99_ms": waited[int(0.99 * len(waited))],
            f"{name}_processor_ms": (processor_ms(pid) - had) / len(waited),
        }
    client.close()  # it may have lain idle
    beside = measure_batches(client, batch, pid)
    return found | {f"beside_held_{name}": value for name, value in beside.items()}


def measure_batches(client: Client, batch: Sequence[dict[str, Any]], pid: int) -> dict[str, float]:
    """Rows a second of requests of many events, none of which is kept, as JSON and as Arrow."""
    table, found = pa.Table.from_pylist(batch), dict[str, float]()
    bodies: dict[str, Callable[[], float]] = {
        "batch": lambda: client.score({"events": batch, "dry_run": True}),
        "arrow": lambda: client.score_stream(table),
    }
    for name, ask in bodies.items():
        for _ in range(WARM_UP):
            ask()
        had = processor_ms(pid)
        seconds = statistics.median(ask() for _ in range(BATCHES))
        found |= {
            f"{name}_rows_a_second": len(batch) / seconds,
            f"{name}_processor_ms": (processor_ms(pid) - had) / BATCHES,
        }
    return found


def beside_mlflow(folder: Path, clients: Sequence[Client], events: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Requests a second of one event each, by turns with `mlflow models serve`, which is given the features."""
    ours = [{"event": event, "dry_run": True} for event in events]
    config = load_config(folder)
    measured = config.features.feature_set(config.columns).names if config.features.wanted else ()
    features = dict.fromkeys(measured, 1.0)
    theirs = [{"dataframe_records": [event | features]} for event in events]
    rates: dict[str, list[float]] = {"ours": [], "mlflow": []}
    with mlflow_server(folder) as address:
        others = [Client(address, path="/invocations") for _ in clients]
        others[0].score(theirs[0])
        for _ in range(ROUNDS):
            for each in (*clients, *others):
                each.close()  # a server closes what lies idle
            rates["ours"].append(throughput(clients, ours, seconds=SECONDS / 2))
            rates["mlflow"].append(throughput(others, theirs, seconds=SECONDS / 2))
    found = {f"{name}_a_second": statistics.median(each) for name, each in rates.items()}
    ratio = statistics.median(own / other for own, other in zip(*rates.values(), strict=True))
    return found | {"times_mlflow": ratio}


def main(words: Sequence[str] | None = None) -> None:
    """Print what was measured."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--requests", type=int, default=500)
    parser.add_argument("--plain", action="store_true")
    given = parser.parse_args(words)
    settings = {name: value for name, value in SETTINGS.items() if name != "features" or not given.plain}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        events = prepare(folder, settings)
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
            clients = [Client(address, key) for _ in range(CLIENTS)]
            for event in events[:20]:
                clients[0].score({"event": event, "dry_run": True})
            found = {"load_before": os.getloadavg()[0]} | measure(clients, events, given.requests, process.pid)
            found |= {"load_after": os.getloadavg()[0], "idle_mb": idle, "used_mb": memory_of(process.pid)}
            print(json.dumps(found), flush=True)
            found |= beside_mlflow(folder, clients, events)
        finally:
            process.terminate()
            process.wait(60)
    for title, value in found.items():
        print(f"{title:22} {value:10,.1f}")
    print(json.dumps({title: round(value, 1) for title, value in found.items()}))


if __name__ == "__main__":
    main()
