"""Overrides of a policy: rows that are flagged whatever it says, and rows that nobody is to hear of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import pandas as pd

from detector.arrays import Flags, Floats


@dataclass(frozen=True)
class Override:
    """What is said of one part of the rows before a policy decides.

    - ``risk``, (n_rows,): Their risk from here on; None if it stays.
    - ``wanted``, (n_rows,): Those that may be flagged whatever the policy says, so that their reasons can be asked for.
    - ``barred``, (n_rows,): Those that the policy does not see: they take nothing of a budget.
    """

    risk: Floats | None
    wanted: Flags
    barred: Flags


class Overrides(Protocol):
    """Looks at measured rows before a policy decides; rules that people wrote do."""

    def override(self, rows: pd.DataFrame, measures: pd.DataFrame) -> Override:
        """Look at one part of cleaned rows, with their risk and p-value."""
        ...
