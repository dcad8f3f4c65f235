"""Alerts from end to end: a real service that is killed, real receivers on loopback, an answer by the link."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import sqlalchemy as sa
import yaml
from aiosmtpd.controller import Controller
from typer.testing import CliRunner

from detector.detectors.table.detector import TabularDetector
from detector.persist.bundle import save
from detector.schema import Schema
from pipelines.cli import app
from pipelines.config import load_config
from pipelines.store import Store
from pipelines.store.alert_tables import Alert, Delivery
from tests.alert_places import SECRET, Receiver, free_port, receiver

ROOT = Path(__file__).parents[1]
VARIABLES = {"HOOK": SECRET, "LINKS": "a secret to sign links with"}
OFF = {name: {"enabled": False} for name in ("retrain", "drift", "housekeeping")}
SECONDS = 60.0


class Mailbox:
    """Keeps what is delivered."""

    def __init__(self) -> None:
        self.mails: list[Any] = []

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802 - the library's name
        """Take a mail."""
        self.mails.append(message_from_bytes(envelope.content, policy=policy.default))
        return "250 OK"

    @property
    def ids(self) -> list[str]:
        """The alerts that mails were about."""
        return [mail["Message-ID"].strip("<>").partition("@")[0] for mail in self.mails]


@contextmanager
def mail_server() -> Iterator[tuple[Mailbox, int]]:
    box = Mailbox()
    controller = Controller(box, hostname="127.0.0.1", port=free_port())
    controller.start()
    try:
        yield box, controller.port
    finally:
        controller.stop()


def payments(rows: int, *, first: int, seed: int, odd: int = 0) -> pd.DataFrame:
    """Payments of three cards; the last ``odd`` are far too large, and fraud."""
    rng = np.random.default_rng(seed)
    amounts = rng.normal(40, 5, rows).round(2)
    amounts[rows - odd :] = 5_000.0 + np.arange(odd)
    return pd.DataFrame(
        {
            "id": np.arange(first, first + rows),
            "at": pd.Timestamp("2026-01-01") + pd.to_timedelta(np.arange(first, first + rows), unit="m"),
            "card": [f"card-{i % 3}" for i in range(rows)],
            "amount": amounts,
            "fee": rng.normal(1, 0.1, rows).round(4),
        }
    )


def project(folder: Path, hook: Receiver, mail_port: int) -> str:
    """A detector, its configuration, and a folder of input; the address of the service to be."""
    schema = Schema(key="id", time="at", entity="card", numeric=("amount", "fee"), label="fraud")
    detector = TabularDetector(schema=schema, members=("forest",), trees=20)
    learnt = payments(600, first=0, seed=0).assign(fraud=0)
    save(detector.fit(learnt).scorer_, folder / "bundle")
    port = free_port()
    values = {
        "name": "cards",
        "source": {"path": "in"},
        "columns": {"key": "id", "time": "at", "entity": "card", "label": "fraud"},
        "policy": {"quantile": 0.99},
        "output": {"path": "scores.parquet"},
        "tracking": {"enabled": False},
        "alerts": {
            "answers": {"url": f"http://127.0.0.1:{port}", "secret": "${LINKS}"},
            "webhook": {"url": hook.url, "secrets": ["${HOOK}"]},
            "email": {
                "host": "127.0.0.1",
                "port": mail_port,
                "tls": "none",
                "sender": "detector@example.com",
                "to": ["risk@example.com"],
            },
            "allow_addresses": ["127.0.0.1"],
            "retry": {"timeout": 2.0},
        },
        "service": {
            "settle": 0,
            "lease": 2.0,
            "port": port,
            "log": "json",
            "jobs": OFF | {"score": {"when": "every 1s"}, "deliver": {"when": "every 1s"}},
        },
    }
    (folder / "detector.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    (folder / "in").mkdir()
    return f"http://127.0.0.1:{port}"


@contextmanager
def serving(folder: Path, *, fault: str = "") -> Iterator[subprocess.Popen[bytes]]:
    """`detector serve` in a process of its own."""
    environment = os.environ | VARIABLES | {"PYTHONPATH": str(ROOT), "DETECTOR_FAULT": fault}
    with (folder / "serve.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "pipelines", "serve", str(folder)], stdout=log, stderr=log, env=environment
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait(20)


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert condition()


def states_of(store: Store) -> dict[str, list[str]]:
    """For each alert the states of its deliveries."""
    with store.read() as session:
        found = session.execute(sa.select(Alert.id, Delivery.state).join(Delivery, Delivery.alert == Alert.id))
        states: dict[str, list[str]] = {}
        for alert, state in found:
            states.setdefault(alert, []).append(state)
    return states


def end_leases(store: Store) -> None:
    """Do not wait for the lease of the process that was killed: this is what its end does."""
    with store.write() as session:
        session.execute(sa.update(Delivery).where(Delivery.state == "waiting").values(next_at=datetime.now(UTC)))


def file_ids(folder: Path) -> set[str]:
    lines = (folder / "alerts.jsonl").read_text(encoding="utf-8").splitlines()
    return {json.loads(line)["id"] for line in lines}


@pytest.mark.slow
def test_alerts_survive_kills_and_are_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed between commit and send, and between send and acknowledgement, the same ids come; a link answers one."""
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    with receiver() as hook, mail_server() as (box, mail_port):
        service = project(tmp_path, hook, mail_port)
        payments(30, first=1_000, seed=1, odd=3).to_parquet(tmp_path / "in" / "1.parquet")

        with serving(tmp_path, fault="alerts.claimed:1") as killed:
            assert killed.wait(SECONDS) == -signal.SIGKILL
        store = Store(load_config(tmp_path).service.store)
        enqueued = states_of(store)
        assert len(enqueued) == 3
        assert (hook.got, box.mails) == ([], [])
        assert {state for states in enqueued.values() for state in states} == {"waiting"}

        end_leases(store)
        with serving(tmp_path, fault="alerts.sent:2") as killed:
            assert killed.wait(SECONDS) == -signal.SIGKILL
        first = {*hook.ids, *box.ids, *(file_ids(tmp_path) if (tmp_path / "alerts.jsonl").exists() else ())}
        assert first <= set(enqueued)

        end_leases(store)
        with serving(tmp_path):
            wait_until(lambda: {s for states in states_of(store).values() for s in states} == {"sent"})
            assert set(states_of(store)) == set(enqueued) == set(hook.ids) == set(box.ids) == file_ids(tmp_path)
            worst = next(body["data"] for body in hook.bodies if body["data"]["about"] == "card-2")
            text = box.mails[0].get_body(("plain",)).get_content()
            assert worst["answer_url"].startswith(f"{service}/alerts/answer/")
            assert "amount is 5,00" in text
            assert re.search(rf"Fraud, or fine\? {service}/alerts/answer/\S+", text)
            form = urllib.parse.urlencode({"verdict": "fraud", "who": "ann", "reason": "never used before"}).encode()
            with urllib.request.urlopen(worst["answer_url"], data=form, timeout=10) as page:
                assert page.status == 200
        store.close()

    shown = CliRunner().invoke(app, ["alerts", "show", str(tmp_path), worst["id"]])
    counted = CliRunner().invoke(app, ["alerts", "list", str(tmp_path), "--precision"], env={"COLUMNS": "160"})
    rows = payments(30, first=1_000, seed=1, odd=3).drop(columns="at")
    rows = rows.assign(at=payments(30, first=1_000, seed=1)["at"], fraud=[0.0] * 27 + [None] * 3)
    rows.to_parquet(tmp_path / "later.parquet")
    evaluated = CliRunner().invoke(app, ["evaluate", str(tmp_path), "--input", str(tmp_path / "later.parquet")])
    assert re.search(r"fraud by ann, .*, via webhook: never used before", shown.output)
    assert re.search(r"\S+ +webhook +amount +3 +1 +1 +100 %", counted.output)
    assert "28 labelled, 1 anomalous" in evaluated.output
    assert "Of these, 1 row labelled by reports or answers to alerts." in evaluated.output
    assert "Alerts that people answered and that were fraud: email 1 of 1, file 1 of 1" in evaluated.output
