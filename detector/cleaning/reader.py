"""The columns of a frame, typed, each read once however often it is asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import pandas as pd

from detector.cleaning.values import Reading, read_booleans, read_categories, read_dates, read_names, read_numbers


class ColumnReader:
    """Reads columns by kind and remembers them: features and ``clean`` look at the same ones.

    >>> reader = ColumnReader(pd.DataFrame({"amount": ["1", "x"]}))
    >>> reader.numbers("amount")[0].tolist(), reader.numbers("amount") is reader.numbers("amount")
    ([1.0, nan], True)
    """

    def __init__(self, frame: pd.DataFrame) -> None:
        self.frame = frame
        self._found: dict[tuple[str, Callable[[pd.Series], Any]], Any] = {}

    def over(self, frame: pd.DataFrame) -> Self:
        """For the same table with other columns beside; what was read stands, unless some rows were taken out."""
        found = type(self)(frame)
        if frame.index.equals(self.frame.index):
            found._found = self._found
        return found

    def numbers(self, column: str) -> Reading:
        """See ``read_numbers``."""
        found: Reading = self._once(column, read_numbers)
        return found

    def booleans(self, column: str) -> Reading:
        """See ``read_booleans``."""
        found: Reading = self._once(column, read_booleans)
        return found

    def dates(self, column: str) -> Reading:
        """See ``read_dates``."""
        found: Reading = self._once(column, read_dates)
        return found

    def categories(self, column: str) -> pd.Series:
        """See ``read_categories``."""
        found: pd.Series = self._once(column, read_categories)
        return found

    def names(self, column: str) -> pd.Series:
        """See ``read_names``."""
        found: pd.Series = self._once(column, read_names)
        return found

    def _once(self, column: str, read: Callable[[pd.Series], Any]) -> Any:
        if (column, read) not in self._found:
            self._found[column, read] = read(self.frame[column])
        return self._found[column, read]
