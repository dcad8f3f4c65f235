"""Delivery: at least once, in order for each entity, one thread a target, so that a slow one keeps no other waiting.

An alert is claimed, sent, and recorded as sent. If this process dies between the two last steps, it is
sent again with the same id: receivers that look at ids keep one. A target that hangs longer than a cycle lasts keeps
its thread, and the next cycles leave it out until that has ended.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from detector.errors import DetectorError, SettingError, StoreError
from pipelines.alerts.channels.targets import Channel, Target, secrets_of, targets_of, without_secrets
from pipelines.alerts.delivery import queue
from pipelines.alerts.delivery.digests import end_days, end_outage, end_quiet
from pipelines.alerts.delivery.outages import report_outages
from pipelines.alerts.delivery.queue import Claimed, Result
from pipelines.alerts.message.message import message_of
from pipelines.alerts.network.errors import DeliveryError
from pipelines.jobs.context import Context, JobOutcome
from pipelines.testing.failpoints import failpoint

MOST_SECONDS = 45.0
MANY, FEW = 100, 10
POLL_SECONDS = 0.1
STORE_TRIES = 3
LAST_SECONDS = 2.0
"""What a send in hand is given when a cycle is over; then its thread goes on alone."""

HANGS = "no answer yet; it is left alone until there is one"
log = logging.getLogger("detector.alerts")

Opener = Callable[[Target], Channel]


@dataclass
class Cycle:
    """What the workers of one run have in common; it ends after ``most_seconds``, though more may be waiting."""

    context: Context
    open_channel: Opener
    jitter: random.Random
    most_seconds: float = MOST_SECONDS
    started: float = field(default_factory=time.monotonic)
    sent: dict[str, int] = field(default_factory=dict)
    alerts: set[str] = field(default_factory=set)
    failed: dict[str, str] = field(default_factory=dict)
    problems: list[StoreError] = field(default_factory=list)
    is_left: bool = False  # its end was not waited for: nobody looks at the problems any more
    _busy: set[str] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def now(self) -> datetime:
        """The time of the run, going on."""
        return self.context.now + timedelta(seconds=time.monotonic() - self.started)

    def over(self) -> bool:
        """Whether to end."""
        return self.context.stopping() or time.monotonic() - self.started > self.most_seconds

    def note(self, target: str, *, busy: bool) -> None:
        """Note whether a target has work."""
        with self._lock:
            (self._busy.add if busy else self._busy.discard)(target)

    @property
    def is_busy(self) -> bool:
        """Whether any target has work."""
        with self._lock:
            return bool(self._busy)


def deliver(context: Context, *, most_seconds: float = MOST_SECONDS) -> JobOutcome:
    """Send what waits to be sent, for at most so long; a job of the service.

    Raises
    ------
    StoreError
        If the service's state cannot be used. What was sent and could not be marked is sent again, with the same id.
    """
    config = context.config
    with context.store.write() as session:
        end_quiet(session, config=config, now=context.now)
        end_days(session, config=config, now=context.now)
        report_outages(session, config=config, now=context.now)
        queue.bring_nearer(session, now=context.now, retry=config.alerts.retry)
        names = [target.name for target in targets_of(config)]
        dead = queue.give_up(session, names, now=context.now, hours=config.alerts.retry.give_up_hours)
        context.fence(session)
    if dead:
        log.error("%d alerts were not taken in time and are given up: see `detector alerts list --state dead`", dead)
    cycle = Cycle(context, lambda target: target.open(config), random.Random(), most_seconds)
    threads: dict[str, threading.Thread] = context.cache.of("alert threads", None, dict)
    begun = [target for target in targets_of(config) if target.name not in _alive(threads)]
    for target in begun:
        cycle.note(target.name, busy=True)
        name = f"alerts-{target.name}"
        threads[target.name] = threading.Thread(target=_run, args=(cycle, target), name=name, daemon=True)
    for target in begun:
        threads[target.name].start()
    _wait(cycle, [threads[target.name] for target in begun])
    if cycle.problems:
        raise cycle.problems[0]
    return _outcome(cycle, _alive(threads))


def _alive(threads: dict[str, threading.Thread]) -> list[str]:
    return [name for name, thread in threads.items() if thread.is_alive()]


def _wait(cycle: Cycle, threads: list[threading.Thread]) -> None:
    """Until all have ended, or the cycle is over and a send in hand does not end: it is not to hold up the next."""
    while any(thread.is_alive() for thread in threads) and not cycle.over():
        time.sleep(POLL_SECONDS / 10)
    last = time.monotonic() + min(LAST_SECONDS, cycle.context.config.service.stop_within / 2)
    for thread in threads:
        thread.join(max(0.0, last - time.monotonic()))
    cycle.is_left = any(thread.is_alive() for thread in threads)


def _outcome(cycle: Cycle, hanging: list[str]) -> JobOutcome:
    with cycle.context.store.read() as session:
        found = queue.counts(session)
    sent_to, failed = dict(cycle.sent), dict(cycle.failed) | dict.fromkeys(hanging, HANGS)
    sent = sum(sent_to.values())
    parts = [f"sent {sent:,}"] if sent else []
    parts += [f"{found['waiting']:,} waiting"] if found.get("waiting") else []
    parts += [f"{found['dead']:,} given up"] if found.get("dead") else []
    parts += [f"{name}: {text}" for name, text in sorted(failed.items())]
    gauges = {f"alerts_{state}": float(found.get(state, 0)) for state in ("waiting", "held", "dead")}
    gauges |= {
        f"alert_target_down:{target.name}": float(target.name in failed) for target in targets_of(cycle.context.config)
    }
    idle = not sent and not failed
    return JobOutcome(
        rows=sent,
        note="; ".join(parts) or "nothing to send",
        outcome="skipped" if idle else "done",
        facts={"sent": sent_to, "failed": failed, "alerts": set(cycle.alerts)},
        gauges=gauges,
    )


def _run(cycle: Cycle, target: Target) -> None:
    """One target, until nothing is due for any."""
    worker = TargetWorker(cycle, target)
    try:
        while not cycle.over():
            found = worker.step()
            cycle.note(target.name, busy=found)
            if not cycle.is_busy:
                return
            if not found:
                time.sleep(POLL_SECONDS)
    except StoreError as error:
        cycle.problems.append(error)
        if cycle.is_left:
            log.error("what became of alerts to %s could not be recorded: %s", target.name, error)
    finally:
        cycle.note(target.name, busy=False)
        worker.close()


class TargetWorker:
    """Takes alerts to one target."""

    def __init__(self, cycle: Cycle, target: Target) -> None:
        self.cycle = cycle
        self.target = target
        self.alerts = cycle.context.config.alerts
        self._secrets = secrets_of(self.alerts)
        self._channel: Channel | None = None
        self._lease = timedelta(seconds=3 * self.alerts.retry.timeout + 5)

    def close(self) -> None:
        """Let go of connections."""
        if self._channel is not None:
            self._channel.close()

    def step(self) -> bool:
        """Claim some, send them, record what became of them; whether there were any."""
        most = MANY if self.target.honours_ids or not self.target.wakes_people else FEW
        with self.cycle.context.store.read() as session:
            if not queue.is_due(session, self.target.name, now=self.cycle.now()):
                return False
        with self.cycle.context.store.write() as session:
            claimed = queue.claim(session, self.target.name, now=self.cycle.now(), most=most, lease=self._lease)
            if claimed:
                self.cycle.context.fence(session)
        if not claimed:
            return False
        failpoint("alerts.claimed")
        began, results = time.monotonic(), []
        while claimed:
            result = self._send(claimed.pop(0))
            results.append(result)
            failpoint("alerts.sent")
            late = time.monotonic() - began > self._lease.total_seconds() / 2
            if late or self.cycle.over() or (result.error is not None and result.error.kind != "refused"):
                break
            if not self.target.honours_ids and self.target.wakes_people:  # a second copy would ring twice
                self._record(results, [])
                results = []
        self._record(results, claimed)
        return True

    def _send(self, claimed: Claimed) -> Result:
        message = message_of(claimed.alert, section=self.alerts, target=self.target.name)
        try:
            if self._channel is None:
                self._channel = self.cycle.open_channel(self.target)
            self._channel.send(message, now=self.cycle.now())
        except DeliveryError as error:
            return self._failed(claimed, error)
        except (DetectorError, SettingError) as error:
            return self._failed(claimed, DeliveryError(str(error)))
        except Exception as error:  # noqa: BLE001 - a fault in one channel must not end the others, nor lose an alert
            return self._failed(claimed, DeliveryError(f"{self.target.name} failed: {type(error).__name__}."))
        self.cycle.sent[self.target.name] = self.cycle.sent.get(self.target.name, 0) + 1
        self.cycle.alerts.add(claimed.alert.id)
        self.cycle.failed.pop(self.target.name, None)
        return Result(claimed, self.cycle.now())

    def _failed(self, claimed: Claimed, error: DeliveryError) -> Result:
        text = without_secrets(str(error), self._secrets)[:500]
        self.cycle.failed[self.target.name] = text
        log.warning("an alert was not delivered to %s: %s", self.target.name, text, extra={"alert": claimed.alert.id})
        return Result(claimed, self.cycle.now(), error, text)

    def _record(self, results: list[Result], untouched: list[Claimed]) -> None:
        """Record it; tried again if the database is locked, for what is not recorded is sent once more."""
        now = self.cycle.now()
        for attempt in range(STORE_TRIES):
            try:
                with self.cycle.context.store.write() as session:
                    down_since = queue.record(
                        session,
                        self.target.name,
                        results,
                        untouched,
                        now=now,
                        retry=self.alerts.retry,
                        jitter=self.cycle.jitter,
                    )
                    if down_since is not None and self.target.wakes_people:
                        config = self.cycle.context.config
                        end_outage(session, self.target.name, since=down_since, config=config, now=now)
            except StoreError:
                if attempt == STORE_TRIES - 1:
                    raise
                time.sleep(POLL_SECONDS * 2**attempt)
            else:
                return
