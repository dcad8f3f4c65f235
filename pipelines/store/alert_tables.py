"""The tables of alerts, beside the other tables of the service's state; a migration creates and changes them."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine.default import DefaultExecutionContext
from sqlalchemy.orm import Mapped, mapped_column

from detector.decide.severity import SEVERITIES
from pipelines.store.tables import Base

EVENTS = ("opened", "worse", "again")
"""Kinds of alerts that are about an event, and wait for an answer."""


def _given(context: DefaultExecutionContext) -> dict[str, Any]:
    found: dict[str, Any] = context.get_current_parameters()  # type: ignore[no-untyped-call]
    return found


def _stake(amount: float | None) -> float:
    return -1.0 if amount is None else float(amount)


class AlertGroup(Base):
    """The latest event of one key: what later flags are compared with, so that it is reported once."""

    __tablename__ = "alert_groups"
    __table_args__ = (sa.Index(None, "source", "last_at"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    """The source and the key, hashed: the key itself may be something nobody is to read."""
    source: Mapped[str]
    incident: Mapped[str]
    """Names the event to those who are notified; the same for all that is reported of it."""
    label: Mapped[str]
    """The key as people may read it."""
    severity: Mapped[str]
    told_severity: Mapped[str]
    """The highest severity that was reported; empty if nothing was, for lack of room in the day."""
    told_at: Mapped[datetime | None]
    """When the rows were that were reported last, by their own time."""
    first_at: Mapped[datetime]
    last_at: Mapped[datetime]
    rows: Mapped[int] = mapped_column(sa.BigInteger)
    is_open: Mapped[bool]


class Alert(Base):
    """Something to report to people, whether it was sent or not."""

    __tablename__ = "alerts"
    __table_args__ = (
        sa.Index(None, "source", "created_at"),
        sa.Index(None, "source", "label", "is_waiting"),
        sa.Index(None, "incident"),
        sa.Index(None, "group"),
        sa.Index("ix_alerts_queue", "source", "is_waiting", "urgency", "stake", "rarity", "id"),
        sa.Index("ix_alerts_pattern", "source", "is_waiting", "pattern", "urgency", "stake", "rarity", "id"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    source: Mapped[str]
    kind: Mapped[str]
    """opened, worse, again, recovered, digest, service, or test."""
    group: Mapped[str]
    incident: Mapped[str]
    label: Mapped[str]
    severity: Mapped[str]
    created_at: Mapped[datetime]
    first_at: Mapped[datetime]
    last_at: Mapped[datetime]
    rows: Mapped[int] = mapped_column(sa.BigInteger)
    p_value: Mapped[float]
    amount: Mapped[float | None]
    model_version: Mapped[str]
    pattern: Mapped[str]
    """The feature of the first reason."""
    facts: Mapped[dict[str, Any]]
    """Reasons, columns to show, keys of rows, figures of a digest; masked where they are to be."""
    is_waiting: Mapped[bool] = mapped_column(default=lambda context: _given(context)["kind"] in EVENTS)
    """Whether it waits for an answer: it is the latest about its event, and nobody has said anything."""
    urgency: Mapped[int] = mapped_column(default=lambda context: SEVERITIES.index(_given(context)["severity"]))
    """The place of its severity; this and the next two are what the queue is sorted by, the largest first."""
    stake: Mapped[float] = mapped_column(default=lambda context: _stake(_given(context)["amount"]))
    """The amount; -1 where there is none."""
    rarity: Mapped[float] = mapped_column(default=lambda context: -float(_given(context)["p_value"]))
    """The p-value's negative."""


class Delivery(Base):
    """One alert on its way to one target."""

    __tablename__ = "alert_deliveries"
    __table_args__ = (
        sa.UniqueConstraint("alert", "target"),
        sa.Index(None, "target", "state", "next_at"),
        sa.Index("ix_alert_deliveries_order", "target", "group", "state", "id"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    """In the order in which they came to be; those of one group go out in this order."""
    alert: Mapped[str]
    target: Mapped[str]
    group: Mapped[str]
    state: Mapped[str]
    """waiting, sent, dead, or held (for the end of the quiet hours), then digested."""
    attempts: Mapped[int] = mapped_column(default=0)
    created_at: Mapped[datetime]
    next_at: Mapped[datetime]
    """Not before this; while it is being sent, when the attempt counts as lost."""
    sent_at: Mapped[datetime | None]
    error: Mapped[str] = mapped_column(sa.Text, default="")


class TargetState(Base):
    """Whether a target takes alerts at present."""

    __tablename__ = "alert_targets"

    name: Mapped[str] = mapped_column(primary_key=True)
    state: Mapped[str] = mapped_column(default="up")
    """up, down (tried again at ``retry_at``), or disabled (until `detector alerts retry --target`)."""
    failures: Mapped[int] = mapped_column(default=0)
    retry_at: Mapped[datetime | None]
    since: Mapped[datetime]
    error: Mapped[str] = mapped_column(sa.Text, default="")


class AlertDay(Base):
    """How many alerts a day has had, and how many more there were than it has room for; of a backlog on its own."""

    __tablename__ = "alert_days"

    source: Mapped[str] = mapped_column(primary_key=True)
    day: Mapped[date] = mapped_column(primary_key=True)
    told: Mapped[int] = mapped_column(default=0)
    more: Mapped[int] = mapped_column(default=0)
    said: Mapped[int] = mapped_column(default=0)
    """How many of those more were in a digest."""
    worst: Mapped[dict[str, Any]]
    """How many of those more there were of each severity; and under "events" the most severe, in words."""


class Silence(Base):
    """What is not to be reported for a while, and why."""

    __tablename__ = "alert_silences"
    __table_args__ = (sa.Index(None, "source", "until"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    source: Mapped[str]
    group: Mapped[str]
    """The group it is about; empty for all."""
    label: Mapped[str]
    pattern: Mapped[str]
    """The feature of the first reason it is about; empty for any."""
    below: Mapped[str]
    """Only events less severe than this are silenced; empty for all."""
    since: Mapped[datetime]
    until: Mapped[datetime]
    reason: Mapped[str] = mapped_column(sa.Text)
    who: Mapped[str]
    hits: Mapped[int] = mapped_column(default=0)


class Answer(Base):
    """What a person said of an alert; never changed, a later one counts."""

    __tablename__ = "alert_answers"

    id: Mapped[int] = mapped_column(primary_key=True)
    alert: Mapped[str] = mapped_column(index=True)
    verdict: Mapped[str]
    """fraud, fine, or unsure."""
    reason: Mapped[str] = mapped_column(sa.Text)
    who: Mapped[str]
    via: Mapped[str]
    """The target whose link was used, or "cli"."""
    at: Mapped[datetime]
    model_version: Mapped[str]
