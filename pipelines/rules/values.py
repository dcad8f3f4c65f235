"""The rows of a frame as Arrow has them, column by column, each made once, and the lists that they are looked up in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from detector.cleaning.values import read_names

if TYPE_CHECKING:
    from pipelines.rules.lists import ValueList
    from pipelines.rules.names import Kind

TYPES = {"number": pa.float64(), "text": pa.large_string(), "flag": pa.bool_(), "time": pa.timestamp("us")}


class Values:
    """The rows of a frame.

    - ``frame``: Cleaned rows: numbers and truths as float64 with NaN where missing, times as ``datetime64``.
    - ``scores``: ``risk`` and ``p_value`` of the same rows.
    - ``lists``: Those that rules may name.
    - ``time``: The column that says when a row happened, for entries of lists that end.
    - ``now``: The same for rows without a time.

    What a column or a part of a rule comes to is kept, so that ten rules that ask the same cost one.
    """

    def __init__(
        self,
        frame: pd.DataFrame,
        scores: Mapping[str, Any],
        *,
        lists: Mapping[str, ValueList] | None = None,
        time: str | None = None,
        now: pd.Timestamp | None = None,
    ) -> None:
        self.frame = frame
        self.scores = scores
        self.lists = dict(lists or {})
        self.time = time
        self.now = now
        self._kept: dict[str, Any] = {}

    @classmethod
    def none(cls) -> Values:
        """No rows: values that stand in a rule need none."""
        return cls(pd.DataFrame(), {})

    def __len__(self) -> int:
        return len(self.frame)

    def kept(self, key: str, make: Callable[[], Any]) -> Any:
        """What was made under a key, or is made now."""
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]

    def column(self, name: str, kind: Kind) -> Any:
        """A column as an array of its kind; all missing where the frame does not have it."""
        if name in self.scores:
            return pa.array(np.asarray(self.scores[name], dtype=np.float64))
        if name not in self.frame.columns:
            return pa.nulls(len(self), TYPES[kind])
        column = self.frame[name]
        if kind in ("number", "flag"):
            numbers = pa.array(column.to_numpy(dtype=np.float64), from_pandas=True)
            return numbers if kind == "number" else pc.not_equal(numbers, 0.0)
        if kind == "time":
            return pa.array(column.to_numpy().astype("datetime64[us]"), from_pandas=True)
        if column.dtype != "str":
            column = read_names(column).astype("str")  # whole numbers without their ".0"
        return _whole(pa.array(column, from_pandas=True)).cast(pa.large_string())

    def in_list(self, column: Any, name: str, kind: Kind) -> Any:
        """Which values of a column are in a list, at the time of their rows; missing where the value is."""
        if isinstance(column, pa.Scalar):
            column = pa.repeat(column, len(self))
        found = self.lists[name].holds(column, kind, self.moments())
        return pc.if_else(pc.is_valid(column), found, pa.scalar(None, pa.bool_()))

    def moments(self) -> Any:
        """When each row happened."""
        if self.time is not None and self.time in self.frame.columns:
            return self.kept("time of rows", lambda: self.column(str(self.time), "time"))
        now = None if self.now is None else self.now.to_pydatetime()
        return pa.repeat(pa.scalar(now, pa.timestamp("us")), len(self))


def _whole(found: Any) -> Any:
    if not isinstance(found, pa.ChunkedArray):
        return found
    return found.chunk(0) if found.num_chunks == 1 else found.combine_chunks()
