"""Rows drawn at random as alerts of their own: only people can say what nothing flagged."""

from __future__ import annotations

import secrets
from datetime import datetime, timedelta

import pandas as pd

from pipelines.alerts.grouping.groups import Candidate, events_of
from pipelines.config import Config
from pipelines.sinks.batch_sink import ROW_COLUMNS

DRAWN = "drawn at random"
"""What stands for their first reason, as in `detector alerts list --precision`."""


def drawn_of(verdicts: pd.DataFrame, *, config: Config, now: datetime) -> tuple[pd.DataFrame, list[Candidate]]:
    """The rows of a batch that were drawn, and an event for each, of the lowest severity.

    Parameters
    ----------
    verdicts : DataFrame
        With a column ``explored`` if rows are drawn at all.
    config : Config
        Names the columns.
    now : datetime
        For rows without a time.

    Returns
    -------
    tuple of (DataFrame, list of Candidate)
        In random order, so that those there is room for say as much of the others.
    """
    if "explored" not in verdicts:
        return verdicts.iloc[:0], []
    drawn = verdicts[verdicts["explored"].to_numpy(dtype=bool)].sample(
        frac=1.0, random_state=config.random_state % 2**32
    )
    key = config.columns.key
    events = events_of(
        drawn,
        source=f"{config.name}, {DRAWN}",
        by=ROW_COLUMNS if key is None else (key,),
        time=config.columns.time,
        now=now,
        window=timedelta(0),
        amount=config.alerts.amount,
    )
    events.sort(key=lambda each: each.peak)
    names = [f"in_{secrets.token_hex(12)}" for _ in events]
    return drawn, [
        Candidate("opened", event, name, event.first_at, "", is_fresh=True)
        for event, name in zip(events, names, strict=True)
    ]
