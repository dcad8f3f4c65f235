"""What people do with an alert beside a verdict: take it, write something beside it, keep it quiet for a while."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy.orm import Session

from detector.errors import DataError
from pipelines.alerts.grouping.silences import silence
from pipelines.escaping import for_terminal, one_line
from pipelines.store.access_tables import AlertNote
from pipelines.store.alert_tables import Alert, Silence
from pipelines.store.trail import write_down

ACTIONS = {"comment": "comment", "assigned": "assign"}
MOST_TEXT = 4_000
MOST_NAME = 200
MOST_HOURS = 24.0 * 365


def comment(session: Session, alert: Alert, text: str, *, who: str, now: datetime) -> AlertNote:
    """Write something beside an alert.

    Raises ``DataError`` if there is nothing to write.
    """
    said = for_terminal("\n".join(text.strip().splitlines()))[:MOST_TEXT]
    if not said:
        raise DataError("text: a comment needs some text.")
    return _add(session, alert, "comment", said, who=who, now=now)


def assign(session: Session, alert: Alert, to: str, *, who: str, now: datetime) -> AlertNote:
    """Say who looks after an alert; empty for nobody."""
    return _add(session, alert, "assigned", one_line(to).strip()[:MOST_NAME], who=who, now=now)


def snooze(session: Session, alert: Alert, *, hours: float, reason: str, who: str, now: datetime) -> Silence:
    """Keep this pattern of this entity quiet for some hours; the alert leaves the queue for as long.

    Raises ``DataError`` if there is no reason, it is too long, or the alert is about no entity.
    """
    if not 0 < hours <= MOST_HOURS:
        raise DataError(f"hours: expected more than 0 and at most {MOST_HOURS:,.0f}, received {hours:g}.")
    if alert.kind not in ("opened", "worse", "again"):
        raise DataError(f"{alert.id} is about no event ({alert.kind}), so there is nothing to keep quiet.")
    return silence(
        session,
        source=alert.source,
        group=alert.group,
        label=alert.label,
        pattern=alert.pattern,
        until=now + timedelta(hours=hours),
        reason=for_terminal(reason.strip())[:MOST_TEXT],
        who=one_line(who)[:MOST_NAME],
        now=now,
    )


def _add(session: Session, alert: Alert, kind: str, text: str, *, who: str, now: datetime) -> AlertNote:
    note = AlertNote(alert=alert.id, kind=kind, text=text, who=one_line(who)[:MOST_NAME], at=now)
    session.add(note)
    said = {"alert": alert.id} | ({"to": text} if kind == "assigned" else {})
    write_down(session, ACTIONS[kind], actor=note.who, arguments=said, now=now)
    session.flush()
    return note
