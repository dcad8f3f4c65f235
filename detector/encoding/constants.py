"""Columns that always held the same value in training: nothing can be learnt from one, but another value is news."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from detector.arrays import Flags
from detector.resolution import is_same
from detector.schema import Schema

FIRST = 1_000
"""Rows by which most columns are seen to vary."""


@dataclass(frozen=True)
class Constant:
    """A column with one value.

    - ``value``: a number (0 or 1 of a boolean), the text of a category, the microseconds since 1970 of a time; None if
      the column was always missing.
    - ``has_gaps``: whether it was missing in some rows, so that a gap is no news.
    - ``only_more``: whether less than the value, or a gap, raises no suspicion.
    """

    name: str
    kind: str
    value: float | int | str | None
    has_gaps: bool = False
    only_more: bool = False

    @classmethod
    def of(cls, name: str, kind: str, column: pd.Series) -> Self | None:
        """The constant that a cleaned column is; None if it varies, or has gaps and levels, which have codes."""
        values, missing = _plain(column, kind)
        present = values[~missing]
        if not len(present):
            return cls(name, kind, None, has_gaps=True)
        has_gaps = bool(missing.any())
        if has_gaps and kind in ("boolean", "categorical"):
            return None
        value = present[0].item() if isinstance(present[0], np.generic) else present[0]
        return cls(name, kind, value, has_gaps) if _same(present, value, kind).all() else None

    def differs(self, values: NDArray[Any], missing: Flags) -> Flags:
        """Which values are another than the only one, and raise suspicion."""
        if self.value is None:
            return ~missing
        other = ~missing
        other[other] = ~_same(values[other], self.value, self.kind)
        if self.only_more:
            other[other] = values[other] > self.value
            return other
        return other if self.has_gaps else other | missing

    def say(self, value: Any) -> str:
        """A value of the column in words."""
        if value is None or pd.isna(value):
            return "missing"
        if self.kind == "datetime":
            return str(pd.Timestamp(value, unit="us") if isinstance(value, int) else pd.Timestamp(value))
        if self.kind == "boolean":
            return "true" if value else "false"
        return f"{value:.10g}" if self.kind == "numeric" else str(value)

    @property
    def expected(self) -> str:
        """The only value, in words."""
        return f"{self.say(self.value)} as always"


@dataclass(frozen=True)
class Constants:
    """The constants of a table.

    - ``lift``: how much one that moves adds to the members' risk at least: what a category never seen adds.

    >>> rows = pd.DataFrame({"limit": [1.0, 1.0], "amount": [2.0, 3.0]})
    >>> constants = Constants.fit(rows, Schema(numeric=("limit", "amount")))
    >>> constants.moved(pd.DataFrame({"limit": [1.0, 1.0000000001, 7.0]})).ravel().tolist()
    [False, False, True]
    """

    columns: tuple[Constant, ...] = ()
    lift: float = 0.0

    @classmethod
    def fit(
        cls,
        rows: pd.DataFrame,
        schema: Schema,
        *,
        is_rising: Callable[[str], bool] = lambda _: False,
        looks_back: Callable[[str], bool] = lambda _: False,
    ) -> Self:
        """Find them among the features of cleaned rows.

        - ``is_rising``: of which only more is suspicious.
        - ``looks_back``: which are made of the past of an entity. A gap, or a first value, says there how long the past
          is, and no more: such columns are none if they were always missing.
        """
        found = [Constant.of(name, schema.kind_of(name), rows[name]) for name in schema.features]
        return cls(
            tuple(
                replace(each, only_more=is_rising(each.name), has_gaps=each.has_gaps or looks_back(each.name))
                for each in found
                if each is not None and not (each.value is None and looks_back(each.name))
            )
        )

    def moved(self, rows: pd.DataFrame) -> Flags | None:
        """Which of them hold another value in each cleaned row, shape (n_rows, n_constants); None if there are none."""
        if not self.columns:
            return None
        return np.column_stack([each.differs(*_plain(rows[each.name], each.kind)) for each in self.columns])

    def moved_plain(self, rows: Sequence[Mapping[str, Any]]) -> Flags | None:
        """The same of the cells of rows, as ``plain_row`` returns them."""
        if not self.columns:
            return None
        return np.column_stack([each.differs(*_cells(rows, each)) for each in self.columns])

    def state(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {"columns": [asdict(each) for each in self.columns], "lift": self.lift}

    @classmethod
    def from_state(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of ``state``; nothing is what bundles say that knew none."""
        return cls(tuple(Constant(**each) for each in values.get("columns", ())), float(values.get("lift", 0.0)))


def alone(rows: pd.DataFrame, schema: Schema) -> NDArray[np.int64]:
    """In how many columns each cleaned row is the only one that keeps them from being constant, shape (n_rows,).

    >>> alone(pd.DataFrame({"limit": [5.0, 5.0, 7.0], "amount": [1.0, 2.0, 3.0]}), Schema(numeric=("limit", "amount")))
    array([0, 0, 1])
    """
    times = np.zeros(len(rows), dtype=np.int64)
    for name in schema.features if len(rows) > 2 else ():
        column = rows[name]
        if column.iloc[:FIRST].nunique(dropna=False) > 2:
            continue
        codes, _ = pd.factorize(column, use_na_sentinel=False)
        counts = np.bincount(codes)
        if len(counts) == 2 and counts.min() == 1:
            place = int(np.flatnonzero(codes == counts.argmin())[0])
            rest = Constant.of(name, schema.kind_of(name), column.drop(column.index[place]))
            differs = rest is not None and rest.differs(*_plain(column.iloc[[place]], schema.kind_of(name)))[0]
            times[place] += bool(differs)
    return times


def _plain(column: pd.Series, kind: str) -> tuple[NDArray[Any], Flags]:
    """The values of a cleaned column as an array, and which are missing."""
    missing = column.isna().to_numpy()
    if kind == "datetime":
        return column.to_numpy(dtype="datetime64[us]").astype(np.int64), missing
    return column.to_numpy(dtype=object if kind == "categorical" else np.float64), missing


def _cells(rows: Sequence[Mapping[str, Any]], column: Constant) -> tuple[NDArray[Any], Flags]:
    """The same of the cells of plain rows."""
    cells = [row[column.name] for row in rows]
    if column.kind in ("categorical", "datetime"):
        values = np.array(cells, dtype=object)
        return values, np.array([cell is None for cell in cells], dtype=bool)
    numbers = np.array(cells, dtype=np.float64)
    return numbers, np.isnan(numbers)


def _same(values: NDArray[Any], value: Any, kind: str) -> Flags:
    """Which values are this one; numbers up to rounding."""
    return is_same(values, value) if kind in ("numeric", "boolean") else np.asarray(values == value, dtype=bool)
