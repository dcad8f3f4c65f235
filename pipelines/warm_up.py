"""Rows at the start of the data, whose past is too short: there every card and every device is new.

They look unusual and are many, so nothing that comes later would.
"""

from __future__ import annotations

import pandas as pd

from pipelines.progress import counted


def warm_from(time: pd.Series, reach: pd.Timedelta) -> pd.Timestamp:
    """From when on rows stand for what is normal: where their past is as long as the features look back to.

    Where the data are shorter than twice that, from the median row on.

    Parameters
    ----------
    time : Series
        When each row happened that was measured, in any order; at least one.
    reach : Timedelta
        How far back the features look.

    >>> days = pd.Series(pd.date_range("2024-01-01", periods=100))
    >>> warm_from(days, pd.Timedelta(days=30)), warm_from(days, pd.Timedelta(days=90))
    (Timestamp('2024-01-31 00:00:00'), Timestamp('2024-02-19 12:00:00'))
    """
    return min(time.min() + reach, time.median())


def warm(rows: pd.DataFrame, time: str, since: pd.Timestamp | None) -> tuple[pd.DataFrame, str | None]:
    """The rows that may stand for what is normal, and what to say of the others, if there are any.

    A head learns from all rows: there are never enough labels, and it is told which rows are normal.

    Parameters
    ----------
    rows : DataFrame
        Cleaned rows with their features.
    time : str
        The column that says when.
    since : Timestamp, optional
        As ``warm_from`` returns it; all rows by default.
    """
    if since is None:
        return rows, None
    kept = rows[(rows[time] >= since).to_numpy()]
    if len(kept) == len(rows):
        return rows, None
    early = f"{counted(len(rows) - len(kept))} before {since:%Y-%m-%d %H:%M}"
    return kept, f"{early} not taken for normal behaviour: their past is too short for the features."
