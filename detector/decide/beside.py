"""What decides beside a policy: rows that are flagged whatever it says, and rows that nobody is to hear of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import pandas as pd

from detector.arrays import Flags, Floats


@dataclass(frozen=True)
class Seen:
    """What is said of one part of the rows.

    - ``risk``, (n_rows,): Their risk from here on; None if it stays.
    - ``wanted``, (n_rows,): Those that may be flagged whatever the policy says, so that their reasons can be asked for.
    - ``barred``, (n_rows,): Those that the policy does not see: they take nothing of a budget.
    """

    risk: Floats | None
    wanted: Flags
    barred: Flags


class Beside(Protocol):
    """Looks at measured rows before a policy decides; rules that people wrote can."""

    def see(self, rows: pd.DataFrame, measures: pd.DataFrame) -> Seen:
        """Look at one part of cleaned rows, with their risk and p-value."""
        ...
