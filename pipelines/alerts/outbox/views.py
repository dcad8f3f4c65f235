"""Alerts as tables and texts for the command line, and what it may do with them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from detector.errors import DataError, DetectorError, NotFoundError, nearest
from pipelines.alerts.channels.targets import Target, secrets_of, targets_of, without_secrets
from pipelines.alerts.message.message import message_of
from pipelines.alerts.network.errors import DeliveryError
from pipelines.alerts.outbox.alerts import trial_alert
from pipelines.config import Config
from pipelines.config.masking import HIDDEN, masks_of
from pipelines.listing import Cell, Column, Listing
from pipelines.store.alert_tables import Alert, Answer, Delivery, Silence, TargetState

STATES = ("waiting", "held", "sent", "digested", "dead")
_NEWEST_FIRST = (
    Alert.first_at.desc(),
    sa.case((Alert.kind == "recovered", 0), else_=1),  # that an event is over comes after it
    Alert.created_at.desc(),
    Alert.id,
)
_COLOURS = {"critical": "bold red", "high": "red", "medium": "yellow", "low": "cyan"}


def alerts_table(session: Session, *, config: Config, state: str | None, most: int) -> Listing:
    """The latest alerts, and how far each is."""
    statement = sa.select(Alert).where(Alert.source == config.name).order_by(*_NEWEST_FIRST)
    if state is not None:
        if state not in STATES:
            raise DataError(f"There is no state {state!r}. {nearest(state, STATES)}")
        statement = statement.where(Alert.id.in_(sa.select(Delivery.alert).where(Delivery.state == state)))
    columns = (
        Column("id", head=True),
        Column("happened (UTC)", head=True, key="first_at"),
        Column("severity", head=True),
        Column("what", is_sentence=True),
        Column("deliveries", is_sentence=True),
        Column("answer"),
        *(Column(name, hidden=True) for name in ("about", "kind", "rows", "p_value", "amount", "created_at")),
    )
    rows = []
    for alert in session.scalars(statement.limit(most)):
        message = message_of(alert, section=config.alerts, target="")
        found = session.execute(
            sa.select(Delivery.state, sa.func.count()).where(Delivery.alert == alert.id).group_by(Delivery.state)
        )
        states = {str(name): int(number) for name, number in sorted((row[0], row[1]) for row in found)}
        said = session.scalar(
            sa.select(Answer.verdict).where(Answer.alert == alert.id).order_by(Answer.id.desc()).limit(1)
        )
        rows.append(
            {
                "id": Cell(alert.id, alert.id[:11]),
                "happened (UTC)": Cell(alert.first_at, f"{alert.first_at:%Y-%m-%d %H:%M}"),
                "severity": Cell(alert.severity, alert.severity, _COLOURS.get(alert.severity, "")),
                "what": message.sentence,
                "deliveries": Cell(states, ", ".join(f"{number} {name}" for name, number in states.items())),
                "answer": said,
                "about": message.label,
                "kind": alert.kind,
                "rows": alert.rows,
                "p_value": alert.p_value,
                "amount": alert.amount,
                "created_at": alert.created_at,
            }
        )
    return Listing(columns, rows, empty="No alerts." if state is None else f"No alerts are {state}.")


def targets_table(session: Session, *, config: Config) -> Listing:
    """Every target: whether it takes alerts, and what waits for it."""
    columns = (
        Column("target", head=True),
        Column("state", head=True),
        Column("least severity", key="from"),
        Column("waiting", is_number=True),
        Column("given up", is_number=True),
        Column("last error", is_sentence=True),
    )
    rows = []
    for target in targets_of(config):
        state = session.get(TargetState, target.name)
        counted = session.execute(
            sa.select(Delivery.state, sa.func.count()).where(Delivery.target == target.name).group_by(Delivery.state)
        )
        found = {row[0]: int(row[1]) for row in counted}
        rows.append(
            {
                "target": target.name,
                "state": "up" if state is None else state.state,
                "least severity": target.least_severity,
                "waiting": found.get("waiting", 0) + found.get("held", 0),
                "given up": found.get("dead", 0),
                "last error": "" if state is None else state.error,
            }
        )
    return Listing(columns, rows, empty="Alerts go nowhere: name a channel in `alerts`.")


def alert_facts(session: Session, alert: Alert, *, config: Config) -> dict[str, Any]:
    """All about one alert, for programs."""
    message = message_of(alert, section=config.alerts, target="cli")
    deliveries = session.scalars(sa.select(Delivery).where(Delivery.alert == alert.id).order_by(Delivery.id))
    answers = session.scalars(sa.select(Answer).where(Answer.alert == alert.id).order_by(Answer.id))
    return {
        **message.to_dict(),
        "sentence": message.sentence,
        "reasons": message.reasons,
        "values": dict(message.table),
        "deliveries": [
            {name: getattr(each, name) for name in ("target", "state", "attempts", "sent_at", "error")}
            for each in deliveries
        ],
        "answers": [
            {name: getattr(each, name) for name in ("verdict", "who", "at", "via", "reason")} for each in answers
        ],
    }


def alert_text(session: Session, alert: Alert, *, config: Config) -> str:
    """All about one alert."""
    message = message_of(alert, section=config.alerts, target="cli")
    lines = [message.title, message.lead, "", f"Id: {alert.id}", f"Event: {alert.incident} ({alert.kind})"]
    lines += [f"{name}: {value}" for name, value in message.table]
    if message.reason_lines:
        lines += ["", f"{message.reasons_title}:", *(f"- {line}" for line in message.reason_lines)]
    links = (("Answer", message.answer_url), ("Review", message.review_url), ("MLflow", message.run_url))
    lines += [f"{name}: {url}" for name, url in links if url]
    lines += ["", "Deliveries:"]
    for each in session.scalars(sa.select(Delivery).where(Delivery.alert == alert.id).order_by(Delivery.id)):
        when = f" at {each.sent_at:%Y-%m-%d %H:%M} UTC" if each.sent_at else ""
        tries = f", {each.attempts} tries" if each.attempts > 1 else ""
        lines.append(f"- {each.target}: {each.state}{when}{tries}" + (f"; {each.error}" if each.error else ""))
    answers = session.scalars(sa.select(Answer).where(Answer.alert == alert.id).order_by(Answer.id)).all()
    if answers:
        lines += ["", "Answers:"]
        lines += [f"- {a.verdict} by {a.who}, {a.at:%Y-%m-%d %H:%M} UTC, via {a.via}: {a.reason}" for a in answers]
    return "\n".join(lines)


def silences_table(silences: Sequence[Silence], *, config: Config) -> Listing:
    """Silences; their labels masked, also those made before there was a mask."""
    columns = (
        Column("number", head=True, is_number=True),
        Column("what", head=True),
        Column("until"),
        Column("only"),
        Column("below"),
        Column("by"),
        Column("why", is_sentence=True),
        Column("times needed", is_number=True),
    )
    rows = [
        {
            "number": each.id,
            "what": _masked(each.label, config) or "everything",
            "until": Cell(each.until, f"{each.until:%Y-%m-%d %H:%M} UTC"),
            "only": each.pattern,
            "below": each.below,
            "by": each.who,
            "why": each.reason,
            "times needed": each.hits,
        }
        for each in silences
    ]
    return Listing(columns, rows, empty="Nothing is silenced.")


def _masked(label: str, config: Config) -> str:
    """A stored label as people may read it by the masks of today."""
    by, masks = config.alerts.group_by(config.columns), masks_of(config)
    before = [f"{name} " if len(by) > 1 else "" for name in by if masks.is_masked(name)]
    if not label or all(re.search(rf"(^|, ){re.escape(each)}(…|#|\(hidden\))", label) for each in before):
        return label
    return masks.show(by[0], label) if len(by) == 1 else HIDDEN


def retry(session: Session, *, now: datetime, alert: str | None, target: str | None) -> int:
    """Send again what was given up or waits, of an alert, a target, or all; a target that was off is on again."""
    statement = sa.update(Delivery).where(Delivery.state.in_(("dead", "waiting")))
    states = sa.update(TargetState)
    if alert is not None:
        statement = statement.where(Delivery.alert == alert)
    if target is not None:
        statement, states = statement.where(Delivery.target == target), states.where(TargetState.name == target)
    done = session.execute(
        statement.values(state="waiting", next_at=now, created_at=now, attempts=0).execution_options(
            synchronize_session=False
        )
    )
    if alert is None or target is not None:
        session.execute(states.values(state="up", failures=0, retry_at=None, since=now, error=""))
    return int(done.rowcount)  # type: ignore[attr-defined]  # an UPDATE has one


def try_out(config: Config, *, now: datetime, only: str | None) -> list[tuple[Target, str]]:
    """Send a test to every target, or to one; what went wrong with each, or "".

    Raises ``NotFoundError`` if there is no such target.
    """
    targets = targets_of(config)
    if only is not None and only not in [target.name for target in targets]:
        raise NotFoundError(f"There is no target {only!r}. {nearest(only, [target.name for target in targets])}")
    alert = trial_alert(config=config, now=now)
    return [(target, _try(config, target, alert, now)) for target in targets if only in (None, target.name)]


def _try(config: Config, target: Target, alert: Alert, now: datetime) -> str:
    try:
        channel = target.open(config)
        try:
            channel.send(message_of(alert, section=config.alerts, target=target.name), now=now)
        finally:
            channel.close()
    except (DeliveryError, DetectorError) as error:
        return without_secrets(str(error), secrets_of(config.alerts))
    return ""
