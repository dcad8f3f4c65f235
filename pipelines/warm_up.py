"""Rows at the start of the data, whose past is too short to learn from: there every card and every device is new."""

from __future__ import annotations

import pandas as pd

from pipelines.progress import counted


def warm_from(time: pd.Series, reach: pd.Timedelta) -> pd.Timestamp:
    """From when on rows are learnt from: where their past is as long as the features look back to.

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


def warm(rows: pd.DataFrame, time: str, reach: pd.Timedelta) -> tuple[pd.DataFrame, str | None]:
    """The rows to learn from, and what to say of the others, if there are any.

    Parameters
    ----------
    rows : DataFrame
        Cleaned rows with their features.
    time : str
        The column that says when.
    reach : Timedelta
        How far back the features look.
    """
    if rows.empty:
        return rows, None
    since = warm_from(rows[time], reach)
    kept = rows[(rows[time] >= since).to_numpy()]
    if len(kept) == len(rows):
        return rows, None
    early = counted(len(rows) - len(kept))
    return kept, f"{early} before {since:%Y-%m-%d %H:%M} not learnt from: their past is too short for the features."
