"""Silences: what is not to be told for a while, and why."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Session

from detector.errors import DataError
from pipelines.store.alert_tables import Silence


def silence(
    session: Session,
    *,
    source: str,
    until: datetime,
    reason: str,
    who: str,
    now: datetime,
    group: str = "",
    label: str = "",
    pattern: str = "",
    below: str = "",
) -> Silence:
    """Keep something quiet until a time.

    Parameters
    ----------
    session : Session
        Of the caller's transaction.
    source : str
        Whose alerts.
    until : datetime
        When it ends.
    reason, who : str
        Why, and who said so.
    now : datetime
        When it begins.
    group, label : str
        The group it is about, and how people know it; empty for all.
    pattern : str
        The feature of the first reason; empty for any.
    below : str
        Only events less severe than this; empty for all.

    Raises
    ------
    DataError
        If there is no reason, or it would end before it begins.
    """
    if not reason.strip():
        raise DataError("A silence needs a reason: whoever finds it later will ask. Give one with --reason.")
    if until <= now:
        raise DataError(f"A silence must end after it begins ({now:%Y-%m-%d %H:%M}), received {until:%Y-%m-%d %H:%M}.")
    made = Silence(
        source=source,
        group=group,
        label=label,
        pattern=pattern,
        below=below,
        since=now,
        until=until,
        reason=reason,
        who=who,
        hits=0,
    )
    session.add(made)
    session.flush()
    return made


def lift(session: Session, number: int, *, now: datetime) -> Silence:
    """End a silence now; what it was stays known.

    Raises
    ------
    DataError
        If there is none of that number that goes on.
    """
    found = session.get(Silence, number)
    if found is None or found.until <= now:
        raise DataError(f"There is no silence {number} that goes on. `detector alerts silence --list` shows them.")
    found.until = now
    session.flush()
    return found


def current(session: Session, *, source: str, now: datetime) -> list[Silence]:
    """Those that go on, the one that ends first before the others."""
    statement = sa.select(Silence).where(Silence.source == source, Silence.until > now).order_by(Silence.until)
    return list(session.scalars(statement))
