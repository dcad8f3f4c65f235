"""Jobs on a schedule: missed ones, long ones, and the clock set back."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from detector.errors import NotFoundError, SettingError, StoreError
from pipelines.config import ServiceSection
from pipelines.jobs import catalogue as jobs
from pipelines.jobs.context import Context, JobOutcome, StoppedError
from pipelines.service.due_times import next_times
from pipelines.service.runs import close_lost, run_job
from pipelines.service.scheduler import Schedule, WhenTrigger
from pipelines.store import DueTime, Run, Store, open_store
from tests.service_sites import Site, context

OTHERS = {name: {"enabled": False} for name in ("retrain", "drift", "deliver", "housekeeping")}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = open_store(f"sqlite:///{tmp_path}/service.db")
    yield store
    store.close()


@pytest.fixture
def ran() -> list[str]:
    return []


@pytest.fixture
def unrun() -> list[tuple[str, str]]:
    return []


Begin = Callable[..., Schedule]


@pytest.fixture
def begin(store: Store, ran: list[str], unrun: list[tuple[str, str]]) -> Iterator[Begin]:
    begun: list[Schedule] = []

    def _begin(when: str, run: Callable[[str], None] = ran.append, **score: object) -> Schedule:
        section = ServiceSection.model_validate({"jobs": OTHERS | {"score": {"when": when} | score}})
        begun.append(Schedule(store, section, run=run, on_unrun=lambda job, outcome, _: unrun.append((job, outcome))))
        begun[-1].start()
        return begun[-1]

    yield _begin
    for schedule in begun:
        schedule.stop(wait=True)


def move_next_time(store: Store, seconds: float) -> None:
    """As if the service had been away."""
    with store.write() as session:
        session.execute(sa.update(DueTime).values(due_at=datetime.now(UTC) + timedelta(seconds=seconds)))


def wait_until(condition: Callable[[], object], seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert condition()


def test_interval_begins_at_once(begin: Begin, ran: list[str]) -> None:
    """A service that is new does not wait for a whole interval."""
    begin("every 1h")

    wait_until(lambda: ran == ["score"])


def test_ten_missed_runs_are_made_up_for_by_one(begin: Begin, store: Store, ran: list[str]) -> None:
    """After fifty minutes away, a job that runs every five runs once, and goes on in its rhythm."""
    schedule = begin("every 5m")
    wait_until(lambda: len(ran) == 1)
    schedule.stop(wait=True)
    move_next_time(store, -3_000)

    begin("every 5m")

    wait_until(lambda: len(ran) == 2)
    time.sleep(0.3)
    assert len(ran) == 2
    assert timedelta(0) < next_times(store)["score"] - datetime.now(UTC) <= timedelta(minutes=5)


@pytest.mark.parametrize("when", ["every 1s", "* * * * *"])
def test_years_missed_hold_up_nothing(begin: Begin, store: Store, ran: list[str], when: str) -> None:
    """A clock that began in 1970 and is set right leaves millions of times behind: one of them is made up for."""
    begin(when).stop(wait=True)
    ran.clear()
    with store.write() as session:
        session.execute(sa.update(DueTime).values(due_at=datetime(1970, 1, 1, tzinfo=UTC)))

    schedule = begin(when)

    wait_until(lambda: ran)
    assert (schedule.next_times()["score"] or datetime.now(UTC)) - datetime.now(UTC) <= timedelta(minutes=1)


def test_run_missed_for_longer_than_its_grace_is_left_out(
    begin: Begin, store: Store, ran: list[str], unrun: list[tuple[str, str]]
) -> None:
    """It leaves a record instead."""
    begin("0 0 1 1 *").stop(wait=True)
    move_next_time(store, -50_000)

    begin("0 0 1 1 *")

    wait_until(lambda: unrun == [("score", "missed")])
    assert ran == []


def test_job_longer_than_its_interval_is_not_started_twice(begin: Begin, unrun: list[tuple[str, str]]) -> None:
    """Times that come while it runs are left out, with a record."""
    done, running, most = threading.Event(), [0], [0]

    def slow(_: str) -> None:
        running[0] += 1
        most[0] = max(most[0], running[0])
        done.wait(5)
        running[0] -= 1

    begin("every 1s", slow)

    wait_until(lambda: ("score", "overlapped") in unrun)
    done.set()
    assert most == [1]


def test_clock_set_back_does_not_hold_up_jobs(begin: Begin, store: Store) -> None:
    """A next time that lies two hours ahead, because the clock was set back, is brought nearer."""
    schedule = begin("0 * * * *")
    schedule._scheduler.modify_job("score", next_run_time=datetime.now(UTC) + timedelta(seconds=7_300))
    assert next_times(store)["score"] - datetime.now(UTC) > timedelta(seconds=7_000)

    schedule.mend()

    assert next_times(store)["score"] - datetime.now(UTC) <= timedelta(seconds=3_602)


def test_clock_set_back_while_nothing_ran_does_not_hold_up_jobs(begin: Begin, store: Store) -> None:
    """The same where the time was written down by an earlier process."""
    begin("0 * * * *").stop(wait=True)
    move_next_time(store, 7_300)

    begin("0 * * * *")

    assert next_times(store)["score"] - datetime.now(UTC) <= timedelta(seconds=3_602)


def test_time_of_an_earlier_version_holds(begin: Begin, store: Store, ran: list[str]) -> None:
    """It wrote down no settings; what came due while the service was brought up to date is made up for."""
    begin("0 0 1 1 *").stop(wait=True)
    move_next_time(store, -10)
    with store.write() as session:
        session.execute(sa.update(DueTime).values(settings={}))

    begin("0 0 1 1 *")

    wait_until(lambda: ran == ["score"])


@pytest.mark.parametrize("changed", [{"when": "0 0 2 1 *"}, {"jitter": 5}, {"grace": 70_000}])
def test_job_whose_times_have_changed_gets_new_ones(
    begin: Begin, store: Store, ran: list[str], changed: dict[str, object]
) -> None:
    """A time that has passed belongs to the settings of before."""
    begin("0 0 1 1 *").stop(wait=True)
    move_next_time(store, -10)

    begin(**({"when": "0 0 1 1 *"} | changed))

    assert next_times(store)["score"] > datetime.now(UTC)
    assert ran == []


def test_state_that_cannot_be_written_does_not_end_the_schedule(
    begin: Begin, store: Store, ran: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Jobs go on; their next times are written down when the database is back."""
    schedule = begin("every 1s")
    monkeypatch.setattr(store, "write", fails(StoreError("away")))

    wait_until(lambda: len(ran) > 1)

    assert schedule.is_alive


def test_job_that_is_switched_off_is_gone(begin: Begin, store: Store) -> None:
    """Its next time is taken out."""
    begin("0 0 1 1 *").stop(wait=True)

    begin("0 0 1 1 *", enabled=False)

    assert next_times(store) == {}


def test_jitter_puts_off_by_so_much_at_most() -> None:
    """At random, between nothing and the setting."""
    trigger, now = WhenTrigger("every 10s", zone="UTC", jitter=5), datetime.now(UTC)

    delays = {(trigger.get_next_fire_time(None, now) - now).total_seconds() for _ in range(50)}

    assert 10 <= min(delays) < max(delays) <= 15
    assert trigger == WhenTrigger("every 10s", zone="UTC", jitter=5) != WhenTrigger("every 10s", zone="UTC")


def test_scheduler_that_has_ended_is_reported(begin: Begin) -> None:
    """So that the service can start it anew."""
    schedule = begin("every 5m")

    assert schedule.is_alive
    schedule.stop(wait=True)
    assert not schedule.is_alive


def fails(error: Exception) -> Callable[..., JobOutcome]:
    def job(*_: object) -> JobOutcome:
        raise error

    return job


@pytest.mark.parametrize(
    ("job", "outcome", "error"),
    [
        (lambda _: JobOutcome(rows=3, note="three", facts={"a": 1}), "done", ""),
        (lambda _: JobOutcome(outcome="skipped"), "skipped", ""),
        (fails(SettingError("no such column")), "failed", "no such column"),
        (fails(ValueError("oh")), "failed", "ValueError: oh"),
        (fails(StoppedError("the service ends")), "stopped", "the service ends"),
    ],
)
def test_every_run_is_recorded(
    store: Store,
    tiny_bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    job: Callable[[Context], JobOutcome],
    outcome: str,
    error: str,
) -> None:
    """With start, end, rows, outcome and error; an error does not reach the scheduler."""
    site = Site(tmp_path / "site", tiny_bundle, "files to files")
    monkeypatch.setitem(jobs.JOBS, "score", job)
    ends: list[str] = []

    number, found = run_job(
        context(site, store), "score", trigger="schedule", instance="me", on_end=lambda *given: ends.append(given[1])
    )

    with store.read() as session:
        run = session.get_one(Run, number)
        assert (run.outcome, run.error, run.trigger, run.instance) == (outcome, error, "schedule", "me")
        assert run.ended_at is not None
        assert run.ended_at >= run.started_at
        assert (run.rows, run.facts) == ((3, {"a": 1}) if outcome == "done" else (0, {}))
    assert ends == [outcome]
    assert (found is None) == bool(error)


def test_a_job_that_finds_nothing_to_do_says_so_once(
    store: Store,
    tiny_bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Not every minute, but again once it has worked, for another reason, and to whoever asks."""
    given = context(Site(tmp_path / "site", tiny_bundle, "files to files"), store)
    nothing, waits = (JobOutcome(outcome="skipped", note=note) for note in ("nothing new", "waits for a file"))
    done = JobOutcome(note="3 rows")

    with caplog.at_level("INFO", logger="detector.runs"):
        for found in (nothing, nothing, nothing, waits, waits, done, nothing):
            monkeypatch.setitem(jobs.JOBS, "score", lambda _, found=found: found)
            run_job(given, "score", trigger="schedule", instance="me")
        run_job(given, "score", trigger="request", instance="me")

    said = [record.getMessage().removeprefix("score: ") for record in caplog.records if record.name == "detector.runs"]
    assert said == ["nothing new", "waits for a file", "3 rows", "nothing new", "nothing new"]


def test_run_whose_process_died_is_lost(store: Store) -> None:
    """The next leader says so in its record."""
    with store.write() as session:
        session.add(
            Run(job="score", trigger="", instance="a", started_at=datetime.now(UTC), outcome="running", facts={})
        )

    assert close_lost(store, now=datetime.now(UTC)) == 1

    with store.read() as session:
        assert session.scalars(sa.select(Run.outcome)).all() == ["lost"]
    assert close_lost(store, now=datetime.now(UTC)) == 0


def test_unknown_job_is_refused(store: Store, tiny_bundle: Path, tmp_path: Path) -> None:
    """The message names the nearest."""
    site = Site(tmp_path / "site", tiny_bundle, "files to files")

    with pytest.raises(NotFoundError, match="Did you mean 'score'"):
        run_job(context(site, store), "scroe", trigger="", instance="")
