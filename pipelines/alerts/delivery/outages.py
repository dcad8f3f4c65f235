"""A target that takes no alerts is itself reported, to the other targets."""

from __future__ import annotations

from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.orm import Session

from pipelines.alerts.channels.targets import targets_of
from pipelines.alerts.outbox.service_alerts import Trouble, is_open, report, report_over
from pipelines.config import Config
from pipelines.store.alert_tables import TargetState

LONG = timedelta(hours=1)
"""A target that is back by then is nobody's business."""


def report_outages(session: Session, *, config: Config, now: datetime) -> None:
    """Report targets that have been down for long, and those that are back; nothing where there is no other target."""
    names = [target.name for target in targets_of(config)]
    if len(names) < 2:
        return
    off = TargetState.name.in_(names), TargetState.state != "up"
    down = {state.name: state for state in session.scalars(sa.select(TargetState).where(*off))}
    for name in names:
        if (state := down.get(name)) is None:
            if is_open(session, _cause(name), config=config):
                report_over(session, _cause(name), config=config, now=now)
        elif now - state.since >= LONG and not _is_due(state, now):
            report(session, _trouble(state, config), config=config, now=now)


def _is_due(state: TargetState, now: datetime) -> bool:
    """Whether it is about to be tried: it may be back since, where the service did not run for a while."""
    return state.state == "down" and (state.retry_at is None or state.retry_at <= now)


def _cause(name: str) -> str:
    return f"target {name}"


def _trouble(state: TargetState, config: Config) -> Trouble:
    return Trouble(
        cause=_cause(state.name),
        label=f"alerts to {state.name}",
        severity="high",
        text=f"Alerts of {config.name} do not reach {state.name} since {state.since:%Y-%m-%d %H:%M} UTC: {state.error}",
        todo=f"Mend it, or its settings: detector alerts test CONFIG --target {state.name} says whether it works. "
        f"What is given up after `alerts.retry.give_up_hours` is sent by detector alerts retry CONFIG.",
        figures={"target": state.name},
    )
