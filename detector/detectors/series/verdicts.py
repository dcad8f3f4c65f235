"""What a detector says of series."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import pandas as pd


@dataclass(frozen=True)
class SeriesVerdicts:
    """What a detector says of series.

    Parameters
    ----------
    frame : DataFrame
        One row a scored row: key, time and entity (or ``row``, the position), ``risk``, ``p_value``, ``flagged``,
        ``severity``, ``reasons``, and each member's z-score.
    quarantine : DataFrame
        Rows that could not be scored, with ``row`` and ``reason``.
    events : DataFrame
        One line a flagged segment, see ``SequenceScorer.judge``.
    held : Counter
        How many rows each gate held back that would have been flagged.
    """

    frame: pd.DataFrame
    quarantine: pd.DataFrame
    events: pd.DataFrame
    held: Counter[str] = field(default_factory=Counter)
