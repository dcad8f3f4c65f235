"""When jobs run: APScheduler, used by the leader only.

The registry of jobs is in ``pipelines.jobs.catalogue``. A time that comes while the job still runs is left out; of
several times missed while no instance ran, one is made up for; both leave a record.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from apscheduler.events import EVENT_JOB_MAX_INSTANCES, EVENT_JOB_MISSED, JobEvent
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.base import BaseTrigger

from pipelines.config.service import JobSection, ServiceSection
from pipelines.cron import Interval, parse
from pipelines.service.due_times import DueTimes, forget_all_but, settings_of, written_times
from pipelines.store import Store

log = logging.getLogger("detector.schedule")


class WhenTrigger(BaseTrigger):  # type: ignore[misc]  # APScheduler ships no types
    """The times of a setting such as ``every 5m`` or ``0 3 * * sun``.

    - ``text``, ``zone``: as ``pipelines.cron.parse`` takes them.
    - ``jitter``: seconds by which each time is put off at most.
    """

    def __init__(self, text: str, *, zone: str, jitter: int = 0) -> None:
        self.text = text
        self.zone = zone
        self.jitter = jitter

    def __str__(self) -> str:
        return self.text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, WhenTrigger) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash((self.text, self.zone, self.jitter))

    def get_next_fire_time(self, previous: datetime | None, now: datetime) -> datetime:
        """The next time after the last one, or after now; of times that have passed by now, the last.

        APScheduler asks for one after the other until now, and keeps the last. After a clock that was years behind, or
        months in which nothing ran, those were millions, and nothing ran for minutes.
        """
        when = parse(self.text, zone=self.zone)
        following = when.after(previous or now)
        if following <= now:
            return when.last(following, now)
        delay = random.uniform(0, self.jitter) if self.jitter else 0.0
        return following + timedelta(seconds=delay)


def sections_of(section: ServiceSection) -> dict[str, JobSection]:
    """The settings of each job that can be scheduled."""
    return {name: getattr(section.jobs, name) for name in type(section.jobs).model_fields}


class Schedule:
    """The jobs of one configuration, run in threads of this process.

    - ``store``: where the next times are written down, so that a time missed while nothing ran is known.
    - ``run``: called with the name of a job that is due.
    - ``on_unrun``: called with a job, an outcome and a reason when a time was left out.
    """

    def __init__(
        self,
        store: Store,
        section: ServiceSection,
        *,
        run: Callable[[str], None],
        on_unrun: Callable[[str, str, str], None],
    ) -> None:
        self.store = store
        self.section = section
        self._run = run
        self._on_unrun = on_unrun
        self._scheduler = BackgroundScheduler(
            timezone=UTC,
            jobstores={"default": DueTimes(store)},
            executors={"default": ThreadPoolExecutor(len(sections_of(section)))},
            job_defaults={"coalesce": True, "max_instances": 1},
        )
        self._scheduler.add_listener(self._on_event, EVENT_JOB_MAX_INSTANCES | EVENT_JOB_MISSED)

    def start(self) -> None:
        """Begin; a job whose times have not changed keeps the next of them, even if it has passed."""
        wanted = {name: section for name, section in sections_of(self.section).items() if section.enabled}
        forget_all_but(self.store, set(wanted))
        written = written_times(self.store)
        self._scheduler.start(paused=True)
        for name, section in wanted.items():
            trigger = WhenTrigger(section.when, zone=self.section.timezone, jitter=section.jitter)
            due_at, settings = written.get(name, (None, None))
            holds = settings in ({}, settings_of(trigger, section.grace))
            self._scheduler.add_job(
                self._run,
                trigger,
                args=[name],
                id=name,
                name=name,
                misfire_grace_time=section.grace,
                next_run_time=due_at if holds else self._first(trigger),
            )
        self.mend()
        self._scheduler.resume()

    def _first(self, trigger: WhenTrigger) -> datetime:
        """At once if it runs every so often, else at the next of its times."""
        now = datetime.now(UTC)
        return now if isinstance(parse(trigger.text), Interval) else trigger.get_next_fire_time(None, now)

    def mend(self) -> None:
        """Bring times nearer that lie too far ahead because the clock was set back."""
        now = datetime.now(UTC)
        for job in self._scheduler.get_jobs():
            latest = job.trigger.get_next_fire_time(None, now) + timedelta(seconds=job.trigger.jitter + 1)
            if job.next_run_time is not None and job.next_run_time > latest:
                log.warning("%s: the clock was set back; its next time is %s now", job.id, latest.isoformat())
                job.modify(next_run_time=latest)

    @property
    def is_alive(self) -> bool:
        """Whether the thread that waits for the next time still runs."""
        thread: threading.Thread | None = getattr(self._scheduler, "_thread", None)
        return thread is not None and thread.is_alive()

    def next_times(self) -> dict[str, datetime | None]:
        """When each job runs next."""
        return {job.id: job.next_run_time for job in self._scheduler.get_jobs()}

    def stop(self, *, wait: bool) -> None:
        """End; jobs in hand go on until they end by themselves."""
        if self._scheduler.running:
            self._scheduler.shutdown(wait=wait)

    def _on_event(self, event: JobEvent) -> None:
        if event.code == EVENT_JOB_MISSED:
            due: Any = getattr(event, "scheduled_run_time", None)
            self._on_unrun(event.job_id, "missed", f"it was due at {due}, longer ago than its grace allows")
        else:
            self._on_unrun(event.job_id, "overlapped", "it was due while its last run still went on")
