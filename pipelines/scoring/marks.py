"""How far the service's state has come, in one question: what was loaded before stands as long as nothing has moved."""

from __future__ import annotations

from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from pipelines.store import Audit, Batch
from pipelines.store.access_tables import HeldEvent
from pipelines.store.rule_tables import RuleChange

_SOURCE = sa.bindparam("source", type_=sa.String)
_DONE = (Batch.source == _SOURCE, Batch.state == "done", Batch.purpose == "score")
_ASKED = sa.select(
    sa.select(sa.func.max(RuleChange.id)).where(RuleChange.source == _SOURCE).scalar_subquery(),
    sa.select(sa.func.max(Batch.id)).where(*_DONE).scalar_subquery(),
    sa.select(sa.func.max(Audit.id)).scalar_subquery(),
    sa.select(sa.func.max(HeldEvent.id)).scalar_subquery(),
)


class LatestMarks(NamedTuple):
    """What has come last; each is the number of a record, 0 before the first, and found at once however many there are.

    - ``rule_change``: The last change of a rule.
    - ``batch``: The last batch that was scored.
    - ``trail``: The last record of what somebody had done.
    - ``last_held``: The last event that was scored on request and waits for the source, of whichever source.
    """

    rule_change: int
    batch: int
    trail: int
    last_held: int


def marks_of(connection: Connection, source: str) -> LatestMarks:
    """The marks of a source."""
    found = connection.execute(_ASKED, {"source": source}).one()
    return LatestMarks(*(mark or 0 for mark in found))
