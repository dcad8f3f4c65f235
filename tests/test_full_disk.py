"""A disk without room: nothing is lost, one line says which and how much room there is, and it goes on by itself."""

from __future__ import annotations

import errno
import logging
import os
import re
import shutil
import sqlite3
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import sqlalchemy as sa
from sqlalchemy.exc import OperationalError
from typer.testing import CliRunner

from benchmarks.soak import Site
from detector.errors import SinkError
from pipelines.cli import app
from pipelines.disk import full_disk
from pipelines.jobs import catalogue as jobs
from pipelines.jobs.context import Context, JobOutcome
from pipelines.service.instance import Service
from pipelines.service.runs import run_job
from pipelines.service.status import status_of
from pipelines.sinks.files import FileSink
from pipelines.store import Run, Store, open_store
from tests.service_sites import context, opened

QUIET: dict[str, Any] = {name: {"enabled": False} for name in ("score", "retrain", "drift", "deliver", "housekeeping")}
NO_ROOM = OSError(errno.ENOSPC, "Error writing bytes to file. Detail: [errno 28] No space left on device")
"""As pyarrow says it, which does not know the file's name."""

YEARLY = {"score": {"when": "0 3 1 1 *"}}


@pytest.fixture
def site(tiny_bundle: Path, tmp_path: Path) -> Site:
    return Site(tmp_path / "site", tiny_bundle, "files to files", settings={"jobs": QUIET})


def fill(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on its disk has no room."""

    @contextmanager
    def write() -> Any:
        raise store.failure(OperationalError("", None, sqlite3.OperationalError("database or disk is full")))
        yield

    write_nothing: AbstractContextManager[Any] = write  # type: ignore[assignment]
    monkeypatch.setattr(store, "write", write_nothing)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("database or disk is full", r"Make room: .* MB are free at "),
        ("disk I/O error", r"ulimit -f.* MB are free at "),
        ("unable to open database file", r"May this user write .* MB are free at "),
        ("attempt to write a readonly database", r"May this user write to the file"),
    ],
)
def test_state_that_cannot_be_written_says_what_to_do(tmp_path: Path, said: str, expected: str) -> None:
    """What SQLite says of it names neither the place nor the room there is."""
    store = open_store(f"sqlite:///{tmp_path}/service.db")
    store.close()

    failure = str(store.failure(OperationalError("", None, sqlite3.OperationalError(said))))

    assert failure.startswith(f"The service's state in sqlite:///{tmp_path}/service.db cannot be used: {said}. ")
    assert re.search(expected, failure)


def test_state_without_room_is_said_once_and_in_readiness(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Not once a second, which would fill the disk of the log; and that it is over is said as well."""
    caplog.set_level(logging.INFO, logger="detector.service")
    with opened(site) as store, monkeypatch.context() as full:
        service = Service(context(site, store).config, store)
        service._cycle()
        fill(store, full)
        for _ in range(5):
            service._cycle()

        ready, found = service.facts.readiness()
        assert not ready
        assert re.search(r"database or disk is full.* MB are free at ", found["store"])
        assert caplog.text.count("disk is full") == 1

        full.undo()
        service._cycle()
        service._stop_schedule()
        assert service.facts.readiness()[0]
        assert "can be written to again" in caplog.text


def test_job_that_is_due_without_room_says_so_in_a_line(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """No traceback of sixty lines each time it is due, and none for its next time, which nobody could write down."""
    site = Site(tmp_path / "yearly", tiny_bundle, "files to files", settings={"jobs": QUIET | YEARLY})
    with opened(site) as store:
        service = Service(context(site, store).config, store)
        assert service.leadership.lead()
        service._keep_schedule()
        fill(store, monkeypatch)

        assert service.schedule is not None
        service.schedule._scheduler.modify_job("score", name="as APScheduler does with each time")
        service._run_due("score")
        service._stop_schedule()

    (line,) = (record for record in caplog.records if record.levelno > logging.INFO)
    assert re.match(
        r"score could not run, and is tried again at \d{4}-01-01 03:00:00 UTC: The service's state", line.message
    )
    assert line.exc_info is None


def test_job_that_loses_its_state_says_so_in_a_line(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """That its end could not be written down, and no alert made, has the cause that it has named already."""

    def fail(context: Context) -> JobOutcome:
        fill(context.store, monkeypatch)
        with context.store.write():
            return JobOutcome()

    monkeypatch.setitem(jobs.JOBS, "score", fail)
    with opened(site) as store:
        run_job(context(site, store), "score", trigger="schedule", instance="here")

    (line,) = (record.message for record in caplog.records if record.levelno > logging.INFO)
    assert line.startswith("score failed: The service's state")


def test_job_that_finds_the_disk_full_says_which(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A temporary file that cannot be written is nothing unexpected: record and log say how much room is left."""

    def fail(_: Context) -> JobOutcome:
        raise NO_ROOM

    monkeypatch.setitem(jobs.JOBS, "score", fail)
    with opened(site) as store:
        service = Service(context(site, store).config, store)
        service.leadership.lead()
        service.run_and_follow("score", trigger="schedule")
        with store.read() as session:
            error = session.scalars(sa.select(Run.error)).one()

    assert re.search(
        r"Nothing can be written: the disk is full\. .* MB are free at .*done anew once there is room", error
    )
    assert "unexpected" not in caplog.text


def test_command_that_finds_the_disk_full_says_which(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no fault to be reported with a traceback."""

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(tmp_path / "bundle"))

    monkeypatch.setattr("pipelines.config.load_config", fail)

    result = CliRunner().invoke(app, ["status", str(tmp_path)])

    assert result.exit_code == 1
    assert f"{tmp_path / 'bundle'} cannot be written: the disk is full. " in result.output
    assert "unexpected" not in result.output


def test_copy_that_finds_the_disk_full_says_which(tmp_path: Path) -> None:
    """A folder that was copied in part says so of each of its files, in one error without a number."""
    said = f"[Errno {errno.ENOSPC}] No space left on device: 'bundle/arrays.npz' -> 'models/arrays.npz'"
    error = shutil.Error([("bundle/arrays.npz", str(tmp_path / "models/arrays.npz"), said)])

    assert str(full_disk(error)).startswith(f"{tmp_path}/models/arrays.npz cannot be written: the disk is full. ")
    assert full_disk(shutil.Error([("a", "b", "[Errno 13] Permission denied")])) is None


def test_other_errors_are_no_full_disk() -> None:
    """A file that is not there stays what it was."""
    assert full_disk(FileNotFoundError(errno.ENOENT, "no")) is None


def test_results_that_cannot_be_written_say_the_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The path, why, and how much is free."""

    def fail(_: object) -> None:
        raise NO_ROOM

    monkeypatch.setattr(FileSink, "_open", lambda *_: SimpleNamespace(write_table=fail, close=lambda: None))
    sink = FileSink(tmp_path / "scores.parquet")

    with (
        sink,
        pytest.raises(SinkError, match=r"scores\.parquet cannot be written: the disk is full\. .* MB are free at"),
    ):
        sink.write(pd.DataFrame({"risk": [1.0]}))


@pytest.mark.parametrize(
    ("free", "total", "is_short"), [(0, 10**12, True), (10**7, 10**12, True), (2 * 10**7, 10**8, False)]
)
def test_status_names_a_disk_that_is_full(
    site: Site, monkeypatch: pytest.MonkeyPatch, free: int, total: int, is_short: bool
) -> None:
    """The service itself cannot write down that it is; and a small disk is not full because it is small."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free, total=total, used=total - free))
    with opened(site) as store:
        config = context(site, store).config

    found = {each.what: each for each in status_of(config, now=datetime.now(UTC), place=".").matters}

    assert ("disk" in found) == is_short
    if is_short:
        assert found["disk"].state == "failed"
        assert re.search(r"\d+ MB of .* MB are free at", found["disk"].said)
