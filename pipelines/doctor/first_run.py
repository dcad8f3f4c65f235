"""Whether the service's first run would send alerts about what is long over."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

import pandas as pd

from detector.cleaning.values import naive_utc, read_dates
from detector.errors import DetectorError
from pipelines.alerts.channels.targets import targets_of
from pipelines.config import Config
from pipelines.doctor.check import Check
from pipelines.doctor.formats import share_of
from pipelines.store import existing_store

QUIET = ("file", "log")
"""Targets that are read when somebody looks."""


def check_first_run(config: Config, frame: pd.DataFrame, *, now: datetime) -> Iterator[Check]:
    """What the first run finds that is a backlog; nothing where it has run, sends nothing, or finds none.

    - ``frame``: some rows of the source.
    """
    time, alerts = config.columns.time, config.alerts
    channels = [target.name for target in targets_of(config) if target.kind not in QUIET]
    if config.service.start != "all" or not alerts.enabled or not channels or time not in frame or not len(frame):
        return
    if _has_run(config):
        return
    over = read_dates(frame[time])[0] < naive_utc(now) - timedelta(hours=alerts.backlog_hours)
    if over.any():
        found = (
            f"the first run scores all that is there, and {share_of(over.to_numpy())} of the rows are older than "
            f"`alerts.backlog_hours`: up to {alerts.a_day} alerts about them and a digest go to {', '.join(channels)}"
        )
        advice = "To send none: `service: {start: new}`; `detector backfill` then scores these rows without alerts."
        yield Check("service.start", "warning", found, advice)


def _has_run(config: Config) -> bool:
    """Whether the service has a state; one that cannot be reached may have."""
    try:
        return existing_store(str(config.service.store)) is not None
    except DetectorError:
        return True
