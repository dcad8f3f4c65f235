"""Alerts of each kind, ready to be stored."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import pandas as pd

from pipelines.alerts.grouping.notify_rules import Candidate
from pipelines.alerts.grouping.recovery import Ended
from pipelines.config import Config
from pipelines.config.masking import masks_of
from pipelines.store.alert_tables import Alert, AlertGroup


def event_alert(
    candidate: Candidate, peak: pd.Series, label: str, facts: dict[str, Any], *, config: Config, now: datetime
) -> Alert:
    """An alert about an event; ``peak`` is its worst row."""
    event, version = candidate.event, peak.get("model_version")
    amount = config.alerts.amount
    hidden = amount is not None and masks_of(config).is_masked(amount)  # of a single row the sum is the value
    return _alert(
        config,
        now,
        kind=candidate.kind,
        group=event.group,
        incident=candidate.incident,
        label=label,
        severity=event.severity,
        first_at=candidate.first_at,
        last_at=event.last_at,
        rows=event.rows,
        p_value=event.p_value,
        amount=None if hidden else event.amount,
        model_version=version if isinstance(version, str) else "",
        pattern=event.pattern,
        facts=facts,
    )


def recovery_alert(ended: Ended, *, config: Config, now: datetime) -> Alert:
    """A notice that an event is over."""
    return _alert(
        config,
        now,
        kind="recovered",
        group=ended.group,
        incident=ended.incident,
        label=ended.label,
        severity=ended.severity,
        first_at=ended.first_at,
        last_at=ended.last_at,
        rows=ended.rows,
        facts={"previous": ended.severity}
        | ({"is_followed": True} if ended.seen is None else {"seen_until": ended.seen.isoformat()}),
    )


def digest_alert(
    facts: Mapping[str, Any], *, severity: str, rows: int, config: Config, now: datetime, key: str = "digest"
) -> Alert:
    """An alert about other alerts."""
    group = f"{key}:{config.name}"
    return _alert(config, now, kind="digest", group=group, severity=severity, rows=rows, facts=dict(facts))


def service_alert(
    kind: str, state: AlertGroup, facts: Mapping[str, Any], *, rows: int, config: Config, now: datetime
) -> Alert:
    """An alert of the service about itself, or that this is over; ``state`` is what is known of its cause."""
    return _alert(
        config,
        now,
        kind=kind,
        group=state.id,
        incident=state.incident,
        label=state.label,
        severity=state.told_severity,
        first_at=state.first_at,
        last_at=state.last_at,
        rows=rows,
        facts=dict(facts),
    )


def trial_alert(*, config: Config, now: datetime) -> Alert:
    """An alert about nothing, to try out where alerts go."""
    return _alert(config, now, kind="test", group="test", severity="low")


def _alert(config: Config, now: datetime, **values: Any) -> Alert:
    blank = {"label": "", "first_at": now, "last_at": now, "rows": 0, "p_value": 1.0, "amount": None, "facts": {}}
    blank |= {"incident": f"in_{secrets.token_hex(12)}", "model_version": "", "pattern": ""}
    return Alert(id=f"al_{secrets.token_hex(12)}", source=config.name, created_at=now, **(blank | values))
