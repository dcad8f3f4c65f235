"""The queue: the latest alert of each event, by state and by what is at stake, page by page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import InstrumentedAttribute, Session, aliased

from detector.decide.severity import SEVERITIES
from detector.errors import DataError, NotFoundError, nearest
from pipelines.alerts.feedback.answers import find
from pipelines.alerts.message.message import Message, message_of, reason_in_words
from pipelines.alerts.outbox.waiting import is_superseded
from pipelines.config import Config
from pipelines.escaping import one_line
from pipelines.store.access_tables import AlertNote
from pipelines.store.alert_tables import EVENTS, Alert, Answer, Delivery, Silence

STATES = ("open", "snoozed", "answered", "all")
ORDERS = ("urgent", "newest")
ASSIGNED = "assigned"
MOST_SIMILAR = 5
MOST_EARLIER = 20
MOST_COUNTED = 10_000
"""A page says how many alerts there are up to so many: nobody reads on, and counting takes longer than the page."""


@dataclass(frozen=True)
class QueueQuery:
    """Which alerts, in which order.

    - ``state``: open (nobody has answered, nothing keeps it quiet), snoozed, answered, or all.
    - ``order``: urgent: the most severe first, of these the largest amount, of these the rarest; or newest.
    - ``after``: the alert that the page before ended with.
    """

    state: str = "open"
    severity: str = ""
    about: str = ""
    pattern: str = ""
    assignee: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    order: str = "urgent"
    after: str = ""
    most: int = 50

    def __post_init__(self) -> None:
        for name, given, known in (
            ("state", self.state, STATES),
            ("severity", self.severity, (*SEVERITIES, "")),
            ("order", self.order, ORDERS),
        ):
            if given not in known:
                raise DataError(f"{name}: {given!r} is not known. {nearest(given, [each for each in known if each])}")


@dataclass(frozen=True)
class QueueLine:
    """An alert in the queue: what is said of it, by whom it was answered, and who has taken it."""

    alert: Alert
    message: Message
    verdict: str
    assignee: str
    snoozed_until: datetime | None

    @property
    def state(self) -> str:
        """open, snoozed or answered."""
        return "answered" if self.verdict else "snoozed" if self.snoozed_until is not None else "open"

    @property
    def why(self) -> str:
        """The first reason in words."""
        return reason_in_words(self.message.reasons[0]) if self.message.reasons else ""

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON, for programs."""
        found = self.message.to_dict() | {"created_at": self.alert.created_at.isoformat(), "state": self.state}
        found |= {"verdict": self.verdict or None, "assignee": self.assignee or None}
        found["snoozed_until"] = None if self.snoozed_until is None else self.snoozed_until.isoformat()
        found |= {"sentence": self.message.sentence, "rarity": self.message.rarity, "pattern": self.alert.pattern}
        return found | {"reasons": self.message.reasons}


def page(session: Session, wanted: QueueQuery, *, config: Config, now: datetime) -> list[QueueLine]:
    """One page of the queue.

    Raises ``DataError`` if ``after`` is no alert.
    """
    keys = _keys(wanted.order)
    first, *rest = keys
    # An entity has few alerts: they are sorted, lest a database walk through all that wait for those of one.
    order = [(-first if wanted.about and wanted.order == "urgent" else first.desc()), *(key.desc() for key in rest)]
    chosen = sa.select(Alert.id).where(Alert.source == config.name, Alert.kind.in_(EVENTS))
    chosen = chosen.where(*_filters(wanted, now=now)).order_by(*order).limit(wanted.most)
    if wanted.after:
        chosen = chosen.where(_behind(keys, find(session, wanted.after)))
    # The index of the queue has those that wait apart from the others.
    parts = [Alert.is_waiting, ~Alert.is_waiting] if (wanted.state, wanted.order) == ("all", "urgent") else [sa.true()]
    ids = [alert for part in parts for alert in session.scalars(chosen.where(part))]
    # What stands beside an alert is looked up for those of the page alone, not for all that were sorted.
    statement = sa.select(Alert, _verdict(), _assignee(), _quiet_until(now)).where(Alert.id.in_(ids))
    statement = statement.order_by(*order).limit(wanted.most)
    return [
        QueueLine(alert, message_of(alert, section=config.alerts, target="queue"), verdict or "", assignee or "", until)
        for alert, verdict, assignee, until in session.execute(statement)
    ]


def count(session: Session, wanted: QueueQuery, *, config: Config, now: datetime) -> int:
    """How many there are on all pages; ``MOST_COUNTED`` + 1 where there are more than ``MOST_COUNTED``."""
    ours = sa.select(Alert.id).where(Alert.source == config.name, Alert.kind.in_(EVENTS), *_filters(wanted, now=now))
    some = ours.limit(MOST_COUNTED + 1).subquery()
    return int(session.scalar(sa.select(sa.func.count()).select_from(some)) or 0)


def counted(total: int) -> str:
    """What ``count`` found, as a page says it.

    >>> counted(1_234), counted(10_001)
    ('1,234', 'more than 10,000')
    """
    return f"{total:,}" if total <= MOST_COUNTED else f"more than {MOST_COUNTED:,}"


def line_of(session: Session, alert: str, *, config: Config, now: datetime) -> QueueLine:
    """One alert, as the queue has it; any kind of alert.

    Raises ``NotFoundError`` if there is none, ``DataError`` if there are several.
    """
    found = find(session, alert)
    if found.source != config.name:
        raise NotFoundError(f"There is no alert {alert!r} of {config.name}. `detector alerts list` shows them.")
    statement = sa.select(_verdict(), _assignee(), _quiet_until(now)).where(Alert.id == found.id)
    verdict, assignee, until = session.execute(statement).one()
    return QueueLine(
        found, message_of(found, section=config.alerts, target="queue"), verdict or "", assignee or "", until
    )


@dataclass(frozen=True)
class AlertContext:
    """What stands beside an alert: what was said, sent and written, and other alerts."""

    answers: Sequence[Answer]
    notes: Sequence[AlertNote]
    deliveries: Sequence[Delivery]
    earlier: Sequence[QueueLine]
    similar: Sequence[QueueLine]


def beside(session: Session, line: QueueLine, *, config: Config, now: datetime) -> AlertContext:
    """What stands beside an alert; ``similar`` were answered and have the same first reason, of other entities."""
    alert = line.alert

    def all_of(table: Any) -> Sequence[Any]:
        return session.scalars(sa.select(table).where(table.alert == alert.id).order_by(table.id)).all()

    def lines(*where: sa.ColumnElement[bool], most: int) -> list[QueueLine]:
        statement = sa.select(Alert.id).where(Alert.source == config.name, Alert.kind.in_(EVENTS), *where)
        newest = statement.order_by(Alert.created_at.desc(), Alert.id).limit(most)
        return [line_of(session, each, config=config, now=now) for each in session.scalars(newest).all()]

    answered = Alert.id.in_(sa.select(Answer.alert))
    earlier = lines(Alert.group == alert.group, Alert.id != alert.id, most=MOST_EARLIER) if alert.group else []
    alike = Alert.pattern == alert.pattern
    similar = lines(alike, answered, Alert.group != alert.group, most=MOST_SIMILAR) if alert.pattern else []
    return AlertContext(all_of(Answer), all_of(AlertNote), all_of(Delivery), earlier, similar)


def next_open(session: Session, alert: Alert, *, config: Config, now: datetime) -> str | None:
    """The open alert that comes after one in the queue, or the first if it was the last."""
    for wanted in (QueueQuery(after=alert.id, most=1), QueueQuery(most=2)):
        for line in page(session, wanted, config=config, now=now):
            if line.alert.id != alert.id:
                return line.alert.id
    return None


def _filters(wanted: QueueQuery, *, now: datetime) -> list[sa.ColumnElement[bool]]:
    found: list[sa.ColumnElement[bool]] = []
    if wanted.state == "open":
        found += [sa.and_(Alert.is_waiting), ~sa.exists().where(*_covers(Alert, now)).correlate(Alert)]
    elif wanted.state == "snoozed":  # few are: a database begins with them, instead of with all that wait
        other = aliased(Alert)
        found += [sa.and_(Alert.is_waiting), Alert.id.in_(sa.select(other.id).where(*_covers(other, now)))]
    else:
        found.append(~is_superseded())
    if wanted.state == "answered":
        found += [~Alert.is_waiting, sa.exists().where(Answer.alert == Alert.id)]
    if wanted.severity:
        found.append(Alert.urgency == SEVERITIES.index(wanted.severity))
    if wanted.about:
        found.append(Alert.label == one_line(wanted.about))
    if wanted.pattern:
        found.append(Alert.pattern == one_line(wanted.pattern))
    if wanted.assignee is not None:
        who = one_line(wanted.assignee)
        found.append(sa.func.coalesce(_assignee(), "") == who)
        if who:  # likewise
            found.append(
                Alert.id.in_(sa.select(AlertNote.alert).where(AlertNote.kind == ASSIGNED, AlertNote.text == who))
            )
    if wanted.since is not None:
        found.append(Alert.created_at >= wanted.since)
    if wanted.until is not None:
        found.append(Alert.created_at < wanted.until)
    return found


def _keys(order: str) -> list[InstrumentedAttribute[Any]]:
    """What is sorted by, from large to small."""
    return [Alert.created_at, Alert.id] if order == "newest" else [Alert.urgency, Alert.stake, Alert.rarity, Alert.id]


def _behind(keys: Sequence[InstrumentedAttribute[Any]], alert: Alert) -> sa.ColumnElement[bool]:
    """Whether an alert comes after one in that order."""
    values = [sa.literal(getattr(alert, key.key), key.type) for key in keys]
    return sa.tuple_(*keys) < sa.tuple_(*values)


def _verdict() -> sa.ScalarSelect[Any]:
    last = sa.select(Answer.verdict).where(Answer.alert == Alert.id).order_by(Answer.id.desc()).limit(1)
    return last.correlate(Alert).scalar_subquery()


def _assignee() -> sa.ScalarSelect[Any]:
    ours = (AlertNote.alert == Alert.id, AlertNote.kind == ASSIGNED)
    return (
        sa.select(AlertNote.text).where(*ours).order_by(AlertNote.id.desc()).limit(1).correlate(Alert).scalar_subquery()
    )


def _covers(alert: type[Alert], now: datetime) -> list[sa.ColumnElement[bool]]:
    return [
        Silence.source == alert.source,
        Silence.group == alert.group,
        Silence.group != "",
        Silence.pattern.in_(["", alert.pattern]),
        Silence.below == "",
        Silence.until > now,
    ]


def _quiet_until(now: datetime) -> sa.ScalarSelect[Any]:
    return sa.select(sa.func.max(Silence.until)).where(*_covers(Alert, now)).correlate(Alert).scalar_subquery()


def following(wanted: QueueQuery, lines: Sequence[QueueLine]) -> QueueQuery | None:
    """What to ask for the next page; None if this one was the last."""
    return replace(wanted, after=lines[-1].alert.id) if len(lines) == wanted.most else None
