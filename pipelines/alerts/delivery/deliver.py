"""Delivery: at least once, in order for each entity, one thread a target, so that a slow one keeps no other waiting.

An alert is taken out of the outbox, sent, and marked as sent. If this process dies between the two last steps, it is
sent again with the same id: receivers that look at ids keep one.
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
from pipelines.alerts.channels.channel import Channel
from pipelines.alerts.channels.targets import Target, secrets_of, targets_of, without_secrets
from pipelines.alerts.delivery import queue
from pipelines.alerts.delivery.digests import end_days, end_quiet
from pipelines.alerts.delivery.queue import Parcel, Result
from pipelines.alerts.message.message import message_of
from pipelines.alerts.network.errors import DeliveryError
from pipelines.jobs.context import Context, JobOutcome
from pipelines.testing.failpoints import fault

MOST_SECONDS = 45.0
MANY, FEW = 100, 10
POLL_SECONDS = 0.1
STORE_TRIES = 3
log = logging.getLogger("detector.alerts")

Opener = Callable[[Target], Channel]


@dataclass
class Round:
    """What the threads of one run have in common.

    Parameters
    ----------
    context : Context
        Of the run.
    open_channel : callable
        Makes the channel of a target.
    draw : Random
        For the jitter.
    most_seconds : float
        When the run ends, though more may be waiting.
    """

    context: Context
    open_channel: Opener
    draw: random.Random
    most_seconds: float = MOST_SECONDS
    started: float = field(default_factory=time.monotonic)
    sent: dict[str, int] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    problems: list[StoreError] = field(default_factory=list)
    _busy: set[str] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def now(self) -> datetime:
        """The time of the run, going on."""
        return self.context.now + timedelta(seconds=time.monotonic() - self.started)

    def over(self) -> bool:
        """Whether to end."""
        return self.context.stopping() or time.monotonic() - self.started > self.most_seconds

    def is_busy(self, target: str, busy: bool) -> bool:
        """Note whether a target has work; returns whether any has."""
        with self._lock:
            (self._busy.add if busy else self._busy.discard)(target)
            return bool(self._busy)


def deliver(context: Context, *, draw: random.Random | None = None, most_seconds: float = MOST_SECONDS) -> JobOutcome:
    """Send what waits to be sent; a job of the service.

    Parameters
    ----------
    context : Context
        Of the run.
    draw : Random, optional
        For the jitter.
    most_seconds : float
        When to end, though more may be waiting.

    Raises
    ------
    StoreError
        If the service's state cannot be used. What was sent and could not be marked is sent again, with the same id.
    """
    config = context.config
    with context.store.write() as session:
        end_quiet(session, config=config, now=context.now)
        end_days(session, config=config, now=context.now)
        dead = queue.give_up(session, now=context.now, hours=config.alerts.retry.give_up_hours)
        context.fence(session)
    if dead:
        log.error("%d alerts were not taken in time and are put aside: see `detector alerts list --state dead`", dead)
    shared = Round(context, lambda target: target.open(config), draw or random.Random(), most_seconds)
    targets = targets_of(config)
    for target in targets:
        shared.is_busy(target.name, True)
    threads = [
        threading.Thread(target=_run, args=(shared, target), name=f"alerts-{target.name}", daemon=True)
        for target in targets
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if shared.problems:
        raise shared.problems[0]
    return _outcome(shared)


def _outcome(shared: Round) -> JobOutcome:
    with shared.context.store.read() as session:
        found = queue.counts(session)
    sent = sum(shared.sent.values())
    parts = [f"sent {sent:,}"] if sent else []
    parts += [f"{found['waiting']:,} waiting"] if found.get("waiting") else []
    parts += [f"{found['dead']:,} put aside"] if found.get("dead") else []
    parts += [f"{name}: {text}" for name, text in sorted(shared.failed.items())]
    gauges = {f"alerts_{state}": float(found.get(state, 0)) for state in ("waiting", "held", "dead")}
    gauges |= {f"alert_target_down:{target.name}": float(target.name in shared.failed) for target in _named(shared)}
    idle = not sent and not shared.failed
    return JobOutcome(
        rows=sent,
        note="; ".join(parts) or "nothing to send",
        outcome="skipped" if idle else "done",
        facts={"sent": dict(shared.sent), "failed": dict(shared.failed)},
        gauges=gauges,
    )


def _named(shared: Round) -> list[Target]:
    return targets_of(shared.context.config)


def _run(shared: Round, target: Target) -> None:
    """One target, until nothing is due for any."""
    courier = Courier(shared, target)
    try:
        while not shared.over():
            if courier.round_trip():
                shared.is_busy(target.name, True)
            elif shared.is_busy(target.name, False):
                time.sleep(POLL_SECONDS)
            else:
                return
    except StoreError as error:
        shared.problems.append(error)
    finally:
        shared.is_busy(target.name, False)
        courier.close()


class Courier:
    """Takes alerts to one target.

    Parameters
    ----------
    shared : Round
        The run.
    target : Target
        Where to.
    """

    def __init__(self, shared: Round, target: Target) -> None:
        self.shared = shared
        self.target = target
        self.alerts = shared.context.config.alerts
        self._secrets = secrets_of(self.alerts)
        self._channel: Channel | None = None
        self._lease = timedelta(seconds=3 * self.alerts.retry.timeout + 5)

    def close(self) -> None:
        """Let go of connections."""
        if self._channel is not None:
            self._channel.close()

    def round_trip(self) -> bool:
        """Take some, send them, write down what became of them; whether there were any."""
        most = MANY if self.target.honours_ids or not self.target.wakes_people else FEW
        with self.shared.context.store.read() as session:
            if not queue.is_due(session, self.target.name, now=self.shared.now()):
                return False
        with self.shared.context.store.write() as session:
            parcels = queue.take(session, self.target.name, now=self.shared.now(), most=most, lease=self._lease)
            if parcels:
                self.shared.context.fence(session)
        if not parcels:
            return False
        fault("alerts.claimed")
        began, results = time.monotonic(), []
        while parcels:
            result = self._send(parcels.pop(0))
            results.append(result)
            fault("alerts.sent")
            late = time.monotonic() - began > self._lease.total_seconds() / 2
            if late or self.shared.over() or (result.error is not None and result.error.kind != "refused"):
                break
            if not self.target.honours_ids and self.target.wakes_people:  # a second copy would ring twice
                self._settle(results, [])
                results = []
        self._settle(results, parcels)
        return True

    def _send(self, parcel: Parcel) -> Result:
        message = message_of(parcel.alert, section=self.alerts, target=self.target.name)
        try:
            if self._channel is None:
                self._channel = self.shared.open_channel(self.target)
            self._channel.send(message, now=self.shared.now())
        except DeliveryError as error:
            return self._failed(parcel, error)
        except (DetectorError, SettingError) as error:
            return self._failed(parcel, DeliveryError(str(error)))
        except Exception as error:  # noqa: BLE001 - a fault in one channel must not end the others, nor lose an alert
            return self._failed(parcel, DeliveryError(f"{self.target.name} failed: {type(error).__name__}."))
        self.shared.sent[self.target.name] = self.shared.sent.get(self.target.name, 0) + 1
        self.shared.failed.pop(self.target.name, None)
        return Result(parcel, self.shared.now())

    def _failed(self, parcel: Parcel, error: DeliveryError) -> Result:
        text = without_secrets(str(error), self._secrets)[:500]
        self.shared.failed[self.target.name] = text
        log.warning("an alert was not delivered to %s: %s", self.target.name, text, extra={"alert": parcel.alert.id})
        return Result(parcel, self.shared.now(), error, text)

    def _settle(self, results: list[Result], untouched: list[Parcel]) -> None:
        """Write it down; tried again if the database is locked, for what is not written down is sent once more."""
        for attempt in range(STORE_TRIES):
            try:
                with self.shared.context.store.write() as session:
                    queue.settle(
                        session,
                        self.target.name,
                        results,
                        untouched,
                        now=self.shared.now(),
                        retry=self.alerts.retry,
                        draw=self.shared.draw,
                    )
            except StoreError:
                if attempt == STORE_TRIES - 1:
                    raise
                time.sleep(POLL_SECONDS * 2**attempt)
            else:
                return
