"""What the tests of alerts share: verdicts, a configuration, and receivers on loopback that can misbehave."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pandas as pd
import sqlalchemy as sa
import yaml

from detector.explain.reason import Reason
from pipelines.alerts.delivery.deliver import deliver
from pipelines.alerts.outbox.enqueue import enqueue
from pipelines.config import Config, load_config
from pipelines.jobs.context import Context, JobOutcome
from pipelines.store import Store, open_store
from pipelines.store.alert_tables import Alert, Delivery

NOW = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo="
REASONS = (Reason("amount", "950.00", "about 42", 0.61), Reason("country", "pl", "de", 0.2))


def rows(
    *given: tuple[str, float, str], reasons: Sequence[Reason] = REASONS, flagged: bool = True, **columns: Any
) -> pd.DataFrame:
    """Verdicts: who, minutes after 09:00, severity; further columns the same for all rows."""
    p_values = {"low": 5e-3, "medium": 5e-4, "high": 5e-5, "critical": 1e-6, "": 0.5}
    start = pd.Timestamp("2026-03-02 09:00")
    frame = pd.DataFrame(
        {
            "transaction_id": [f"t{i}" for i in range(len(given))],
            "time": [start + pd.Timedelta(minutes=minutes) for _, minutes, _ in given],
            "card_id": [who for who, _, _ in given],
            "risk": [10.0 - i * 0.001 for i in range(len(given))],
            "p_value": [p_values[severity] for _, _, severity in given],
            "flagged": flagged,
            "severity": [severity for _, _, severity in given],
            "reasons": [list(reasons) if flagged else [] for _ in given],
            "model_version": "abc123def456",
        }
    )
    return frame.assign(**columns)


def config_in(folder: Path, **alerts: Any) -> Config:
    """A configuration whose alerts go nowhere but where is said."""
    values = {
        "name": "payments",
        "source": {"path": "payments.parquet"},
        "columns": {"key": "transaction_id", "time": "time", "entity": "card_id"},
        "tracking": {"enabled": False},
        "alerts": {
            "file": {"enabled": False},
            "log": {"enabled": False},
            "allow_addresses": ["127.0.0.1"],
            "retry": {"timeout": 1.0},
        }
        | alerts,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "detector.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    return load_config(folder)


def store_in(folder: Path) -> Store:
    """A new state."""
    return open_store(f"sqlite:///{folder}/service.db")


def give(store: Store, config: Config, verdicts: pd.DataFrame, *, now: datetime = NOW) -> list[dict[str, Any]]:
    """Enqueue in a transaction of its own; the alerts as plain values."""
    with store.write() as session:
        made = enqueue(session, verdicts, config=config, now=now)
        session.flush()
        names = [column.key for column in sa.inspect(Alert).columns]
        return [{name: getattr(alert, name) for name in names} for alert in made]


def run(store: Store, config: Config, *, now: datetime = NOW, seconds: float = 20.0) -> JobOutcome:
    """Deliver what is due at that time."""
    return deliver(Context(config=config, store=store, now=now), most_seconds=seconds)


def deliveries(store: Store, **where: Any) -> list[dict[str, Any]]:
    """Deliveries as plain values, in order."""
    with store.read() as session:
        found = session.scalars(sa.select(Delivery).filter_by(**where).order_by(Delivery.id)).all()
        names = [column.key for column in sa.inspect(Delivery).columns]
        return [{name: getattr(each, name) for name in names} for each in found]


class Receiver:
    """An HTTP server on loopback that keeps what it gets and answers as told."""

    def __init__(self) -> None:
        self.got: list[tuple[str, dict[str, str], bytes]] = []
        self.answer: Callable[[int], tuple[int, Mapping[str, str], bytes] | str] = lambda _: (200, {}, b"ok")
        self._lock = threading.Lock()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                headers = {name.lower(): value for name, value in self.headers.items()}
                with receiver._lock:
                    receiver.got.append((self.path, headers, body))
                    number = len(receiver.got)
                answer = receiver.answer(number)
                if answer == "hang":
                    time.sleep(8)
                    self.close_connection = True
                    return
                if answer == "close":
                    self.close_connection = True
                    return
                if answer == "break":
                    self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
                    self.close_connection = True
                    return
                assert not isinstance(answer, str)
                status, more, content = answer
                self.send_response(status)
                for name, value in more.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                """Quiet."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, *_: Any) -> None:
                """A client that has gone is no error here."""

        self.server = Server(("127.0.0.1", 0), Handler)
        self.port = int(self.server.server_address[1])
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    @property
    def bodies(self) -> list[Any]:
        """What came, read as JSON."""
        return [json.loads(body) for _, _, body in self.got]

    @property
    def ids(self) -> list[str]:
        """The ids of webhooks that came."""
        return [headers["webhook-id"] for _, headers, _ in self.got]

    def close(self) -> None:
        """Stop."""
        self.server.shutdown()
        self.server.server_close()
        self._thread.join(5)


@contextmanager
def receiver() -> Iterator[Receiver]:
    """A server that ends with the block."""
    server = Receiver()
    try:
        yield server
    finally:
        server.close()


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
