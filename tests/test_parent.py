"""Processes that work for another one, which is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from benchmarks.soak import Site
from tests.service_sites import ROOT, wait_until

JOB = """
import sys
from datetime import UTC, datetime
from pipelines.config import load_config
from pipelines.jobs.context import Context
from pipelines.jobs.subprocess import run_command
run_command("serve", Context(load_config(sys.argv[1]), None, datetime.now(UTC)))
"""
"""What the service does of a job that is a command; this one takes as long as it is let, and opens its state."""
WORKERS = """
import sys, time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from pipelines.features.rebuild import _begin
pool = ProcessPoolExecutor(1, get_context("spawn"), initializer=_begin, initargs=(None,))
pool.submit(Path(sys.argv[1], "service.db").touch).result()
time.sleep(600)
"""
BY_HAND = """
import subprocess, sys
subprocess.run([sys.executable, "-m", "pipelines", "serve", sys.argv[1]])
"""

Start = Callable[[str], subprocess.Popen[bytes]]


@pytest.fixture
def start(tiny_bundle: Path, tmp_path: Path) -> Iterator[Start]:
    """Runs Python code in a process that is given a project; in the end, it and what it has started are killed."""
    site, begun = Site(tmp_path / "site", tiny_bundle, "files to files"), set[int]()

    def _start(code: str) -> subprocess.Popen[bytes]:
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        process = subprocess.Popen([sys.executable, "-c", code, str(site.folder)], cwd=ROOT, env=environment)
        begun.add(process.pid)
        wait_until((site.folder / "service.db").exists)
        begun.update(started_by(process.pid))
        return process

    yield _start
    for number in begun & living():
        os.kill(number, signal.SIGKILL)


def living() -> set[int]:
    return {int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()}


def started_by(process: int) -> set[int]:
    return {int(number) for number in Path(f"/proc/{process}/task/{process}/children").read_text().split()}


@pytest.mark.slow
@pytest.mark.parametrize("code", [JOB, WORKERS], ids=["job", "workers"])
def test_ends_with_a_killed_parent(start: Start, code: str) -> None:
    """Whatever it held, such as the lock of a training, is free for the service that is started next."""
    parent = start(code)
    children = started_by(parent.pid)

    parent.kill()
    parent.wait()

    wait_until(lambda: not children & living(), 10)


@pytest.mark.slow
def test_command_by_hand_outlives_its_parent(start: Start) -> None:
    """As after `detector retrain &` in a terminal that is closed."""
    parent = start(BY_HAND)
    children = started_by(parent.pid)

    parent.kill()
    parent.wait()

    with pytest.raises(AssertionError):
        wait_until(lambda: not children & living(), 2)
