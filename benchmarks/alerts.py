"""Deliver 10,000 alerts to five channels with random faults and restarts, and measure how fast a webhook is served.

``python -m benchmarks.alerts [--alerts 10000] [--days 200]``

Alerts are enqueued day by day, with more events than the cap has room for. Delivery runs in processes of its own that
are killed (kill -9) at random moments, while the receivers answer 500, 429, hang up, break off, or are slow, at random.
Then the state is compared with what the receivers got. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pandas as pd
import sqlalchemy as sa
import yaml

from detector.explain.reason import Reason
from pipelines.alerts import enqueue
from pipelines.alerts.delivery.deliver import deliver
from pipelines.config import Config, load_config
from pipelines.jobs.context import Context
from pipelines.store import Store, open_store
from pipelines.store.alert_tables import Alert, AlertDay, Delivery

START = datetime(2026, 1, 1, 12, tzinfo=UTC)
CHANNELS = ("file", "webhook", "alertmanager", "pagerduty", "slack")
HONOUR_IDS = ("webhook", "alertmanager", "pagerduty")  # they keep one of two with the same id
SECRETS = {
    "BENCH_HOOK": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo=",
    "BENCH_KEY": "0123456789abcdef0123456789abcdef",
}
CHILD = """
import sys, time
from datetime import UTC, datetime
from pipelines.alerts.delivery.deliver import deliver
from pipelines.config import load_config
from pipelines.jobs.context import Context
from pipelines.store import Store
config = load_config(sys.argv[1])
store = Store(config.service.store)
while True:
    if deliver(Context(config=config, store=store, now=datetime.now(UTC))).outcome == "skipped":
        time.sleep(0.2)
"""


class Receivers:
    """One HTTP server for all channels, faulty at random; keeps the ids of what it took, one line a delivery."""

    def __init__(self, *, faults: float, seed: int = 0) -> None:
        self.taken: dict[str, Counter[str]] = {name: Counter() for name in CHANNELS}
        self.faults: Counter[str] = Counter()
        self.share = faults
        self._random, self._lock = random.Random(seed), threading.Lock()
        receivers = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                receivers.serve(self)

            def log_message(self, *_: Any) -> None:
                """Quiet."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: Any) -> None:
                """Clients are killed all the time."""

        Handler.wbufsize = -1
        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def serve(self, request: BaseHTTPRequestHandler) -> None:
        """Take a delivery, or make trouble before or after taking it."""
        body = request.rfile.read(int(request.headers["Content-Length"]))
        channel = request.path.strip("/").split("/")[0]
        with self._lock:
            draw, fault = self._random.random(), ""
            if draw < self.share:
                fault = self._random.choice(("500", "429", "close", "break", "taken then closed", "slow"))
                self.faults[fault] += 1
            if fault in ("", "break", "taken then closed", "slow"):
                self.taken[channel][_id_of(channel, request.headers.get("webhook-id"), body)] += 1
        if fault == "slow":
            time.sleep(0.05)
        if fault in ("close", "taken then closed"):
            request.close_connection = True
            return
        if fault == "break":
            request.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{")
            request.close_connection = True
            return
        request.send_response(int(fault) if fault.isdigit() else 200)
        if fault == "429":
            request.send_header("Retry-After", "0.05")
        request.send_header("Content-Length", "0")
        request.end_headers()


def _id_of(channel: str, header: str | None, body: bytes) -> str:
    if channel == "webhook":
        return str(header)
    values = json.loads(body)
    if channel == "alertmanager":
        return str(values[0]["annotations"]["alert_id"])
    if channel == "pagerduty":
        return str(values["payload"]["custom_details"]["alert"])
    return str(values["blocks"][-1]["elements"][0]["text"]).rpartition(" ")[2]


def configure(folder: Path, url: str, *, a_day: int, only: str = "") -> Config:
    """Write the configuration, with the secrets in the environment."""
    os.environ.update(SECRETS, BENCH_SLACK=f"{url}/slack/hook")
    channels: dict[str, Any] = {
        "webhook": {"url": f"{url}/webhook", "secrets": ["${BENCH_HOOK}"]},
        "alertmanager": {"url": f"{url}/alertmanager"},
        "pagerduty": {"routing_key": "${BENCH_KEY}", "url": f"{url}/pagerduty"},
        "slack": {"url": "${BENCH_SLACK}"},
    }
    values = {
        "name": "bench",
        "source": {"path": "rows.parquet"},
        "columns": {"key": "id", "time": "time", "entity": "card"},
        "alerts": {
            "a_day": a_day,
            "log": {"enabled": False},
            "file": {"enabled": only in ("", "file"), "path": "file.jsonl"},
            "allow_addresses": ["127.0.0.1"],
            "retry": {"timeout": 2, "first_seconds": 0.05, "most_seconds": 0.5},
        }
        | {name: section for name, section in channels.items() if only in ("", name)},
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "detector.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    return load_config(folder)


def fill(store: Store, config: Config, *, days: int, cap: int, surplus: int) -> int:
    """Enqueue more events a day than there is room for; how many alerts and digests came of it."""
    made = 0
    for day in range(days):
        now = START + timedelta(days=day)
        n = cap + surplus
        verdicts = pd.DataFrame(
            {
                "id": [f"{day}-{i}" for i in range(n)],
                "time": pd.Timestamp(now).tz_convert(None),
                "card": [f"card-{i % (2 * cap)}" for i in range(n)],
                "risk": [float(i) for i in range(n)],
                "p_value": 1e-4,
                "flagged": True,
                "severity": "high",
                "reasons": [[Reason("amount", "950.00", "about 42", 0.61)]] * n,
                "model_version": "abc123",
            }
        )
        with store.write() as session:
            made += len(enqueue(session, verdicts, config=config, now=now))
    return made


def storm(folder: Path, *, alerts: int, days: int, faults: float, seconds: float) -> dict[str, Any]:
    """Deliver through faults and restarts; what is lost, doubled or beyond the cap."""
    receivers, cap = Receivers(faults=faults), alerts // days
    config = configure(folder, receivers.url, a_day=cap)
    store = open_store(config.service.store)
    made = fill(store, config, days=days, cap=cap, surplus=5)
    with store.write() as session:  # the days are past: nothing is too old yet
        session.execute(sa.update(Delivery).values(created_at=datetime.now(UTC)))
    draw, started, kills = random.Random(1), time.perf_counter(), 0
    while _open(store) and time.perf_counter() - started < seconds:
        child = subprocess.Popen([sys.executable, "-c", CHILD, str(folder)], cwd=Path(__file__).parents[1])
        try:
            before = _open(store)
            while _open(store) == before and time.perf_counter() - started < seconds:
                time.sleep(0.1)  # until it has come up
            until = time.perf_counter() + draw.uniform(0, 20)
            while time.perf_counter() < until and _open(store):
                time.sleep(0.1)
        finally:
            child.kill()
            child.wait()
        if _open(store):
            kills += 1
            _shorten_leases(store)
            print(f"killed {kills} times, {_open(store):,} deliveries to go", flush=True)
    while _open(store):  # what is left when the time for restarts is over
        outcome = deliver(Context(config=config, store=store, now=datetime.now(UTC)))
        time.sleep(0.0 if outcome.rows else 0.1)
    return _compare(store, receivers, folder, cap=cap, made=made) | {
        "alerts": made,
        "days": days,
        "cap": cap,
        "restarts": kills,
        "faults": sum(receivers.faults.values()),
        "seconds": round(time.perf_counter() - started, 1),
    }


def _open(store: Store) -> int:
    with store.read() as session:
        return int(session.scalar(sa.select(sa.func.count()).where(Delivery.state == "waiting")) or 0)


def _shorten_leases(store: Store) -> None:
    """Do not wait for leases of the process that was killed: this is what their end does."""
    with store.write() as session:
        now = datetime.now(UTC)
        session.execute(
            sa.update(Delivery).where(Delivery.state == "waiting", Delivery.next_at > now).values(next_at=now)
        )


def _compare(store: Store, receivers: Receivers, folder: Path, *, cap: int, made: int) -> dict[str, Any]:
    with store.read() as session:
        wanted = set(session.scalars(sa.select(Alert.id)))
        most = session.scalar(sa.select(sa.func.max(AlertDay.told)))
        told = session.scalar(sa.select(sa.func.count()).where(Alert.kind != "digest"))
        dead = session.scalar(sa.select(sa.func.count()).where(Delivery.state == "dead"))
        days = session.scalar(sa.select(sa.func.count(AlertDay.day)))
    lines = (folder / "file.jsonl").read_text(encoding="utf-8").splitlines()
    receivers.taken["file"] = Counter(json.loads(line)["id"] for line in lines)
    lost = {name: len(wanted - set(taken)) for name, taken in receivers.taken.items()}
    again = {name: sum(taken.values()) - len(taken) for name, taken in receivers.taken.items()}
    strange = {name: len(set(taken) - wanted) for name, taken in receivers.taken.items()}
    return {
        "lost": sum(lost.values()),
        "unknown_ids": sum(strange.values()),
        "dead": dead,
        "sent_again_with_the_same_id": again,
        "duplicates_where_ids_are_honoured": sum(max(0, len(set(receivers.taken[name])) - made) for name in HONOUR_IDS),
        "most_told_in_a_day": most,
        "beyond_the_cap": max(0, int(told or 0) - cap * int(days or 0)),
    }


RECEIVER = """
import time
from benchmarks.alerts import Receivers
receivers = Receivers(faults=0.0)
print(receivers.url, flush=True)
time.sleep(3600)
"""


def throughput(folder: Path, *, alerts: int) -> float:
    """Deliveries a second to a local webhook that answers at once, in a process of its own."""
    command = [sys.executable, "-c", RECEIVER]
    receiver = subprocess.Popen(command, cwd=Path(__file__).parents[1], stdout=subprocess.PIPE, text=True)
    try:
        url = receiver.stdout.readline().strip() if receiver.stdout is not None else ""
        config = configure(folder, url, a_day=alerts, only="webhook")
        store = open_store(config.service.store)
        fill(store, config, days=1, cap=alerts, surplus=0)
        started = time.perf_counter()
        outcome = deliver(Context(config=config, store=store, now=START), most_seconds=600)
        return outcome.rows / (time.perf_counter() - started)
    finally:
        receiver.kill()
        receiver.wait()


def main() -> None:
    """Run both parts, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--alerts", type=int, default=10_000)
    parser.add_argument("--days", type=int, default=50)
    parser.add_argument("--faults", type=float, default=0.02)
    parser.add_argument("--seconds", type=float, default=900.0)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        rate = throughput(Path(name) / "fast", alerts=min(chosen.alerts, 5_000))
        print(f"{rate:,.0f} deliveries a second to a local webhook", flush=True)
        found = storm(
            Path(name) / "storm", alerts=chosen.alerts, days=chosen.days, faults=chosen.faults, seconds=chosen.seconds
        )
    print(json.dumps(found | {"deliveries_a_second": round(rate)}))


if __name__ == "__main__":
    main()
