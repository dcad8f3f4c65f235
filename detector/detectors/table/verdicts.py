"""What a detector for tables says of one."""

from __future__ import annotations

from dataclasses import dataclass, field

import pandas as pd


@dataclass(frozen=True)
class Verdicts:
    """What a detector says of a table.

    Parameters
    ----------
    frame : DataFrame
        One row a scored row: key, time and entity (or ``row``, the position), ``risk``, ``p_value``, ``flagged``,
        ``severity``, ``reasons``, each member's z-score, ``unsupervised_risk``, and ``decided_by``: "head" where
        ``risk`` is that of a head that learnt from labels, else "members".
    quarantine : DataFrame
        Rows that could not be scored, with ``row`` and ``reason``.
    promised : bool
        False where a false discovery rate was asked for that cannot be promised.
    note : str or None
        Why not, and what was flagged instead.
    neighbours : dict of str to int
        How many rows the policy would have flagged at half and at twice its rate.
    """

    frame: pd.DataFrame
    quarantine: pd.DataFrame
    promised: bool = True
    note: str | None = None
    neighbours: dict[str, int] = field(default_factory=dict)
