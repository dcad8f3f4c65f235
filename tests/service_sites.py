"""Projects for the tests of the service: input that grows, a tiny detector, and what became of the rows."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from benchmarks.soak import Site, draw
from pipelines.config import load_config
from pipelines.features.engine import FeatureEngine
from pipelines.features.featured_rows import FeaturedRows
from pipelines.jobs.context import Context, JobOutcome
from pipelines.scoring.job import score_new
from pipelines.store import Store, open_store

ROOT = Path(__file__).parents[1]
NOTHING_WRONG = {"lost": 0, "doubled": 0, "unknown": 0, "open": 0}


def pushed(monkeypatch: pytest.MonkeyPatch) -> list[FeaturedRows]:
    """All that is measured online from now on, as it comes."""
    seen: list[FeaturedRows] = []
    push = FeatureEngine.push

    def watched(*args: Any, **given: Any) -> FeaturedRows:
        seen.append(push(*args, **given))
        return seen[-1]

    monkeypatch.setattr(FeatureEngine, "push", watched)
    return seen


@contextmanager
def opened(site: Site) -> Iterator[Store]:
    """The site's state, closed in the end."""
    store = open_store(load_config(site.folder).service.store)
    try:
        yield store
    finally:
        store.close()


def score(site: Site, *, now: datetime | None = None, **given: Any) -> JobOutcome:
    """One run of the scoring job in this process."""
    with opened(site) as store:
        return score_new(context(site, store, now=now, **given))


def context(
    site: Site, store: Store, *, now: datetime | None = None, arguments: Mapping[str, Any] | None = None, **given: Any
) -> Context:
    return Context(load_config(site.folder), store, now or datetime.now(UTC), arguments=arguments or {}, **given)


def put(site: Site, name: str, first: int, rows: int, *, age: float = 10.0) -> pd.DataFrame:
    """A file of consecutive keys that was written some seconds ago."""
    frame = draw(rows, first=first, seed=first)
    path = site.input / name
    frame.to_csv(path, index=False) if name.endswith(".csv") else frame.to_parquet(path)
    back_date(path, age)
    return frame


def back_date(path: os.PathLike[str], age: float) -> None:
    moment = datetime.now(UTC).timestamp() - age
    os.utime(path, (moment, moment))


def states(site: Site) -> dict[str, tuple[str, str, int]]:
    """State, reason and rows of each file."""
    import sqlalchemy as sa

    from pipelines.store import SourceFile

    with opened(site) as store, store.read() as session:
        return {file.name: (file.state, file.reason, file.rows) for file in session.scalars(sa.select(SourceFile))}


class Instance:
    """`detector serve` in a process of its own."""

    def __init__(self, site: Site, *, fault: str = "") -> None:
        self.log = site.folder / f"serve-{time.monotonic_ns()}.log"
        environment = os.environ | {"PYTHONPATH": str(ROOT), "DETECTOR_FAULT": fault}
        with self.log.open("w") as stream:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "pipelines", "serve", str(site.folder)], stderr=stream, cwd=ROOT, env=environment
            )

    def lines(self) -> list[dict[str, Any]]:
        """What it has logged; every line is JSON."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def said(self, text: str) -> bool:
        """Whether a message holds a text."""
        return text in self.log.read_text()

    def get(self, page: str) -> tuple[int, str]:
        """What it answers."""
        found = re.search(r"answering on (http://[0-9.]+:[0-9]+)", self.log.read_text())
        assert found is not None
        try:
            with urllib.request.urlopen(found[1] + page, timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(20)


def wait_until(condition: Callable[[], object], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert condition()
