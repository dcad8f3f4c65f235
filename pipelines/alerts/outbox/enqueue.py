"""Alerts and their deliveries, written in the transaction of the scores they are about."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import sqlalchemy as sa
from sqlalchemy.orm import Session

from pipelines.alerts.channels.targets import Target, targets_of
from pipelines.alerts.grouping.audit_sample import DRAWN, drawn_of
from pipelines.alerts.grouping.groups import Candidate, Event, Known, advance, choose, events_of, key_of, rank, told
from pipelines.alerts.grouping.quiet import waits
from pipelines.alerts.grouping.recovery import recovered
from pipelines.alerts.message.facts import MOST_KEYS, facts_of, label_of, reasons_of
from pipelines.config import Config
from pipelines.config.masking import Masks, masks_of
from pipelines.cron import zone_of
from pipelines.store.alert_tables import Alert, AlertDay, AlertGroup, Delivery, Silence

__all__ = ["enqueue", "post"]

_IDS_A_QUESTION = 500


def enqueue(session: Session, verdicts: pd.DataFrame, *, config: Config, now: datetime) -> list[Alert]:
    """Turn flagged rows into alerts and deliveries. The caller commits, together with the scores.

    Parameters
    ----------
    session : Session
        Of the transaction that keeps the scores and moves the cursor.
    verdicts : DataFrame
        The verdicts of a batch: the flagged rows at least, with the columns that ``alerts`` names, and in ``reasons``
        a list of ``Reason``. Rows that are not flagged show that something has recovered, and how the risk went.
    config : Config
        Its ``alerts`` say what becomes an alert.
    now : datetime
        When this happens, with a time zone.

    Returns
    -------
    list of Alert
        Those that are told, most severe first; none on a quiet day.

    Raises
    ------
    SettingError
        If a column that ``alerts`` names is not there.
    """
    settings = config.alerts
    if not settings.enabled or verdicts.empty:
        return []
    by = settings.group_by(config.columns)
    flagged = verdicts[verdicts["flagged"].to_numpy(dtype=bool)]
    window = timedelta(minutes=settings.window_minutes)
    events = events_of(
        flagged,
        source=config.name,
        by=by,
        time=config.columns.time,
        now=now,
        window=window,
        amount=settings.amount,
        small=settings.small_amount,
        large=settings.large_amount,
    )
    states = _known(session, config.name, events)
    candidates = _candidates(events, states, window, timedelta(minutes=settings.again_minutes))
    candidates = [each for each in candidates if rank(each.event.severity) >= rank(settings.least_severity)]
    candidates = _unsilenced(session, candidates, flagged, config.name, now)
    day = _day(session, config, now)
    chosen, more = choose(candidates, room=settings.a_day - day.told)
    masks = masks_of(config)
    courses = _courses(verdicts, by, [flagged.iloc[each.event.peak] for each in chosen])
    alerts = []
    for candidate in chosen:
        states[candidate.event.group] = told(states[candidate.event.group], candidate)
        peak = flagged.iloc[candidate.event.peak]
        course = courses.get(tuple(key_of(peak, by)))
        facts = facts_of(candidate, flagged, config=config, masks=masks, everything=course)
        alerts.append(
            _alert(
                candidate,
                facts,
                peak,
                label_of(peak, by, masks),
                _pattern(flagged, candidate.event),
                config,
                now,
            )
        )
    day.told += len(chosen)
    alerts += _drawn(session, verdicts, settings.a_day - day.told, config, now)
    labels = _labels(flagged, events, by, masks)
    _remember(session, config.name, states, labels)
    post(session, alerts, config=config, now=now)
    if settings.recovery:
        over = recovered(session, verdicts, config=config, now=now)
        post(session, over, config=config, now=now)
        alerts += over
    alerts += _overflow(session, day, more, config, now)
    session.flush()
    return alerts


def post(session: Session, alerts: Sequence[Alert], *, config: Config, now: datetime) -> None:
    """Write alerts, and a delivery of each for every target it goes to."""
    targets = targets_of(config)
    rows: list[dict[str, Any]] = []
    for alert in alerts:
        session.add(alert)
        rows += [_delivery(alert, target, config, now) for target in targets if target.takes(alert.severity)]
    session.flush()
    if rows:
        session.execute(sa.insert(Delivery), rows)


def digest_of(
    config: Config, now: datetime, *, facts: Mapping[str, Any], severity: str, rows: int, key: str = "digest"
) -> Alert:
    """An alert about other alerts."""
    return Alert(
        id=f"al_{secrets.token_hex(12)}",
        source=config.name,
        kind="digest",
        group=f"{key}:{config.name}",
        incident=f"in_{secrets.token_hex(12)}",
        label="",
        severity=severity,
        created_at=now,
        first_at=now,
        last_at=now,
        rows=rows,
        p_value=1.0,
        amount=None,
        model_version="",
        pattern="",
        facts=dict(facts),
    )


def _candidates(
    events: Sequence[Event], states: dict[str, Known], window: timedelta, again: timedelta
) -> list[Candidate]:
    found = []
    for event in sorted(events, key=lambda each: each.first_at):
        name = f"in_{secrets.token_hex(12)}"
        candidate, states[event.group] = advance(event, states.get(event.group), name=name, window=window, again=again)
        if candidate is not None:
            found.append(candidate)
    return found


def _unsilenced(
    session: Session,
    candidates: list[Candidate],
    flagged: pd.DataFrame,
    source: str,
    now: datetime,
) -> list[Candidate]:
    """Those that nobody has silenced; how often each silence was needed is counted."""
    silences = session.scalars(
        sa.select(Silence).where(Silence.source == source, Silence.since <= now, Silence.until > now)
    ).all()
    if not silences:
        return candidates
    kept = []
    for candidate in candidates:
        match = next((each for each in silences if _covers(each, candidate, flagged)), None)
        if match is None:
            kept.append(candidate)
        else:
            match.hits += 1
    return kept


def _covers(silence: Silence, candidate: Candidate, flagged: pd.DataFrame) -> bool:
    event = candidate.event
    return (
        silence.group in ("", event.group)
        and (not silence.below or rank(event.severity) < rank(silence.below))
        and (not silence.pattern or silence.pattern == _pattern(flagged, event))
    )


def _pattern(flagged: pd.DataFrame, event: Event) -> str:
    """The feature of the first reason."""
    reasons = reasons_of(flagged.iloc[event.peak])
    return reasons[0].feature if reasons else ""


def _drawn(session: Session, verdicts: pd.DataFrame, room: int, config: Config, now: datetime) -> list[Alert]:
    """Alerts about rows drawn at random, where the day has room; they take none from flagged rows that may come."""
    rows, candidates = drawn_of(verdicts, config=config, now=now)
    if not candidates or rank(config.alerts.least_severity) > rank("low"):
        return []
    by, masks, alerts = config.alerts.group_by(config.columns), masks_of(config), []
    for candidate in _unsilenced(session, candidates, rows, config.name, now)[: max(room, 0)]:
        row = rows.iloc[candidate.event.peak]
        facts = facts_of(candidate, rows, config=config, masks=masks) | {"chance": float(row["chance"])}
        alerts.append(_alert(candidate, facts, row, label_of(row, by, masks), DRAWN, config, now))
    return alerts


def _alert(
    candidate: Candidate,
    facts: dict[str, Any],
    peak: pd.Series,
    label: str,
    pattern: str,
    config: Config,
    now: datetime,
) -> Alert:
    event = candidate.event
    version = peak.get("model_version", "")
    return Alert(
        id=f"al_{secrets.token_hex(12)}",
        source=config.name,
        kind=candidate.kind,
        group=event.group,
        incident=candidate.incident,
        label=label,
        severity=event.severity,
        created_at=now,
        first_at=candidate.first_at,
        last_at=event.last_at,
        rows=event.rows,
        p_value=event.p_value,
        amount=event.amount,
        model_version=str(version) if isinstance(version, str) else "",
        pattern=pattern,
        facts=facts,
    )


def _delivery(alert: Alert, target: Target, config: Config, now: datetime) -> dict[str, Any]:
    held = target.wakes_people and alert.kind != "digest" and waits(config.alerts.quiet, alert.severity, now)
    return {
        "alert": alert.id,
        "target": target.name,
        "group": alert.group,
        "state": "held" if held else "waiting",
        "attempts": 0,
        "created_at": now,
        "next_at": now,
        "error": "",
    }


def _overflow(session: Session, day: AlertDay, more: Sequence[Candidate], config: Config, now: datetime) -> list[Alert]:
    """One digest for all that the day has no room for; what comes later is told when the day is over."""
    fresh = [each for each in more if each.is_fresh]
    if not fresh:
        return []
    worst = dict(day.worst)
    for each in fresh:
        worst[each.event.severity] = worst.get(each.event.severity, 0) + 1
    day.more, day.worst = day.more + len(fresh), worst
    if day.said:
        return []
    day.said = day.more
    severity = max(worst, key=rank)
    facts = {"why": "cap", "more": day.more, "by_severity": worst, "a_day": config.alerts.a_day, "day": str(day.day)}
    digest = digest_of(config, now, facts=facts, severity=severity, rows=sum(each.event.rows for each in fresh))
    post(session, [digest], config=config, now=now)
    return [digest]


def _day(session: Session, config: Config, now: datetime) -> AlertDay:
    today = now.astimezone(zone_of(config.service.timezone)).date()
    day = session.get(AlertDay, (config.name, today))
    if day is None:
        day = AlertDay(source=config.name, day=today, told=0, more=0, said=0, worst={})
        session.add(day)
    return day


def _known(session: Session, source: str, events: Iterable[Event]) -> dict[str, Known]:
    ids = list({event.group for event in events})
    found: dict[str, Known] = {}
    for start in range(0, len(ids), _IDS_A_QUESTION):
        some = ids[start : start + _IDS_A_QUESTION]
        for row in session.scalars(sa.select(AlertGroup).where(AlertGroup.source == source, AlertGroup.id.in_(some))):
            found[row.id] = Known(
                row.incident,
                row.severity,
                row.told_severity,
                row.told_at,
                row.first_at,
                row.last_at,
                row.rows,
                row.is_open,
            )
    return found


def _remember(session: Session, source: str, states: Mapping[str, Known], labels: Mapping[str, str]) -> None:
    ids = list(states)
    for start in range(0, len(ids), _IDS_A_QUESTION):
        some = ids[start : start + _IDS_A_QUESTION]
        session.execute(sa.delete(AlertGroup).where(AlertGroup.id.in_(some)))
    rows = [{"id": group, "source": source, "label": labels[group], **vars(known)} for group, known in states.items()]
    if rows:
        session.execute(sa.insert(AlertGroup), rows)


def _labels(flagged: pd.DataFrame, events: Sequence[Event], by: Sequence[str], masks: Masks) -> dict[str, str]:
    if len(by) == 1:  # one column can be read at once
        values = flagged[by[0]].to_numpy()
        return {event.group: masks.show(by[0], values[event.peak])[:200] for event in events}
    return {event.group: label_of(flagged.iloc[event.peak], by, masks) for event in events}


def _courses(
    verdicts: pd.DataFrame, by: Sequence[str], peaks: Sequence[pd.Series]
) -> dict[tuple[str, ...], pd.DataFrame]:
    """All rows of the keys that are told, in one pass over the batch."""
    if not by or not peaks:
        return {}
    inside = np.ones(len(verdicts), dtype=bool)
    for name in by:
        inside &= verdicts[name].isin({peak[name] for peak in peaks}).to_numpy()
    rows = verdicts[inside]
    groups = rows.groupby(list(by), sort=False)
    return {
        tuple(str(each) for each in (key if isinstance(key, tuple) else (key,))): part.tail(10 * MOST_KEYS)
        for key, part in groups
    }
