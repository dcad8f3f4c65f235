"""``detector serve``: lead or wait, run the jobs, answer over HTTP, and end in good order."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from types import FrameType

import sqlalchemy as sa
from fastapi import FastAPI

from detector.errors import DetectorError, StoreError
from pipelines.alerts.feedback.router import answer_router
from pipelines.config import Config
from pipelines.jobs.catalogue import load_jobs
from pipelines.jobs.context import Context, JobOutcome, ProcessCache
from pipelines.service.facts import Facts
from pipelines.service.http import PAGES, HttpServer, application
from pipelines.service.leader import BEATS, Leadership
from pipelines.service.memory import FreeMemory, share_arenas
from pipelines.service.metrics import Metrics
from pipelines.service.runs import close_lost, note_unrun, run_job
from pipelines.service.scheduler import Schedule
from pipelines.store import JobState, Request, Store

log = logging.getLogger("detector.service")

CYCLE_SECONDS = 1.0
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
        led = self.leadership.is_leader
        try:
            leads = self.leadership.lead()
        except StoreError as error:
            log.error("%s", error)
            return  # who led before goes on until it knows better; it can commit nothing without the database
        try:
            if leads and not led:
                log.info("this instance leads now (term %s)", self.leadership.term)
                close_lost(self.store, now=datetime.now(UTC))
            if not leads:
                if led or self.schedule is not None:
                    log.warning("another instance leads now")
                    self._stop_schedule()
                return
            self._keep_schedule()
            self._answer_requests()
        except Exception:
            log.exception("the jobs could not be scheduled")
            self._stop_schedule()

    def _keep_schedule(self) -> None:
        if self.schedule is not None and not self.schedule.is_alive:
            log.warning("the scheduler has ended; it is started anew")
            self._stop_schedule()
        if self.schedule is None:
            schedule = Schedule(self.store, self.config.service, run=self._due, on_unrun=self._unrun)
            schedule.start()
            self.schedule = schedule
            times = {name: str(moment) for name, moment in schedule.next_times().items()}
            log.info("next: %s", ", ".join(f"{name} {moment}" for name, moment in sorted(times.items())))
        self.schedule.mend()

    def _stop_schedule(self) -> None:
        if self.schedule is not None:
            self.schedule.stop(wait=False)
            self.schedule = None

    def _due(self, job: str) -> None:
        if self._ending.is_set() or not self.leadership.is_leader or self._is_paused(job):
            return
        self.run_and_follow(job, trigger="schedule")

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
        with self._turn("score" if job in ("backfill", "replay") else job):
            return run_job(
                self.context(arguments),
                job,
                trigger=trigger,
                instance=self.leadership.instance,
                on_end=self.metrics.on_end,
            )

    def context(self, arguments: dict[str, object]) -> Context:
        """What a job of this instance is given."""
        return Context(
            config=self.config,
            store=self.store,
            now=datetime.now(UTC),
            arguments=arguments,
            stopping=self._ending.is_set,
            abandoning=self._abandoning.is_set,
            fence=self.leadership.fence_of_term(),
            cache=self.cache,
        )

    def _turn(self, job: str) -> _Turn:
        with self._lock:
            lock = self._in_hand.setdefault(job, threading.Lock())
        return _Turn(lock)

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


class _Turn:
    """One job of a kind at a time."""

    def __init__(self, lock: threading.Lock) -> None:
        self._lock = lock

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def serve(
    config: Config, store: Store, *, doors: Callable[[FastAPI, Config, Store, Facts], Sequence[str]] = lambda *_: ()
) -> None:
    """Run an instance, with its HTTP server, until SIGTERM or SIGINT.

    ``doors`` adds to its web application what lies above the service, and names it: the API and the console.

    Raises ``SettingError`` if the port is taken.
    """
    share_arenas()
    service = Service(config, store)
    app = application(service.facts, service.metrics)
    app.include_router(answer_router(config, store, clock=lambda: datetime.now(UTC)))
    pages = [*doors(app, config, store, service.facts), *PAGES]
    server = HttpServer(app, host=config.service.host, port=config.service.port, pages=pages)

    last = threading.Timer(2 * config.service.stop_within + LAST_SECONDS, _give_up)
    last.daemon = True

    def end(number: int, _: FrameType | None) -> None:
        log.info("%s", signal.Signals(number).name)
        service.end()
        if last.ident is None:
            last.start()

    previous = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}
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
