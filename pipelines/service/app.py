"""``detector serve``: lead or wait, run the jobs, answer over HTTP, and end in good order."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from types import FrameType

import sqlalchemy as sa
from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from detector.errors import DetectorError, StoreError
from pipelines.alerts.feedback.router import answer_router
from pipelines.config import Config
from pipelines.config.difference import listed
from pipelines.jobs.catalogue import load_jobs
from pipelines.jobs.context import Context, JobOutcome, ProcessCache
from pipelines.service.configuration_file import ConfigurationFile, Reading, check_serves
from pipelines.service.facts import Facts
from pipelines.service.http import PAGES, HttpServer, application
from pipelines.service.leader import BEATS, Leadership
from pipelines.service.memory import FreeMemory, share_arenas
from pipelines.service.metrics import Metrics
from pipelines.service.reload_record import tell
from pipelines.service.reloads import Reloads
from pipelines.service.runs import close_lost, note_unrun, run_job
from pipelines.service.scheduler import Schedule
from pipelines.store import JobState, Request, Store

log = logging.getLogger("detector.service")

CYCLE_SECONDS = 1.0
WAIT_SECONDS = 0.05
LAST_SECONDS = 5.0
"""What is left to let go of the lease and of connections, once the job in hand was given its time."""
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
        self.file = None if config.file is None else ConfigurationFile(config.file, check=self._check)
        self.facts.reloads = Reloads(None if self.file is None else self.file.read_again)
        self.prepare: Callable[[Config], Callable[[], None]] = lambda _: lambda: None
        """Called with a configuration that is to serve; returns what has the web application serve it."""
        self._pending: tuple[Reading, Callable[[], None]] | None = None
        self._untold: Reading | None = Reading(config)
        self._stands_by = False
        self._ending = threading.Event()
        self._abandoning = threading.Event()
        self._last_cycle = time.monotonic()
        self._in_hand: dict[str, threading.Lock] = {}
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()

    def run(self) -> None:
        """Go on until ``end`` is called, or the process gets SIGTERM or SIGINT."""
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
            self._tell_of_configuration()
        except Exception:
            log.exception("the jobs could not be scheduled")
            self._stop_schedule()

    def _check(self, serving: Config, config: Config) -> None:
        check_serves(serving, config, self.cache)

    def _follow_configuration(self) -> None:
        """Look whether the file has changed; take it over once no batch is in hand."""
        found = None if self.file is None else self.file.look(self.config)
        if found is not None:
            self._pending = None
            try:
                if found.config is not None and found.changed:
                    self._pending = found, self.prepare(found.config)
            except Exception as error:  # noqa: BLE001 - the service goes on with what it has
                found = Reading(None, refused=f"{type(error).__name__}: {error}")
            if found.refused and found.refused != self.facts.refused:
                log.error("the changed configuration is not taken over, the one before goes on: %s", found.refused)
            if found.refused != self.facts.refused:
                self._untold = found
            self.facts.refused = found.refused
            self.facts.reloads.looked(found)
        if self._pending is not None:
            self._take_over(*self._pending)

    def _take_over(self, found: Reading, turn: Callable[[], None]) -> None:
        lock = self._turn_of("score")
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
        self._untold = found
        log.info("the changed configuration serves now: %s", listed(found.changed))

    def _tell_of_configuration(self) -> None:
        """Write down, and have reported, what became of a changed file; tried again if the database is away."""
        if (found := self._untold) is not None:
            tell(self.store, found, config=self.config, instance=self.leadership.instance, fence=self.leadership.fence)
            if self._untold is found:
                self._untold = None

    def _keep_schedule(self) -> None:
        if self.schedule is not None and not self.schedule.is_alive:
            log.warning("the scheduler has ended; it is started anew")
            self._stop_schedule()
        if self.schedule is None:
            schedule = Schedule(self.store, self.config.service, run=self._due, on_unrun=self._unrun)
            schedule.start()
            self.schedule = schedule
            times = sorted((moment, name) for name, moment in schedule.next_times().items() if moment is not None)
            log.info("next, in UTC: %s", ", ".join(f"{name} {moment:%Y-%m-%d %H:%M:%S}" for moment, name in times))
        self.schedule.mend()

    def _stop_schedule(self) -> None:
        if self.schedule is not None:
            self.schedule.stop(wait=False)
            self.schedule = None

    def _due(self, job: str) -> None:
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

    def _unrun(self, job: str, outcome: str, why: str) -> None:
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
            with self._turn_of("score" if job in ("backfill", "replay") else job):
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

    def _turn_of(self, job: str) -> threading.Lock:
        """One job of a kind at a time."""
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
        if self.schedule is not None:
            self.schedule.stop(wait=False)
            self.schedule = None
        deadline = time.monotonic() + self.config.service.stop_within
        while self.is_busy and time.monotonic() < deadline:
            self._beat()
            time.sleep(0.05)
        self._abandoning.set()
        deadline = time.monotonic() + self.config.service.stop_within
        while self.is_busy and time.monotonic() < deadline:
            self._beat()
            time.sleep(0.05)
        try:
            self.leadership.release()
        except StoreError as error:
            log.error("%s", error)
        log.info("ended")

    def _beat(self) -> None:
        try:
            if self.leadership.is_leader:
                self.leadership.lead()
        except StoreError as error:
            log.error("%s", error)

    @property
    def is_busy(self) -> bool:
        """Whether a job is in hand."""
        return any(lock.locked() for lock in self._in_hand.values())


class _CurrentApplication:
    """The web application that answers now; another one can take its place, and requests in hand end in theirs."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        await self.app(scope, receive, send)

    def turn_to(self, app: ASGIApp) -> None:
        """Have another one answer."""
        self.app = app


def serve(
    config: Config, store: Store, *, mount: Callable[[FastAPI, Config, Store, Facts], Sequence[str]] = lambda *_: ()
) -> None:
    """Run an instance, with its HTTP server, until SIGTERM or SIGINT; SIGHUP has it read its configuration again.

    ``mount`` puts what lies above the service under its web application, the API and the console, and returns their
    paths.

    Raises ``SettingError`` if the port is taken.
    """
    share_arenas()
    service = Service(config, store)

    def opened(config: Config) -> tuple[FastAPI, list[str]]:
        app = application(service.facts, service.metrics)
        app.include_router(answer_router(config, store, clock=lambda: datetime.now(UTC)))
        return app, [*mount(app, config, store, service.facts), *PAGES]

    def prepare(config: Config) -> Callable[[], None]:
        app, _ = opened(config)
        return lambda: serving.turn_to(app)

    app, pages = opened(config)
    serving, service.prepare = _CurrentApplication(app), prepare
    server = HttpServer(serving, host=config.service.host, port=config.service.port, pages=pages)

    last = threading.Timer(2 * config.service.stop_within + LAST_SECONDS, _give_up)
    last.daemon = True

    def end(number: int, _: FrameType | None) -> None:
        log.info("%s", signal.Signals(number).name)
        service.end()
        if last.ident is None:
            last.start()

    def read_again(*_: object) -> None:
        if service.file is not None:
            service.file.read_again()

    previous = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}
    if not sys.stdin.isatty():  # else it says that the terminal was closed
        previous[signal.SIGHUP] = signal.signal(signal.SIGHUP, read_again)
    server.start()
    try:
        service.run()
    finally:
        server.stop()
        store.close()
        last.cancel()
        for number, handler in previous.items():
            signal.signal(number, handler)
    if service.is_busy:
        _give_up()


def _give_up() -> None:
    """End the process, whatever waits: a job that does not end, or a database that says nothing."""
    log.error("the service did not end in time; what it had in hand is undone, and done anew by the next")
    logging.shutdown()
    os._exit(1)
