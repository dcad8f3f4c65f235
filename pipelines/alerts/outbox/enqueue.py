"""Alerts and their deliveries, written in the transaction of the scores they are about."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import pandas as pd
import sqlalchemy as sa
from sqlalchemy.orm import Session

from pipelines.alerts.channels.targets import targets_of
from pipelines.alerts.grouping.audit_sample import sampled_events
from pipelines.alerts.grouping.bound import bounded
from pipelines.alerts.grouping.events import Event, Grouping, events_of, rank
from pipelines.alerts.grouping.groups import Candidate, GroupState, advance, choose, reported
from pipelines.alerts.grouping.recovery import recovered
from pipelines.alerts.grouping.silences import not_silenced, waits
from pipelines.alerts.message.facts import facts_of, labels_of, rows_of_keys
from pipelines.alerts.outbox.alerts import digest_alert, event_alert, recovery_alert
from pipelines.alerts.outbox.states import group_states, store_group_states, today
from pipelines.config import Config
from pipelines.config.masking import masks_of
from pipelines.store.alert_tables import Alert, AlertDay, Delivery

__all__ = ["enqueue", "post"]


def enqueue(session: Session, scored: pd.DataFrame, *, config: Config, now: datetime) -> list[Alert]:
    """Turn flagged rows into alerts and deliveries. The caller commits, together with the scores.

    Parameters
    ----------
    session : Session
        Of the transaction that stores the scores and moves the cursor.
    scored : DataFrame
        The scored rows of a batch: the flagged ones at least, with the columns that ``alerts`` names, and in
        ``reasons`` a list of ``Reason``. Rows that are not flagged show that something has recovered, and how the risk
        went.
    config : Config
        Its ``alerts`` say what becomes an alert.
    now : datetime
        When this happens, with a time zone.

    Returns
    -------
    list of Alert
        Those that are reported, most severe first; none on a quiet day.

    Raises
    ------
    SettingError
        If a column that ``alerts`` names is not there.
    """
    settings = config.alerts
    if not settings.enabled or scored.empty:
        return []
    flagged = scored[scored["flagged"].to_numpy(dtype=bool)]
    events, others = bounded(events_of(flagged, Grouping.of(config), now=now))
    states = group_states(session, config.name, (event.group for event in events))
    candidates = not_silenced(session, _candidates(events, states, config), source=config.name, now=now)
    day = today(session, config=config, now=now)
    chosen, more = choose(candidates, room=settings.a_day - day.told)
    others = [each for each in others if rank(each.event.severity) >= rank(settings.least_severity)]
    more += not_silenced(session, others, source=config.name, now=now)
    for candidate in chosen:
        states[candidate.event.group] = reported(states[candidate.event.group], candidate)
    day.told += len(chosen)
    alerts = _alerts(chosen, flagged, config=config, now=now, context=scored)
    alerts += _sampled(session, scored, settings.a_day - day.told, config=config, now=now)
    about = [*events, *(each.event for each in others)]
    labels = labels_of(flagged, about, by=settings.group_by(config.columns), masks=masks_of(config))
    store_group_states(session, config.name, states, labels)
    post(session, alerts, config=config, now=now)
    if settings.recovery:
        over = recovered(session, scored, config=config, now=now)
        notices = [recovery_alert(group, seen, config=config, now=now) for group, seen in over]
        post(session, notices, config=config, now=now)
        alerts += notices
    alerts += _overflow(session, day, more, config=config, now=now)
    session.flush()
    return alerts


def post(session: Session, alerts: Sequence[Alert], *, config: Config, now: datetime) -> None:
    """Write alerts, and a delivery of each for every target it goes to."""
    rows = []
    for alert in alerts:
        session.add(alert)
        for target in targets_of(config):
            if target.takes(alert.severity):
                wakes = target.wakes_people and alert.kind != "digest"
                held = wakes and waits(config.alerts.quiet, alert.severity, now)
                rows.append(delivery_of(alert, target.name, now, state="held" if held else "waiting"))
    session.flush()
    if rows:
        session.execute(sa.insert(Delivery), rows)


def delivery_of(alert: Alert, target: str, now: datetime, *, state: str = "waiting") -> dict[str, Any]:
    """A line of the table of deliveries that nobody has tried yet."""
    line = {"alert": alert.id, "target": target, "group": alert.group, "state": state}
    return line | {"attempts": 0, "created_at": now, "next_at": now, "error": ""}


def _candidates(events: Sequence[Event], states: dict[str, GroupState], config: Config) -> list[Candidate]:
    """Events worth a report, in order of time; the states of their groups move on."""
    settings, found = config.alerts, []
    window, again = timedelta(minutes=settings.window_minutes), timedelta(minutes=settings.again_minutes)
    for event in sorted(events, key=lambda each: each.first_at):
        name = f"in_{secrets.token_hex(12)}"
        candidate, states[event.group] = advance(event, states.get(event.group), name=name, window=window, again=again)
        if candidate is not None and rank(event.severity) >= rank(settings.least_severity):
            found.append(candidate)
    return found


def _alerts(
    candidates: Sequence[Candidate], rows: pd.DataFrame, *, config: Config, now: datetime, context: pd.DataFrame
) -> list[Alert]:
    """An alert about each candidate; ``context`` holds all rows of its key, to show how the risk went."""
    by, masks = config.alerts.group_by(config.columns), masks_of(config)
    labels = labels_of(rows, [each.event for each in candidates], by=by, masks=masks)
    timelines = rows_of_keys(context, by, [rows.iloc[each.event.peak] for each in candidates])
    alerts = []
    for candidate, timeline in zip(candidates, timelines, strict=True):
        facts = facts_of(candidate, rows, config=config, masks=masks, timeline=timeline)
        peak = rows.iloc[candidate.event.peak]
        alerts.append(event_alert(candidate, peak, labels[candidate.event.group], facts, config=config, now=now))
    return alerts


def _sampled(session: Session, scored: pd.DataFrame, room: int, *, config: Config, now: datetime) -> list[Alert]:
    """Alerts about sampled rows, where the day has room; they take none from flagged rows that may come."""
    rows, candidates = sampled_events(scored, config=config, now=now)
    if not candidates or rank(config.alerts.least_severity) > rank("low"):
        return []
    candidates = not_silenced(session, candidates, source=config.name, now=now)[: max(room, 0)]
    alerts = _alerts(candidates, rows, config=config, now=now, context=rows.iloc[:0])
    for alert, candidate in zip(alerts, candidates, strict=True):
        alert.facts = alert.facts | {"chance": float(rows["chance"].iloc[candidate.event.peak])}
    return alerts


def _overflow(
    session: Session, day: AlertDay, more: Sequence[Candidate], *, config: Config, now: datetime
) -> list[Alert]:
    """One digest for all that the day has no room for; what comes later is reported when the day is over."""
    fresh = [each.event for each in more if each.is_fresh]
    if not fresh:
        return []
    worst = dict(day.worst)
    for event in fresh:
        worst[event.severity] = worst.get(event.severity, 0) + 1
    day.more, day.worst = day.more + len(fresh), worst
    if day.said:
        return []
    digest = day_digest(day, rows=sum(event.rows for event in fresh), config=config, now=now)
    post(session, [digest], config=config, now=now)
    return [digest]


def day_digest(day: AlertDay, *, rows: int, config: Config, now: datetime) -> Alert:
    """The digest of all that a day had no room for; they count as reported from now on."""
    day.said = day.more
    facts = {"why": "cap", "more": day.more, "by_severity": day.worst, "day": str(day.day)}
    facts["a_day"] = config.alerts.a_day
    severity = max(day.worst, key=rank, default="low")
    return digest_alert(facts, severity=severity, rows=rows, config=config, now=now)
