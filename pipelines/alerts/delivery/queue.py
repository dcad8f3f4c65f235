"""The queue of deliveries: claiming what is due, and recording what became of it, each within a transaction."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.orm import Session, aliased

from pipelines.alerts.network.errors import DeliveryError
from pipelines.alerts.network.http import MOST_WAIT, backoff
from pipelines.config.alerting import RetrySection
from pipelines.store import Run
from pipelines.store.alert_tables import Alert, Delivery, TargetState


@dataclass(frozen=True)
class Claimed:
    """A delivery in hand, with its alert, detached from the session, and how often it was tried before."""

    delivery: int
    alert: Alert
    attempts: int


@dataclass(frozen=True)
class Result:
    """What became of a delivery: sent where there is no error."""

    claimed: Claimed
    at: datetime
    error: DeliveryError | None = None
    text: str = ""


def is_due(session: Session, target: str, *, now: datetime) -> bool:
    """Whether there may be something to claim; a look that locks nothing."""
    if _is_off(session.get(TargetState, target), now):
        return False
    due = sa.select(Delivery.id).where(Delivery.target == target, Delivery.state == "waiting", Delivery.next_at <= now)
    return session.execute(due.limit(1)).first() is not None


def _is_off(state: TargetState | None, now: datetime) -> bool:
    """Whether a target takes nothing now: it is disabled, or down until a later try."""
    return state is not None and (state.state == "disabled" or (state.retry_at is not None and state.retry_at > now))


def claim(session: Session, target: str, *, now: datetime, most: int, lease: timedelta) -> list[Claimed]:
    """Claim what is due for a target: of each group only the first that is not delivered, so that order is kept.

    While a delivery is in hand it is not due; if this process dies, it is due again when the lease is over.
    """
    state = session.get(TargetState, target)
    if _is_off(state, now):
        return []
    if state is not None and state.state == "down":
        most = 1  # first see whether it is back
    earlier = aliased(Delivery)
    first = ~sa.exists().where(
        earlier.target == target,
        earlier.group == Delivery.group,
        earlier.state == "waiting",
        earlier.id < Delivery.id,
    )
    statement = (
        sa.select(Delivery, Alert)
        .join(Alert, Alert.id == Delivery.alert)
        .where(Delivery.target == target, Delivery.state == "waiting", Delivery.next_at <= now, first)
        .order_by(Delivery.next_at, Delivery.id)
        .limit(most)
    )
    claimed = []
    for delivery, alert in session.execute(statement):
        delivery.next_at = now + lease
        claimed.append(Claimed(delivery.id, alert, delivery.attempts))
    session.flush()
    for each in claimed:
        session.expunge(each.alert)
    return claimed


def record(
    session: Session,
    target: str,
    results: Sequence[Result],
    untouched: Sequence[Claimed],
    *,
    now: datetime,
    retry: RetrySection,
    jitter: random.Random,
) -> datetime | None:
    """Record what became of deliveries; those that were not tried are due again at once.

    Returns since when the target had been down, if it is up again.
    """
    if sent := [result for result in results if result.error is None]:
        session.execute(
            sa.update(Delivery),
            [
                {
                    "id": result.claimed.delivery,
                    "state": "sent",
                    "sent_at": result.at,
                    "attempts": result.claimed.attempts + 1,
                    "error": "",
                }
                for result in sent
            ],
        )
    if untouched:
        session.execute(sa.update(Delivery), [{"id": each.delivery, "next_at": now} for each in untouched])
    state = session.get(TargetState, target)
    if state is None:
        state = TargetState(name=target, state="up", failures=0, retry_at=None, since=now, error="")
        session.add(state)
    down_since = None
    for result in results:
        if result.error is None:
            down_since = state.since if state.state == "down" else down_since
            if state.state == "down" or state.failures:
                state.state, state.failures, state.retry_at, state.since, state.error = "up", 0, None, now, ""
            continue
        down_since = None
        _failed(session, state, result, result.error, now=now, retry=retry, jitter=jitter)
    return down_since


def _failed(
    session: Session,
    state: TargetState,
    result: Result,
    error: DeliveryError,
    *,
    now: datetime,
    retry: RetrySection,
    jitter: random.Random,
) -> None:
    claimed, attempts = result.claimed, result.claimed.attempts + 1
    values: dict[str, object] = {"attempts": attempts, "error": result.text}
    if error.kind == "refused":
        values |= {"state": "dead"}
    else:
        own = backoff(attempts, first=retry.first_seconds, most=retry.most_seconds, draw=jitter)
        values |= {"next_at": now + timedelta(seconds=max(own, error.after or 0.0))}
        state.failures += 1
        pause = backoff(state.failures, first=retry.first_seconds, most=retry.most_seconds, draw=jitter)
        if state.state != "disabled":
            state.since = now if state.state == "up" else state.since
            state.state = "disabled" if error.kind == "gone" else "down"
        state.retry_at = now + timedelta(seconds=max(pause, error.after or 0.0))
        state.error = result.text
    session.execute(sa.update(Delivery).where(Delivery.id == claimed.delivery).values(**values))


def bring_nearer(session: Session, *, now: datetime, retry: RetrySection) -> None:
    """After the clock was set back, have what lies ahead by more than any pause tried now.

    That it was set back, the start of an earlier run says, which lies ahead too; without it, a pause that a target
    asked for is kept.
    """
    last = session.scalar(sa.select(sa.func.max(Run.started_at)).where(Run.job == "deliver"))
    is_back = last is not None and last > now + timedelta(minutes=1)
    latest = now + timedelta(seconds=max(retry.most_seconds, 0.0 if is_back else MOST_WAIT) + 60)
    late = sa.update(Delivery).where(Delivery.state == "waiting", Delivery.next_at > latest)
    session.execute(late.values(next_at=now).execution_options(synchronize_session=False))
    pauses = sa.update(TargetState).where(TargetState.retry_at > latest)
    session.execute(pauses.values(retry_at=now).execution_options(synchronize_session=False))


def give_up(session: Session, targets: Sequence[str], *, now: datetime, hours: float) -> int:
    """Give up what has waited too long, until somebody sends it again.

    What was never tried, though its target is one of the configuration's and takes alerts, only seems to be old: the
    clock was set forward.
    """
    not_up = set(session.scalars(sa.select(TargetState.name).where(TargetState.state != "up")))
    able = [target for target in targets if target not in not_up]
    old = sa.update(Delivery).where(
        Delivery.state == "waiting",
        Delivery.created_at < now - timedelta(hours=hours),
        Delivery.next_at <= now,
        sa.or_(Delivery.attempts > 0, Delivery.target.not_in(able)),
    )
    done = session.execute(
        old.values(
            state="dead", error=sa.case((Delivery.error == "", "not taken in time"), else_=Delivery.error)
        ).execution_options(synchronize_session=False)
    )
    return int(done.rowcount)  # type: ignore[attr-defined]  # an UPDATE has one


def counts(session: Session) -> dict[str, int]:
    """How many deliveries are in each state."""
    found = session.execute(sa.select(Delivery.state, sa.func.count()).group_by(Delivery.state))
    return {state: int(number) for state, number in found}
