"""Quarantined rows: where each stood, why it cannot be used, and the row as it came."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray


def quarantine(
    rows: pd.DataFrame, reasons: Sequence[str], *, positions: pd.Index | NDArray[Any] | None = None
) -> pd.DataFrame:
    """Rows as a quarantine shows them: ``row``, ``reason``, then the columns as they came, with the index of the rows.

    Columns that are called ``row`` or ``reason`` become ``source_row`` and ``source_reason``; should there be such a
    column already, ``source_source_row`` and so on. ``positions`` say where each row stood in the table; by default its
    index does.

    >>> quarantine(pd.DataFrame({"row": ["x"], "amount": ["?"]}, index=[7]), ["amount: '?' is not a number"])
       row                       reason source_row amount
    7    7  amount: '?' is not a number          x      ?
    """
    for name in ("row", "reason"):
        if name in rows.columns:
            free = f"source_{name}"
            while free in rows.columns:
                free = f"source_{free}"
            rows = rows.rename(columns={name: free})
    where = np.asarray(rows.index if positions is None else positions)
    about = pd.DataFrame({"row": where, "reason": pd.array(list(reasons), dtype="str")}, index=rows.index)
    return pd.concat([about, rows], axis="columns")
