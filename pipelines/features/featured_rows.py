"""Rows with their features, and rows that cannot have any."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import pandas as pd

from detector.cleaning.quarantine import quarantine


@dataclass(frozen=True)
class FeaturedRows:
    """Rows with their features, and rows that cannot have any.

    - ``rows``: As they came, with one more float64 column a feature.
    - ``taken``: What of the rows belongs to the past: the columns that features need, typed.
    - ``unusable``: The rows that cannot have features, as they came.
    - ``why``: The reason of each of these.
    """

    rows: pd.DataFrame
    taken: pd.DataFrame
    unusable: pd.DataFrame
    why: Sequence[str] = ()

    @classmethod
    def of_all(cls, rows: pd.DataFrame) -> Self:
        """Rows that need no features."""
        return cls(rows, rows, rows.iloc[:0])

    @property
    def quarantine(self) -> pd.DataFrame:
        """The rows that cannot have features: ``row`` (the label in the index) and ``reason``, then as they came."""
        return quarantine(self.unusable, self.why).reset_index(drop=True)
