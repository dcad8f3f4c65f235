"""What table rows become: arrays for a model, and the features that these stand for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detector.arrays import Flags, Floats
from detector.encoding.spans import Span
from detector.schema import Schema

SPAN = "span"
MISSING, UNSEEN = 0, 1
RESERVED = 2


@dataclass(frozen=True)
class Encoded:
    """Rows as arrays.

    - ``numeric``, (n_rows, n_numeric): in the units of the table; NaN where missing.
    - ``codes``, (n_rows, n_categorical): 0 missing, 1 unseen or rare, 2 and above the known levels.
    - ``window``: the row among the events before it, where a member reads these.
    - ``moved``, (n_rows, n_constants): which columns that never varied hold another value; None if none was constant.
    - ``broken``, (n_rows, n_relations): which relations between columns do not hold; None if there are none.
    """

    numeric: Floats
    codes: NDArray[np.int64]
    window: Floats | None = None
    moved: Flags | None = None
    broken: Flags | None = None

    def __len__(self) -> int:
        return len(self.numeric)

    def inputs(self) -> dict[str, NDArray[Any]]:
        """The arrays under the names the graph knows, without those that have no column."""
        arrays: dict[str, NDArray[Any]] = {"numeric": self.numeric, "codes": self.codes}
        if self.window is not None:
            arrays["window"] = self.window
        return {name: array for name, array in arrays.items() if array.shape[1]}

    def take(self, rows: NDArray[Any] | Sequence[int]) -> Encoded:
        """The rows at these positions or under this mask."""
        window = None if self.window is None else self.window[rows]
        moved = None if self.moved is None else self.moved[rows]
        broken = None if self.broken is None else self.broken[rows]
        return Encoded(self.numeric[rows], self.codes[rows], window, moved, broken)


@dataclass(frozen=True)
class Feature:
    """One thing a reason can name, the columns it is made of, and the model inputs it stands for.

    A number or a category is one input; a datetime is two features, hour and weekday, of two inputs each (sine
    and cosine, so that 23:59 lies next to 0:01); and the days between two datetimes are one, damped.
    """

    name: str
    columns: tuple[str, ...]
    kind: str
    numeric: tuple[int, ...] = ()
    code: int | None = None


def features_of(schema: Schema, clocks: Sequence[tuple[str, str]], spans: Sequence[Span]) -> tuple[Feature, ...]:
    """The features of a table's columns, in the order of the inputs: numbers, dates, days between dates, codes."""
    features = [Feature(name, (name,), "numeric", (i,)) for i, name in enumerate(schema.numeric)]
    position = len(schema.numeric)
    for name, part in clocks:
        features.append(Feature(f"{name} {part}", (name,), "datetime", (position, position + 1)))
        position += 2
    for span in spans:
        features.append(Feature(span.name, span.columns, SPAN, (position,)))
        position += 1
    for code, name in enumerate(schema.boolean + schema.categorical):
        features.append(Feature(name, (name,), schema.kind_of(name), code=code))
    return tuple(features)
