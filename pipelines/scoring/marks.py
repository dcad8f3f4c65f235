"""How far the service's state has come, in one question: what was loaded before stands as long as nothing has moved."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.orm import Session

from pipelines.store import Batch
from pipelines.store.access_tables import HeldEvent
from pipelines.store.rule_tables import RuleChange

_SOURCE = sa.bindparam("source", type_=sa.String)
_DONE = (Batch.source == _SOURCE, Batch.state == "done", Batch.purpose == "score")
_HELD = (HeldEvent.source == _SOURCE, HeldEvent.at > sa.bindparam("held_since", type_=HeldEvent.at.type))
_ASKED = sa.select(
    sa.select(sa.func.max(RuleChange.id)).where(RuleChange.source == _SOURCE).scalar_subquery(),
    sa.select(sa.func.max(Batch.id)).where(*_DONE).scalar_subquery(),
    sa.select(sa.func.count()).select_from(HeldEvent).where(*_HELD).scalar_subquery(),
    sa.select(sa.func.max(HeldEvent.id)).where(*_HELD).scalar_subquery(),
)


class Marks(NamedTuple):
    """What has come last.

    - ``rule_change``: The last change of a rule; 0 before the first.
    - ``batch``: The last batch that was scored; 0 before the first.
    - ``held``: How many events that were scored on request wait for the source, and ``last_held`` the latest of them.
    """

    rule_change: int
    batch: int
    held: int
    last_held: int


def marks_of(session: Session, source: str, *, held_since: datetime) -> Marks:
    """The marks of a source; only events that were scored after ``held_since`` still wait."""
    found = session.connection().execute(_ASKED, {"source": source, "held_since": held_since}).one()
    return Marks(*(mark or 0 for mark in found))
