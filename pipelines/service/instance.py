"""One instance of the service: it leads or waits, follows its configuration, runs the jobs, and ends in good order."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial

import sqlalchemy as sa

from detector.errors import DetectorError, StoreError
from pipelines.config import Config
from pipelines.config.difference import listed
from pipelines.jobs.catalogue import load_jobs
from pipelines.jobs.context import Context, JobOutcome, ProcessCache
from pipelines.service.configuration_file import ConfigurationFile, FoundConfiguration, check_serves
from pipelines.service.facts import Facts
from pipelines.service.leader import BEATS, Leadership
from pipelines.service.memory import FreeMemory
from pipelines.service.metrics import Metrics
from pipelines.service.reload_record import record_change
from pipelines.service.reloads import Reloads
from pipelines.service.runs import close_lost, note_unrun, run_job
from pipelines.service.scheduler import Schedule
from pipelines.store import JobState, Request, Store

log = logging.getLogger("detector.service")

CYCLE_SECONDS = 1.0
WAIT_SECONDS = 0.05
"""Between two looks at whether what is waited for has ended."""
MOST_FOLLOWING = 5
"""Jobs that one job may bring with it, one after the other."""


class Service:
    """One instance of the service."""

    def __init__(self, config: Config, store: Store) -> None:
        self.config = config
        self.store = store
        self.leadership = Leadership(store, seconds=config.service.lease)
        self.cache = ProcessCache()
        self.facts = Facts(
            config,
            store,
            is_leader=lambda: self.leadership.is_leader,
            last_beat=lambda: self._last_cycle,
            cache=self.cache,
        )
        self.metrics = Metrics(self.facts)
        self.schedule: Schedule | None = None
        check = partial(check_serves, cache=self.cache)
        self.file = None if config.file is None else ConfigurationFile(config.file, check=check)
        self.facts.reloads = Reloads(None if self.file is None else self.file.read_again)
        self.prepare: Callable[[Config], Callable[[], None]] = lambda _: lambda: None
        """Called with a configuration that is to serve; returns what has the web application serve it."""
        self._pending: tuple[FoundConfiguration, Callable[[], None]] | None = None
        self._unrecorded: FoundConfiguration | None = FoundConfiguration(config)
        self._stands_by = False
        self._ending = threading.Event()
        self._abandoning = threading.Event()
        self._last_cycle = time.monotonic()
        self._in_hand: dict[str, threading.Lock] = {}
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()

    def run(self) -> None:
        """Go on until ``end`` is called."""
        pause = min(CYCLE_SECONDS, self.config.service.lease / BEATS)
        load_jobs()
        memory = FreeMemory()
        log.info("instance %s", self.leadership.instance)
        while not self._ending.is_set():
            self._cycle()
            self._last_cycle = time.monotonic()
            memory.give_back()
            self._ending.wait(pause)
        self._finish()

    def end(self) -> None:
        """Ask it to end: the step in hand is finished, or undone if it takes too long."""
        self._ending.set()

    def _cycle(self) -> None:
        self._follow_configuration()
        led = self.leadership.is_leader
        try:
            leads = self.leadership.lead()
        except StoreError as error:
            if not self.facts.fault:  # else it is said already; a line a second would fill the disk of the log
                log.error("%s", error)
            self.facts.fault = str(error)
            return  # who led before goes on until it knows better; it can commit nothing without the database
        if self.facts.fault:
            self.facts.fault = ""
            log.info("the service's state can be written to again")
        try:
            if leads and not led:
                log.info("this instance leads now (term %s)", self.leadership.term)
                close_lost(self.store, now=datetime.now(UTC))
            if not leads:
                if led or self.schedule is not None:
                    log.warning("another instance leads now")
                    self._stop_schedule()
                elif not self._stands_by:
                    log.info("another instance leads, as `detector status` says; this one waits until that has ended")
                self._stands_by = True
                return
            self._stands_by = False
            self._keep_schedule()
            self._answer_requests()
            self._record_configuration()
        except Exception:
            log.exception("the jobs could not be scheduled")
            self._stop_schedule()

    def _follow_configuration(self) -> None:
        """Look whether the file has changed; take it over once no batch is in hand."""
        found = None if self.file is None else self.file.look(self.config)
        if found is not None:
            self._pending = None
            try:
                if found.config is not None and found.changed:
                    self._pending = found, self.prepare(found.config)
            except Exception as error:  # noqa: BLE001 - the service goes on with what it has
                found = FoundConfiguration(None, refused=f"{type(error).__name__}: {error}")
            if found.refused and found.refused != self.facts.refused:
                log.error("the changed configuration is not taken over, the one before goes on: %s", found.refused)
            if found.refused != self.facts.refused:
                self._unrecorded = found
            self.facts.refused = found.refused
            self.facts.reloads.looked(found)
        if self._pending is not None:
            self._take_over(*self._pending)

    def _take_over(self, found: FoundConfiguration, turn: Callable[[], None]) -> None:
        lock = self._lock_of("score")
        if found.config is None or not lock.acquire(blocking=False):
            return  # the batch in hand is finished first
        try:
            before, self.config, self._pending = self.config, found.config, None
            self.facts.take(found.config)
            turn()
            if (before.service.jobs, before.service.timezone) != (
                self.config.service.jobs,
                self.config.service.timezone,
            ):
                self._stop_schedule()
        finally:
            lock.release()
        self._unrecorded = found
        log.info("the changed configuration serves now: %s", listed(found.changed))

    def _record_configuration(self) -> None:
        """Write down, and have reported, what became of a changed file; tried again if the database is away."""
        if (found := self._unrecorded) is not None:
            instance, fence = self.leadership.instance, self.leadership.fence
            record_change(self.store, found, config=self.config, instance=instance, fence=fence)
            if self._unrecorded is found:
                self._unrecorded = None

    def _keep_schedule(self) -> None:
        if self.schedule is not None and not self.schedule.is_alive:
            log.warning("the scheduler has ended; it is started anew")
            self._stop_schedule()
        if self.schedule is None:
            schedule = Schedule(self.store, self.config.service, run=self._run_due, on_unrun=self._note_unrun)
            schedule.start()
            self.schedule = schedule
            times = sorted((moment, name) for name, moment in schedule.next_times().items() if moment is not None)
            log.info("next, in UTC: %s", ", ".join(f"{name} {moment:%Y-%m-%d %H:%M:%S}" for moment, name in times))
        self.schedule.mend()

    def _stop_schedule(self) -> None:
        if self.schedule is not None:
            self.schedule.stop(wait=False)
            self.schedule = None

    def _run_due(self, job: str) -> None:
        if self._ending.is_set() or not self.leadership.is_leader:
            return
        try:
            if not self._is_paused(job):
                self.run_and_follow(job, trigger="schedule")
        except DetectorError as error:
            schedule = self.schedule
            due = None if schedule is None else schedule.next_times().get(job)
            again = "" if due is None else f", and is tried again at {due:%Y-%m-%d %H:%M:%S} UTC"
            log.error("%s could not run%s: %s", job, again, error)

    def _is_paused(self, job: str) -> bool:
        with self.store.read() as session:
            state = session.get(JobState, job)
            return state is not None and state.paused

    def _note_unrun(self, job: str, outcome: str, why: str) -> None:
        note_unrun(self.store, job, outcome, instance=self.leadership.instance, why=why)

    def run_and_follow(self, job: str, *, trigger: str, arguments: dict[str, object] | None = None) -> int:
        """Run a job, and those it brings with it; scoring, backfill and replay take turns."""
        number, found = self._run_one(job, trigger=trigger, arguments=arguments or {})
        following = list(found.then if found is not None else ())
        for name in following[:MOST_FOLLOWING]:
            if not self._ending.is_set():
                self._run_one(name, trigger=job, arguments={})
        return number

    def _run_one(self, job: str, *, trigger: str, arguments: dict[str, object]) -> tuple[int, JobOutcome | None]:
        while True:
            with self._lock_of("score" if job in ("backfill", "replay") else job):
                context = self.context(arguments, yields=job == "score")
                found = run_job(
                    context, job, trigger=trigger, instance=self.leadership.instance, on_end=self.metrics.on_end
                )
            if job != "score" or (self._pending is None and context.config is self.config):
                return found
            while self._pending is not None and not self._ending.is_set():
                time.sleep(WAIT_SECONDS)
            if self._ending.is_set() or not self.leadership.is_leader:
                return found
            trigger = "configuration"  # what it left is scored by the configuration that serves now

    def context(self, arguments: dict[str, object], *, yields: bool = False) -> Context:
        """What a job of this instance is given; one that ``yields`` ends after its step for another configuration."""
        return Context(
            config=self.config,
            store=self.store,
            now=datetime.now(UTC),
            arguments=arguments,
            stopping=lambda: self._ending.is_set() or (yields and self._pending is not None),
            abandoning=self._abandoning.is_set,
            fence=self.leadership.fence_of_term(),
            cache=self.cache,
        )

    def _lock_of(self, job: str) -> threading.Lock:
        """The lock under which jobs of a kind run one at a time."""
        with self._lock:
            return self._in_hand.setdefault(job, threading.Lock())

    def _answer_requests(self) -> None:
        """Begin what commands have asked for, each in a thread of its own."""
        with self.store.read() as session:
            waiting = list(session.scalars(sa.select(Request).where(~Request.taken).order_by(Request.id)))
            session.expunge_all()
        for request in waiting:
            with self.store.write() as session:
                session.execute(sa.update(Request).where(Request.id == request.id).values(taken=True))
                self.leadership.fence(session)
            thread = threading.Thread(target=self._answer, args=(request,), name=f"request {request.id}")
            thread.start()
            self._threads = [*(each for each in self._threads if each.is_alive()), thread]

    def _answer(self, request: Request) -> None:
        number: int | None = None
        try:
            number = self.run_and_follow(request.job, trigger="request", arguments=dict(request.arguments))
        except DetectorError as error:
            log.error("the request %d for %s failed: %s", request.id, request.job, error)
        try:
            with self.store.write() as session:
                session.execute(sa.update(Request).where(Request.id == request.id).values(run=number or -1))
        except StoreError as error:
            log.error("the request %d could not be closed: %s", request.id, error)

    def _finish(self) -> None:
        """Give the step in hand some time, then undo it; then let go of the lease."""
        log.info("ending")
        self._stop_schedule()
        self._wait_for_jobs()
        self._abandoning.set()
        self._wait_for_jobs()
        try:
            self.leadership.release()
        except StoreError as error:
            log.error("%s", error)
        log.info("ended")

    def _wait_for_jobs(self) -> None:
        """Until no job is in hand, for ``service.stop_within`` at most; meanwhile the lease is kept."""
        deadline = time.monotonic() + self.config.service.stop_within
        while self.is_busy and time.monotonic() < deadline:
            try:
                if self.leadership.is_leader:
                    self.leadership.lead()
            except StoreError as error:
                log.error("%s", error)
            time.sleep(WAIT_SECONDS)

    @property
    def is_busy(self) -> bool:
        """Whether a job is in hand."""
        return any(lock.locked() for lock in self._in_hand.values())
