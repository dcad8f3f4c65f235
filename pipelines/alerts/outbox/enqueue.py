"""Alerts and their deliveries, written in the transaction of the scores they are about."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import pandas as pd
import sqlalchemy as sa
from sqlalchemy.orm import Session

from pipelines.alerts.channels.targets import targets_of
from pipelines.alerts.grouping.audit_sample import sampled_events
from pipelines.alerts.grouping.events import Event, Grouping, events_of, rank
from pipelines.alerts.grouping.notify_rules import Candidate, GroupState, advance, reported
from pipelines.alerts.grouping.recovery import Earlier, followed, recovered
from pipelines.alerts.grouping.silences import not_silenced, waits
from pipelines.alerts.message.facts import facts_of, labels_of, rows_of_keys
from pipelines.alerts.outbox.alerts import event_alert, recovery_alert
from pipelines.alerts.outbox.cap import Cap
from pipelines.alerts.outbox.waiting import only_latest_wait
from pipelines.config import Config
from pipelines.config.masking import masks_of
from pipelines.store import chunks
from pipelines.store.alert_tables import Alert, AlertGroup, Delivery

MOST_GROUPS = 20_000
"""Events of more groups in one batch are not remembered: the least severe are counted for the digest alone."""


def enqueue(session: Session, scored: pd.DataFrame, *, config: Config, now: datetime) -> list[Alert]:
    """Turn flagged rows into alerts and deliveries. The caller commits, together with the scores.

    - ``session``: Of the transaction that stores the scores and moves the cursor.
    - ``scored``: The scored rows of a batch: the flagged ones at least, with the columns that ``alerts`` names, and in
      ``reasons`` a list of ``Reason``. Rows that are not flagged show that something has recovered, and how the risk
      went.
    - ``config``: Its ``alerts`` say what becomes an alert.
    - ``now``: When this happens, with a time zone.

    Returns those that are reported, most severe first; none on a quiet day.

    Raises ``SettingError`` if a column that ``alerts`` names is not there.
    """
    settings = config.alerts
    if not settings.enabled or scored.empty:
        return []
    flagged = scored[scored["flagged"].to_numpy(dtype=bool)]
    events, others = most_severe_groups(events_of(flagged, Grouping.of(config), now=now))
    states = group_states(session, config.name, (event.group for event in events))
    found, earlier = _candidates(events, states, config)
    candidates = not_silenced(session, found, source=config.name, now=now)
    cap = Cap.of(session, config=config, now=now)
    chosen, without_room = cap.choose(candidates)
    others = [each for each in others if rank(each.event.severity) >= rank(settings.least_severity)]
    without_room = [*without_room, *not_silenced(session, others, source=config.name, now=now)]
    for candidate in chosen:
        states[candidate.event.group] = reported(states[candidate.event.group], candidate)
    alerts = _alerts(chosen, flagged, config=config, now=now, context=scored)
    alerts += _sampled(session, scored, cap, config=config, now=now)
    about = [*events, *(each.event for each in others)]
    labels = labels_of(flagged, about, by=settings.group_by(config.columns), masks=masks_of(config))
    store_group_states(session, config.name, states, labels)
    if settings.recovery:
        over = followed(earlier, chosen, states, labels) + recovered(session, scored, config=config, now=now)
        alerts += [recovery_alert(each, config=config, now=now) for each in over]
    post(session, _in_order(alerts), config=config, now=now)
    digests = cap.digests(without_room, labels, config=config, now=now)
    post(session, digests, config=config, now=now)
    alerts += digests
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
    only_latest_wait(session, alerts)
    if rows:
        session.execute(sa.insert(Delivery), rows)


def delivery_of(alert: Alert, target: str, now: datetime, *, state: str = "waiting") -> dict[str, Any]:
    """A line of the table of deliveries that nobody has tried yet."""
    line = {"alert": alert.id, "target": target, "group": alert.group, "state": state}
    return line | {"attempts": 0, "created_at": now, "next_at": now, "error": ""}


def _candidates(
    events: Sequence[Event], states: dict[str, GroupState], config: Config
) -> tuple[list[Candidate], list[Earlier]]:
    """Events worth a report, in order of time, and those that are not their group's latest; the states move on."""
    settings, found, earlier = config.alerts, [], []
    window, again = timedelta(minutes=settings.window_minutes), timedelta(minutes=settings.again_minutes)
    for event in sorted(events, key=lambda each: each.first_at):
        group, known, name = event.group, states.get(event.group), f"in_{secrets.token_hex(12)}"
        candidate, states[group] = advance(event, known, name=name, window=window, again=again)
        if known is not None and states[group].incident != known.incident:
            earlier.append(Earlier(group, known, is_late=False))
        elif candidate is not None and states[group].incident != candidate.incident:
            late = GroupState(name, event.severity, "", None, event.first_at, event.last_at, event.rows)
            earlier.append(Earlier(group, late, is_late=True))
        if candidate is not None and rank(event.severity) >= rank(settings.least_severity):
            found.append(candidate)
    return found, earlier


def _in_order(alerts: Sequence[Alert]) -> list[Alert]:
    """The same alerts, those of one group in the order of time, as they are to be delivered."""
    place: dict[str, int] = {}
    for alert in alerts:
        place.setdefault(alert.group, len(place))
    return sorted(alerts, key=lambda each: (place[each.group], each.first_at, each.kind == "recovered"))


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


def _sampled(session: Session, scored: pd.DataFrame, cap: Cap, *, config: Config, now: datetime) -> list[Alert]:
    """Alerts about sampled rows, where the day has room; they take none from flagged rows that may come."""
    rows, candidates = sampled_events(scored, config=config, now=now)
    if not candidates or rank(config.alerts.least_severity) > rank("low"):
        return []
    candidates = cap.with_room(not_silenced(session, candidates, source=config.name, now=now))
    alerts = _alerts(candidates, rows, config=config, now=now, context=rows.iloc[:0])
    for alert, candidate in zip(alerts, candidates, strict=True):
        alert.facts = alert.facts | {"chance": float(rows["chance"].iloc[candidate.event.peak])}
    return alerts


def group_states(session: Session, source: str, groups: Iterable[str]) -> dict[str, GroupState]:
    """What is known of each group's latest event; nothing of a group without one."""
    found = {}
    for some in chunks(set(groups)):
        # By their ids alone: with the source too, SQLite reads every group of it, for each of these queries.
        for row in session.scalars(sa.select(AlertGroup).where(AlertGroup.id.in_(some))):
            if row.source != source:
                continue
            found[row.id] = GroupState(
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


def store_group_states(
    session: Session, source: str, states: Mapping[str, GroupState], labels: Mapping[str, str]
) -> None:
    """Put these states in the place of earlier ones."""
    for some in chunks(states):
        session.execute(sa.delete(AlertGroup).where(AlertGroup.id.in_(some)))
    rows = [{"id": group, "source": source, "label": labels[group], **vars(state)} for group, state in states.items()]
    if rows:
        session.execute(sa.insert(AlertGroup), rows)


def most_severe_groups(events: Sequence[Event], *, most: int = MOST_GROUPS) -> tuple[list[Event], list[Candidate]]:
    """The events of the most severe groups; and the others, which are counted for the digest and not remembered.

    What is not remembered is counted anew if the next batch flags it again.
    """
    worst: dict[str, tuple[int, float]] = {}
    for event in events:
        level = (rank(event.severity), event.risk)
        worst[event.group] = max(worst.get(event.group, level), level)
    if len(worst) <= most:
        return list(events), []
    kept = set(sorted(worst, key=lambda group: worst[group], reverse=True)[:most])
    counted = [
        Candidate("opened", event, "", event.first_at, "", is_fresh=True) for event in events if event.group not in kept
    ]
    return [event for event in events if event.group in kept], counted
