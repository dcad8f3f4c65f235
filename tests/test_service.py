"""The service as it runs: processes, signals, HTTP."""

from __future__ import annotations

import gc
import json
import logging
import os
import re
import shutil
import signal
import sqlite3
import threading
import time
import urllib.error
import urllib.request
import weakref
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import yaml
from typer.testing import CliRunner

from benchmarks.service import memory_of
from benchmarks.soak import Site
from detector import load, save
from detector.errors import NotFoundError, SettingError, SourceError
from pipelines.cli import app
from pipelines.ingest.contract import Lag
from pipelines.jobs import catalogue as jobs
from pipelines.jobs.context import Context, JobOutcome, StoppedError
from pipelines.jobs.subprocess import CommandError, outcome_of, run_command
from pipelines.service import housekeeping
from pipelines.service.facts import Facts
from pipelines.service.http import HttpServer, application
from pipelines.service.instance import Service
from pipelines.service.logs import configure
from pipelines.service.memory import FreeMemory
from pipelines.service.metrics import Metrics
from pipelines.service.once import JobFailedError, run_once
from pipelines.store import Request, Run
from tests.service_sites import NOTHING_WRONG, Instance, back_date, context, opened, put, score, wait_until

ROOT = Path(__file__).parents[1]
QUIET: dict[str, Any] = {name: {"enabled": False} for name in ("retrain", "drift", "deliver", "housekeeping")}
SERVED: dict[str, Any] = {"log": "json", "jobs": QUIET | {"score": {"when": "every 1s"}}, "lease": 2.0}


@pytest.fixture
def start() -> Iterator[Callable[..., Instance]]:
    begun: list[Instance] = []

    def _start(site: Site, **given: Any) -> Instance:
        begun.append(Instance(site, **given))
        return begun[-1]

    yield _start
    for instance in begun:
        instance.end(signal.SIGKILL)


@pytest.mark.slow
def test_serves_takes_over_and_ends(tiny_bundle: Path, tmp_path: Path, start: Callable[..., Instance]) -> None:
    """Of two instances one leads; killed, it is succeeded; the rest of the day is answered over HTTP."""
    site = Site(tmp_path / "site", tiny_bundle, "files to files", settings=SERVED)
    site.add(50)
    first = start(site)
    wait_until(lambda: first.said("this instance leads now") and len(site.scored()) == 50)
    second = start(site)
    wait_until(lambda: second.said("answering on"))

    code, text = first.get("/healthz")
    assert (code, json.loads(text)["status"]) == (200, "ok")
    assert json.loads(first.get("/readyz")[1])["leader"] is True
    assert json.loads(second.get("/readyz")[1])["leader"] is False
    metrics = first.get("/metrics")[1]
    for name in (
        "rows_scored_total 50",
        'job_seconds_count{job="score"}',
        "lag_waiting 0",
        "model_age_seconds",
        "alerts_told_today",
        "leader 1",
    ):
        assert f"detector_{name}" in metrics
    memory = memory_of(first.process.pid)
    assert memory < 300, f"{memory:.0f} MB"

    assert run_job_command(site) == "score: nothing new"
    first.end(signal.SIGKILL)
    site.add(30)
    wait_until(lambda: len(site.scored()) == 80)
    assert second.said("this instance leads now")
    assert second.log.read_text().count("another instance leads") == 1
    assert second.end() == 0
    assert second.said("SIGTERM")
    assert site.count() == NOTHING_WRONG


def has_open_batch(site: Site) -> bool:
    """Whether a batch is in hand, once there is a state at all."""
    try:
        return site.count()["open"] == 1
    except sqlite3.OperationalError:
        return False


def run_job_command(site: Site) -> str:
    """`detector jobs run CONFIG score`, which asks the instance that leads; what it printed, without the number."""
    done = CliRunner().invoke(app, ["jobs", "run", str(site.folder), "score"])
    assert done.exit_code == 0, done.output
    return done.stdout.strip().splitlines()[-1].partition(" (run")[0]


@pytest.mark.slow
def test_sigterm_undoes_a_step_that_takes_too_long(
    tiny_bundle: Path, tmp_path: Path, start: Callable[..., Instance]
) -> None:
    """The batch in hand is given its time, then the process ends without it; the next one scores it."""
    site = Site(tmp_path / "site", tiny_bundle, "files to files", settings=SERVED | {"stop_within": 0.5, "lease": 2.0})
    site.add(50)
    instance = start(site, fault="score.computed:1:pause")
    wait_until(lambda: has_open_batch(site))

    code = instance.end()

    assert code == 1
    assert site.scored() == {}
    assert score(site).rows == 50
    assert site.count() == NOTHING_WRONG


def service_of(site: Site, store: Any) -> Service:
    return Service(context(site, store).config, store)


@pytest.fixture
def site(tiny_bundle: Path, tmp_path: Path) -> Site:
    return Site(
        tmp_path / "site", tiny_bundle, "files to files", settings={"jobs": QUIET | {"score": {"enabled": False}}}
    )


def test_sigterm_lets_a_short_step_finish(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is in hand when the service is to end is finished if there is time."""
    begun, ended = threading.Event(), []

    def slow(given: Context) -> JobOutcome:
        begun.set()
        time.sleep(0.5)
        given.checkpoint()
        ended.append(given.stopping())
        return JobOutcome()

    monkeypatch.setitem(jobs.JOBS, "score", slow)
    with opened(site) as store:
        service = service_of(site, store)
        with store.write() as session:
            session.add(Request(job="score", arguments={}, asked_at=context(site, store).now))
        thread = threading.Thread(target=service.run)
        thread.start()
        assert begun.wait(10)
        service.end()
        thread.join(10)
        with store.read() as session:
            assert session.scalars(sa.select(Run.outcome)).all() == ["done"]

    assert ended == [True]
    assert not service.leadership.is_leader


def test_job_brings_another_with_it(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a drift comes a training, with a record that says why."""
    monkeypatch.setitem(jobs.JOBS, "drift", lambda _: JobOutcome(then=("retrain",), gauges={"drift:amount": 0.4}))
    monkeypatch.setitem(jobs.JOBS, "retrain", lambda _: JobOutcome())
    with opened(site) as store:
        service = service_of(site, store)
        service.leadership.lead()
        service.run_and_follow("drift", trigger="request")
        with store.read() as session:
            assert session.execute(sa.select(Run.job, Run.trigger).order_by(Run.id)).all() == [
                ("drift", "request"),
                ("retrain", "drift"),
            ]

    assert 'detector_drift{of="amount"} 0.4' in service.metrics.text().decode()


def test_failures_are_counted_and_reported(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command whose job fails says why, and the metrics count it."""

    def fail(_: Context) -> JobOutcome:
        raise SettingError("no such thing")

    monkeypatch.setitem(jobs.JOBS, "score", fail)
    with opened(site) as store:
        config = context(site, store).config
        with pytest.raises(JobFailedError, match="The job score failed: no such thing"):
            run_once(config, store, "score")
        with pytest.raises(NotFoundError, match="Did you mean 'score'"):
            run_once(config, store, "scor")
        service = service_of(site, store)
        service.leadership.lead()
        service.run_and_follow("score", trigger="schedule")

    assert 'detector_job_failures_total{job="score"} 1.0' in service.metrics.text().decode()


def test_readiness_tells_what_is_missing(site: Site, tmp_path: Path) -> None:
    """Without a detector the instance is not ready, and says what to do."""
    config = site.folder / "detector.yaml"
    text = config.read_text()
    with opened(site) as store:
        service = service_of(site, store)
        assert service.facts.readiness()[0]
        config.write_text(re.sub(r"bundle: .*", "bundle: nothing", text))
        ready, found = service_of(site, store).facts.readiness()

    assert not ready
    assert "Run `detector train` first" in found["detector"]


def test_readiness_loads_the_detector(site: Site, tmp_path: Path) -> None:
    """A manifest that reads well is not enough: an instance whose every score would fail is not ready."""
    broken = Path(
        shutil.copytree(yaml.safe_load((site.folder / "detector.yaml").read_text())["bundle"], tmp_path / "b")
    )
    (broken / "graph.onnx").write_bytes(b"no graph")
    text = (site.folder / "detector.yaml").read_text()
    (site.folder / "detector.yaml").write_text(re.sub(r"bundle: .*", f"bundle: {broken}", text))

    with opened(site) as store:
        ready, found = service_of(site, store).facts.readiness()

    assert not ready
    assert "graph.onnx" in found["detector"]


def test_age_of_the_model_is_that_of_its_training(site: Site, tmp_path: Path) -> None:
    """A bundle that was copied yesterday may have been trained a year ago."""
    bundle = Path(yaml.safe_load((site.folder / "detector.yaml").read_text())["bundle"])
    scorer = load(bundle)
    scorer.metrics["made_at"] = "2020-01-01T00:00:00+00:00"
    save(scorer, tmp_path / "old")
    text = (site.folder / "detector.yaml").read_text()
    (site.folder / "detector.yaml").write_text(re.sub(r"bundle: .*", f"bundle: {tmp_path / 'old'}", text))

    with opened(site) as store:
        age = service_of(site, store).facts.model_age()

    assert age > 6 * 365 * 86_400


def test_many_unusable_rows_are_warned_of(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """With how many, why and where; and the reasons are counted apart, without the values in them."""
    frame = put(site, "a.csv", 0, 60)
    frame.assign(amount=[f"{value:.2f} EUR" for value in frame["amount"]]).to_csv(site.input / "a.csv", index=False)
    os.utime(site.input / "a.csv", (0, 0))
    with opened(site) as store:
        service = service_of(site, store)
        service.leadership.lead()

        service.run_and_follow("score", trigger="schedule")

    (warning,) = [
        each for each in caplog.records if each.levelno == logging.WARNING and "could not be used" in each.message
    ]
    assert "60 of 60 rows could not be used: amount: … is not a number (60 rows)" in warning.message
    assert "batch-00000001.csv" in warning.message
    counted = 'detector_rows_quarantined_by_reason_total{reason="amount: … is not a number'
    assert counted in service.metrics.text().decode()


def test_lines_that_cannot_be_read_count_as_rows_that_came(site: Site) -> None:
    """Scored and quarantined rows add up to what came: it said that 4 of 3 rows could not be used."""
    put(site, "a.csv", 0, 3)
    with (site.input / "a.csv").open("a") as stream:
        stream.write("half a li\n")
    back_date(site.input / "a.csv", 10.0)

    said = score(site)

    assert said.note.startswith("scored 3 of 4 rows")
    assert said.note.endswith("quarantined 1")


def test_slow_delivery_keeps_no_other_waiting(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """While an hour of trainings goes to MLflow, alerts go out as they come, and the job says all of it."""
    alerts: list[Any] = []
    many = threading.Event()

    def send_alerts(given: Context) -> int:
        alerts.append(given.now)
        if len(alerts) == 3:
            many.set()
        return 1

    monkeypatch.setattr(housekeeping, "AGAIN_SECONDS", 0.1)
    monkeypatch.setitem(jobs.DELIVERIES, "alerts", send_alerts)
    monkeypatch.setitem(jobs.DELIVERIES, "mlflow", lambda _: 7 if many.wait(10) else 0)
    with opened(site) as store:
        found = housekeeping.deliver(context(site, store))

    assert found.facts == {"alerts": len(alerts), "mlflow": 7}
    assert 3 <= len(alerts) <= 5
    assert alerts == sorted(set(alerts))


def test_health_tells_a_loop_that_stands_still(site: Site) -> None:
    """A main loop that has not gone round for long is not well."""
    with opened(site) as store:
        facts = Facts(
            context(site, store).config, store, is_leader=lambda: True, last_beat=lambda: time.monotonic() - 1_000
        )
        assert not facts.health()[0]


def test_lag_counts_what_waits(tiny_bundle: Path, tmp_path: Path) -> None:
    """Files that wait, or rows behind the cursor."""
    files = Site(tmp_path / "a", tiny_bundle, "files to files")
    put(files, "a.csv", 0, 10, age=100)
    table = Site(tmp_path / "b", tiny_bundle, "table to files")
    table.add(10)
    score(table)
    table.add(7)
    with opened(files) as store:
        lag = service_of(files, store).facts.lag()
    with opened(table) as store:
        rows = service_of(table, store).facts.lag().waiting

    assert (lag.waiting, rows) == (1, 7)
    assert 99 < lag.seconds < 200


@pytest.mark.parametrize("is_slow", [True, False])
def test_source_that_does_not_answer_takes_no_other_figure_with_it(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, is_slow: bool
) -> None:
    """While a broker or database is down the other metrics are what one looks at; the log says it once."""
    ends = threading.Event()

    def lag(_: Facts) -> Lag:
        if is_slow:
            ends.wait(20)
        raise SourceError("no broker answers")

    monkeypatch.setattr(Facts, "lag", lag)
    monkeypatch.setattr("pipelines.service.facts.LAG_PATIENCE", 0.1)
    with opened(site) as store:
        facts = service_of(site, store).facts
        began = time.monotonic()
        names = [[name for name, _, _ in facts.gauges()] for _ in range(3)]
        took = time.monotonic() - began
        ends.set()
        for thread in threading.enumerate():  # or it says so in the log of the next test
            if thread.name == "lag":
                thread.join(5)

    assert took < 10
    assert all("model_age_seconds" in each and "lag_seconds" not in each for each in names)
    assert is_slow or caplog.text.count("no broker answers") == 1


def test_port_that_is_taken_is_reported(site: Site) -> None:
    """The message names the settings."""
    with opened(site) as store:
        service = service_of(site, store)
        web = application(service.facts, Metrics(service.facts))
        first = HttpServer(web, host="127.0.0.1", port=0)
        first.start()
        port = int(first.address.rpartition(":")[2])
        with pytest.raises(SettingError, match=r"Set `service.host` and `service.port`"):
            HttpServer(web, host="127.0.0.1", port=port)
        for page, status in (("/healthz", 200), ("/readyz", 200), ("/metrics", 200)):
            with urllib.request.urlopen(first.address + page, timeout=5) as answer:
                assert answer.status == status
        first.stop()


@pytest.mark.parametrize("kind", ["pretty", "json"])
def test_log_has_both_forms(kind: Any) -> None:
    """Lines for people, or one JSON object a line, with what the call added and the error."""
    root, stream = logging.getLogger(), StringIO()
    handlers, level = root.handlers[:], root.level
    try:
        configure(kind, stream=stream)
        try:
            raise ValueError("oh")
        except ValueError:
            logging.getLogger("detector.test").exception("bad %s", "news", extra={"rows": 3})
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)

    text = stream.getvalue()
    if kind == "pretty":
        assert "ERROR    bad news" in text
    else:
        found = json.loads(text)
        assert (found["message"], found["rows"], found["level"]) == ("bad news", 3, "error")
        assert "ValueError: oh" in found["error"]


def test_commands_list_pause_and_resume(site: Site) -> None:
    """`detector jobs` shows every job and the last runs, and pauses one."""
    site.add(20)
    cli, config = CliRunner(), str(site.folder)

    assert "scored 20 of 20 rows" in cli.invoke(app, ["jobs", "run", config, "score"]).stdout
    assert cli.invoke(app, ["replay", config, "--batch", "1", "--reason", "test"]).exit_code == 0
    assert cli.invoke(app, ["backfill", config]).exit_code == 0
    assert cli.invoke(app, ["jobs", "pause", config, "score"]).exit_code == 0
    with opened(site) as store:
        service = service_of(site, store)
        service.leadership.lead()
        service._run_due("score")
        with store.read() as session:
            jobs_run = session.scalars(sa.select(Run.job).order_by(Run.id)).all()
        service.leadership.release()
    listed = cli.invoke(app, ["jobs", "list", config], env={"COLUMNS": "160"}).stdout
    trail = cli.invoke(app, ["jobs", "trail", config], env={"COLUMNS": "160"}).stdout
    assert cli.invoke(app, ["jobs", "resume", config, "score"]).exit_code == 0
    wrong = cli.invoke(app, ["jobs", "pause", config, "scroe"])

    assert jobs_run == ["score", "replay", "backfill"]
    for word in ("housekeeping", "15 2 * * *", "backfill", "scored 20 of 20 rows", "never"):
        assert word in listed
    for word in ("replay", "test", "model_before", "20", "backfill"):
        assert word in trail
    assert wrong.exit_code == 2
    assert "Did you mean 'score'" in wrong.stderr


def test_command_job_returns_its_last_line(site: Site) -> None:
    """A job that is a command is a process; what it prints last is its outcome, its failure is the end of its words."""
    with opened(site) as store:
        given = context(site, store)
        assert "jobs" in run_command("--help", given).note or run_command("--version", given).note
        with pytest.raises(CommandError, match=r"(?s)`detector scroe` ended with code 2: .*scroe"):
            run_command("scroe", given)


def test_command_job_ends_with_the_service(site: Site) -> None:
    """It gets SIGTERM, and its run counts as stopped."""
    with opened(site) as store, pytest.raises(StoppedError, match="ended with it"):
        run_command("serve", context(site, store, stopping=lambda: True))


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("a\nb\n", JobOutcome(note="b")),
        ("", JobOutcome()),
        ('x\n{"rows": 2, "then": ["retrain"], "more": 1}', JobOutcome(rows=2, then=("retrain",))),
        ('{"outcome": "odd"}', JobOutcome()),
        ("{broken", JobOutcome(note="{broken")),
    ],
)
def test_outcome_of_a_command(said: str, expected: JobOutcome) -> None:
    """Fields it does not know are left out."""
    assert outcome_of(said) == expected


def test_cycles_of_old_objects_are_collected() -> None:
    """Every minute, however few there are: Python waits until there are many."""

    class Old:
        """Holds itself."""

        def __init__(self) -> None:
            self.me = self

    seconds = [0.0]
    free = FreeMemory(clock=lambda: seconds[0])
    gone = weakref.ref(Old())
    gc.disable()
    try:
        assert not free.give_back()
        assert gone() is not None
        seconds[0] = 60.0
        assert free.give_back()
        looked_at = len(gc.get_objects())
    finally:
        gc.unfreeze()
        gc.enable()

    assert gone() is None
    assert looked_at < len(gc.get_objects()) / 2  # of what was there before, nothing
