"""When people are not to be woken."""

from __future__ import annotations

from datetime import datetime, time

from pipelines.alerts.grouping.groups import rank
from pipelines.config.alerting import QuietSection
from pipelines.cron import zone_of


def is_quiet(section: QuietSection | None, now: datetime) -> bool:
    """Whether it is one of the quiet hours.

    >>> from datetime import UTC
    >>> is_quiet(QuietSection(), datetime(2026, 3, 1, 23, tzinfo=UTC))
    True
    """
    if section is None:
        return False
    clock = now.astimezone(zone_of(section.timezone)).time()
    since, until = _read(section.since), _read(section.until)
    if since <= until:
        return since <= clock < until
    return clock >= since or clock < until


def waits(section: QuietSection | None, severity: str, now: datetime) -> bool:
    """Whether something of this severity waits for the end of the quiet hours."""
    return section is not None and is_quiet(section, now) and rank(severity) < rank(section.wake_from)


def _read(text: str) -> time:
    hours, _, minutes = text.partition(":")
    return time(int(hours), int(minutes))
