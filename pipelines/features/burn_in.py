"""Rows at the start of the data, whose past is too short: there every card and every device is new.

They look unusual and are many, so nothing that comes later would.
"""

from __future__ import annotations

import pandas as pd

from pipelines.progress import counted

LEAST_ROWS = 100


def warm(rows: pd.DataFrame, time: str, whole_from: pd.Timestamp | None) -> tuple[pd.DataFrame, str | None]:
    """The rows that may stand for what is normal, and what to say of the others, if there are any.

    Rows are kept from when on their past is as long as the features look back to; if that leaves less than half of
    them, from their median on; all of them, if that leaves less than a hundred. A head learns from all rows: there are
    never enough labels, and it knows which rows are normal.

    - ``rows``: Cleaned rows with their features.
    - ``time``: The column that says when.
    - ``whole_from``: When the data begin, and as long after that as the features look back to; by default all rows are
      kept.

    >>> rows = pd.DataFrame({"at": pd.date_range("2024-01-01", periods=300)})
    >>> warm(rows, "at", pd.Timestamp("2024-01-31"))[1]
    '30 rows before 2024-01-31 00:00 are not used to learn what is normal: their past is too short for the features.'
    >>> len(warm(rows, "at", pd.Timestamp("2024-09-30"))[0])
    150
    """
    if whole_from is None or rows.empty:
        return rows, None
    since = min(whole_from, rows[time].median())
    kept = rows[(rows[time] >= since).to_numpy()]
    if len(kept) == len(rows) or len(kept) < LEAST_ROWS:
        return rows, None
    early = f"{counted(len(rows) - len(kept))} before {since:%Y-%m-%d %H:%M}"
    return kept, f"{early} are not used to learn what is normal: their past is too short for the features."
