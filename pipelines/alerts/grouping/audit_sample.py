"""The audit sample as alerts of their own: only people can say what nothing flagged."""

from __future__ import annotations

import secrets
from dataclasses import replace
from datetime import datetime, timedelta

import pandas as pd

from pipelines.alerts.grouping.events import Grouping, events_of
from pipelines.alerts.grouping.notify_rules import Candidate
from pipelines.config import Config
from pipelines.sinks.batch_sink import ROW_COLUMNS

SAMPLED = "drawn at random"
"""What stands for their first reason, as in `detector alerts list --precision`."""


def sampled_events(scored: pd.DataFrame, *, config: Config, now: datetime) -> tuple[pd.DataFrame, list[Candidate]]:
    """The sampled rows of a batch (``explored``), and an event for each, of the lowest severity.

    They come in random order, so that those there is room for say as much of the others.
    """
    if "explored" not in scored:
        return scored.iloc[:0], []
    rows = scored[scored["explored"].to_numpy(dtype=bool)].sample(frac=1.0, random_state=config.random_state % 2**32)
    key, time = config.columns.key, config.columns.time
    by = ROW_COLUMNS if key is None else (key,)
    grouping = Grouping(f"{config.name}, {SAMPLED}", by, time, timedelta(0), config.alerts.amount)
    events = [replace(event, pattern=SAMPLED) for event in events_of(rows, grouping, now=now)]
    return rows, [
        Candidate("opened", event, f"in_{secrets.token_hex(12)}", event.first_at, "", is_fresh=True)
        for event in sorted(events, key=lambda each: each.peak)
    ]
