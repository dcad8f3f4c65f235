"""The tables of who may ask, of what people wrote beside alerts, and of events that were scored on request."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from pipelines.store.tables import Base


class ApiKey(Base):
    """A key that a program or a person asks with. Only its hash is kept."""

    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(primary_key=True)
    """The part of the key that may be read."""
    name: Mapped[str]
    """Who has it; stands beside all that is done with it."""
    hash: Mapped[str]
    scopes: Mapped[str]
    """Words with blanks between them: score, view, review, admin."""
    created_at: Mapped[datetime]
    until: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]


class SignIn(Base):
    """A browser in which somebody has signed in with a key."""

    __tablename__ = "sign_ins"

    hash: Mapped[str] = mapped_column(primary_key=True)
    """Of the cookie."""
    key: Mapped[str] = mapped_column(index=True)
    since: Mapped[datetime]
    until: Mapped[datetime]


class AnsweredRequest(Base):
    """A request that changed something, under the name that its sender gave it, and what was answered."""

    __tablename__ = "answered_requests"

    key: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    fingerprint: Mapped[str]
    """Of its method, path and body."""
    status: Mapped[int]
    """0 while it is in hand."""
    answer: Mapped[dict[str, Any]]
    at: Mapped[datetime] = mapped_column(index=True)


class AlertNote(Base):
    """What people wrote beside an alert, and who has taken it; never changed."""

    __tablename__ = "alert_notes"

    id: Mapped[int] = mapped_column(primary_key=True)
    alert: Mapped[str] = mapped_column(index=True)
    kind: Mapped[str]
    """comment; or assigned, with the name in ``text``, empty for nobody."""
    text: Mapped[str] = mapped_column(sa.Text)
    who: Mapped[str]
    at: Mapped[datetime]


class HeldEvent(Base):
    """An event that was scored on request and has not come through the source yet: later ones count it already."""

    __tablename__ = "held_events"
    __table_args__ = (sa.UniqueConstraint("source", "key"), {"sqlite_autoincrement": True})

    id: Mapped[int] = mapped_column(primary_key=True)
    source: Mapped[str]
    key: Mapped[str]
    row: Mapped[dict[str, Any]]
    """The columns that features need, as they came."""
    at: Mapped[datetime] = mapped_column(index=True)


class QueueView(Base):
    """Filters of the queue that somebody keeps under a name."""

    __tablename__ = "queue_views"

    source: Mapped[str] = mapped_column(primary_key=True)
    who: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    filters: Mapped[dict[str, Any]]
    """By the names that the queue's address has for them."""
    at: Mapped[datetime]
