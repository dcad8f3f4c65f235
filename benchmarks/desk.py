"""How long the console and the API take over a large state: the queue of many open alerts, what-if over many rows.

``python -m benchmarks.desk [--alerts 100000] [--rows 5000000] [--times 20] [--store URL]``

Alerts and stored scores are made in a folder that is thrown away, or the alerts in the empty database of ``--store``.
Pages are asked for over HTTP, by one client on the same machine. Milliseconds: the median and the worst of the times;
of the what-if the first, which reads the scores, and the median of those after it, each with another policy. The last
line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import requests
import sqlalchemy as sa
import yaml

from benchmarks.soak import Site, train
from pipelines.api import keys
from pipelines.config import Config, load_config
from pipelines.console.standalone import served_alone
from pipelines.store import Batch, ScoreFile, Store, open_store
from pipelines.store.alert_tables import Alert

NOW = datetime.now(UTC)
DAYS = 30
A_TIME, A_FILE = 20_000, 500_000
MADE = 200_000
"""Alerts that are made; those beyond are copies of them, which the database makes under other names."""
RULES = [
    {"name": "cheap", "when": "amount < 1", "state": "live"},
    {"name": "known", "when": "amount > 1000", "action": "never", "state": "live"},
]
HITS = ("", "cheap", "known", "cheap, known")
SEVERITIES = ("low", "medium", "high", "critical")
SHARES = (0.6, 0.3, 0.08, 0.02)
PAGES = {
    "queue": "/console/",
    "high ones": "/console/?severity=high",
    "of one card": "/console/?about=card-77",
    "newest": "/console/?order=newest",
    "all": "/console/?state=all",
    "snoozed": "/console/?state=snoozed",
    "answered": "/console/?state=answered",
    "of one person": "/console/?assignee=kim",
    "of a rare reason": "/console/?pattern=merchant",
    "health": "/console/health",
    "api": "/v1/alerts",
}


def project(folder: Path, store: str) -> Config:
    """A project of small rows with times and amounts."""
    site = Site(folder / "project", train(folder), "files to files", store=store)
    path = site.folder / "detector.yaml"
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    values |= {"columns": {"key": "id", "time": "at"}, "policy": {"budget": {"rows": 100, "per": "day"}}}
    values |= {"alerts": {"amount": "amount", "log": {"enabled": False}}, "rules": RULES}
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return load_config(site.folder)


def add_alerts(store: Store, config: Config, number: int) -> None:
    """Open alerts of the last days, as the outbox writes them."""
    rng = np.random.default_rng(0)
    reason = {"feature": "amount", "observed": "950.00", "expected": "about 42", "share": 0.6, "words": ""}
    for first in range(0, min(number, MADE), A_TIME):
        size = min(A_TIME, number - first)
        severe = rng.choice(SEVERITIES, size, p=SHARES)
        cards, ages = rng.integers(0, 20_000, size), rng.uniform(0, DAYS * 86_400, size)
        amounts = rng.lognormal(4, 1, size).round(2)
        lines = []
        for at in range(size):
            when, name = NOW - timedelta(seconds=float(ages[at])), f"{first + at:08d}"
            lines.append(
                {
                    "id": f"al_{name}",
                    "source": config.name,
                    "kind": "opened",
                    "group": f"{config.name}:card-{cards[at]}",
                    "incident": f"in_{name}",
                    "label": f"card-{cards[at]}",
                    "severity": str(severe[at]),
                    "created_at": when,
                    "first_at": when,
                    "last_at": when,
                    "rows": 1,
                    "p_value": 1e-4,
                    "amount": float(amounts[at]),
                    "model_version": "0",
                    "pattern": "amount",
                    "facts": {"anomaly": "fraud", "keys": [name], "reasons": [reason], "columns": {}},
                }
            )
        with store.write() as session:
            session.execute(sa.insert(Alert), lines)
    columns = list(Alert.__table__.columns)
    for copy in range(1, -(-number // MADE)):
        names = ("id", "group", "incident", "label")
        copied = [each + f"-{copy}" if each.name in names else each for each in columns]
        made = sa.select(*copied).where(~Alert.id.contains("-"))
        with store.write() as session:
            session.execute(sa.insert(Alert).from_select(columns, made.limit(number - copy * MADE)))


def add_scores(store: Store, config: Config, rows: int) -> None:
    """Stored scores of the last days, in files as the service writes them."""
    folder = Path(str(config.output.path)).with_suffix("")
    folder.mkdir(parents=True)
    rng = np.random.default_rng(1)
    since = pd.Timestamp(NOW).tz_localize(None) - pd.Timedelta(days=DAYS - 1)
    for number, first in enumerate(range(0, rows, A_FILE), start=1):
        size = min(A_FILE, rows - first)
        p_value = rng.uniform(0, 1, size)
        at = since + pd.to_timedelta((first + np.arange(size)) * ((DAYS - 1) * 86_400 / rows), unit="s")
        scores = {"id": first + np.arange(size), "at": at, "risk": -np.log(p_value), "p_value": p_value}
        scores["rules_hit"] = rng.choice(HITS, size, p=(0.985, 0.01, 0.004, 0.001))
        frame = pd.DataFrame(scores).assign(scored_at=NOW.replace(tzinfo=None), batch=number)
        name = f"{number:05d}.parquet"
        frame.to_parquet(folder / name)
        written = {"model_version": "0", "rows": size, "size": (folder / name).stat().st_size}
        done = {"source": config.name, "purpose": "score", "window": {}, "state": "done", "rows": size, "scored": size}
        with store.write() as session:
            session.add(Batch(id=number, run=None, claimed_at=NOW, done_at=NOW, **done))
            session.add(ScoreFile(name=name, batch=number, written_at=NOW, **written))


def measure(address: str, key: str, *, times: int, has_scores: bool) -> dict[str, float]:
    """Milliseconds, by what was asked for."""
    with requests.Session() as client:
        signed = client.post(f"{address}/console/sign-in", data={"key": key}, allow_redirects=False, timeout=60)
        cookie = "; ".join(f"{each.name}={each.value}" for each in signed.cookies)
        headers = {"Cookie": cookie, "Authorization": f"Bearer {key}"}

        def get(path: str) -> float:
            return _timed(lambda: client.get(address + path, headers=headers, allow_redirects=False, timeout=600))

        def ask(policy: Mapping[str, Any]) -> float:
            place, given = f"{address}/v1/what-if", {"days": DAYS, **policy}
            return _timed(lambda: client.post(place, json=given, headers=headers, timeout=600))

        found = dict[str, float]()
        for name, path in PAGES.items():
            took = [get(path) for _ in range(times)]
            found |= {f"{name}_ms": float(np.median(took)), f"{name}_worst_ms": max(took)}
        if has_scores:
            found["what_if_first_ms"] = ask({"quantile": 0.999})
            later = [ask({"quantile": 1 - 0.001 * number}) for number in range(1, times)]
            found |= {"what_if_ms": float(np.median(later)), "what_if_worst_ms": max(later)}
    return {name.replace(" ", "_"): round(value, 1) for name, value in found.items()}


def _timed(ask: Callable[[], requests.Response]) -> float:
    began = time.perf_counter()
    answer = ask()
    took = time.perf_counter() - began
    if answer.status_code != 200:
        raise SystemExit(f"{answer.url} answered {answer.status_code}: {answer.text[:300]}")
    return 1_000 * took


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--alerts", type=int, default=100_000)
    parser.add_argument("--rows", type=int, default=5_000_000, help="rows with stored scores; 0 leaves the what-if out")
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--store", default="sqlite:///service.db", help="an empty database; SQLite by default")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        config = project(Path(folder), given.store)
        store = open_store(config.service.store)
        try:
            add_alerts(store, config, given.alerts)
            add_scores(store, config, given.rows)
            store.analyze()
            with store.write() as session:
                key = keys.create(session, "bench", ("admin",), days=1, now=NOW)
            with served_alone(config, store) as address:
                found = measure(address, key, times=given.times, has_scores=given.rows > 0)
        finally:
            store.close()
    print(json.dumps({"alerts": given.alerts, "rows": given.rows} | found))


if __name__ == "__main__":
    main()
