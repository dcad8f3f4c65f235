"""The tables of rules that people keep in the service, of their states, of their hits, and of who changed what."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from pipelines.store.tables import Base


class StoredRule(Base):
    """A rule from the console or the API; those of the file are in the file."""

    __tablename__ = "rules"

    source: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    definition: Mapped[dict[str, Any]]
    state: Mapped[str]
    """off, shadow or live."""
    who: Mapped[str]
    at: Mapped[datetime]


class RuleState(Base):
    """The state that a rule of the file was put into, or that a failure put it into, in place of the file's."""

    __tablename__ = "rule_states"

    source: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    hash: Mapped[str]
    """Of what the rule said then: a rule that was changed in the file since is in the state that the file says."""
    state: Mapped[str]
    reason: Mapped[str] = mapped_column(sa.Text)
    who: Mapped[str]
    at: Mapped[datetime]


class RuleChange(Base):
    """Who changed a rule, when, and from what to what; never changed or deleted."""

    __tablename__ = "rule_changes"
    __table_args__ = (sa.Index(None, "source", "rule"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    source: Mapped[str]
    rule: Mapped[str]
    at: Mapped[datetime]
    who: Mapped[str]
    what: Mapped[str]
    """created, changed, removed, state, failed; or file: the configuration says something new."""
    before: Mapped[dict[str, Any]]
    after: Mapped[dict[str, Any]]
    hash: Mapped[str]
    version: Mapped[str]
    """Of all rules from then on, as scores name it."""
    reason: Mapped[str] = mapped_column(sa.Text)


class RuleHits(Base):
    """What a rule came to on one day of a batch."""

    __tablename__ = "rule_hits"
    __table_args__ = (sa.Index(None, "source", "day"),)

    batch: Mapped[int] = mapped_column(primary_key=True)
    day: Mapped[date] = mapped_column(primary_key=True)
    rule: Mapped[str] = mapped_column(primary_key=True)
    source: Mapped[str]
    hash: Mapped[str]
    state: Mapped[str]
    hits: Mapped[int]
    model: Mapped[int]
    """Rows among them that the policy flags too."""
    flagged: Mapped[int]
    """Rows flagged because of the rule alone."""
    hidden: Mapped[int]
    """Rows that the rule kept from being flagged."""
