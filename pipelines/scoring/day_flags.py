"""How much of each day's budget is used: the rows that earlier batches have flagged."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

import sqlalchemy as sa

from pipelines.store import DayFlags, Store


def flagged_by_day(store: Store, source: str, days: Sequence[date], *, but: int | None = None) -> dict[date, int]:
    """How many rows of some days were flagged; those of the batch ``but`` do not count."""
    statement = (
        sa.select(DayFlags.day, sa.func.sum(DayFlags.flagged))
        .where(DayFlags.source == source, DayFlags.day.in_(list(days)))
        .group_by(DayFlags.day)
    )
    if but is not None:
        statement = statement.where(DayFlags.batch != but)
    with store.read() as session:
        return {day: int(flagged) for day, flagged in session.execute(statement)}
