"""Which series share a model, and which are scored together: that takes far more memory than their rows do."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pandas as pd

from detector.arrays import Counts
from detector.series.resample import RegularSeries
from detector.series.segments import bounds

SHARED = ""
"""Under which the model is kept that all entities share."""
ROWS_AT_ONCE = 65_536
"""A row of ten sensors takes about 2.5 kB while it is scored."""


def group_of(entity: Any, pattern: str) -> str:
    """The kind of an entity that its name tells, whose model it shares; empty text where it tells none.

    What the first group of the pattern takes, or all of it.

    >>> group_of("press-17", "^([a-z]+)-"), group_of("press-17", "^p"), group_of(17, "^([a-z]+)-")
    ('press', 'p', '')
    """
    found = re.search(pattern, str(entity))
    return "" if found is None else found[min(1, found.re.groups)] or ""


def places_by_entity(series: RegularSeries, *, shared: bool, group_by: str | None = None) -> dict[Any, Counts]:
    """The steps of each entity or group of entities, or of all under empty text."""
    if shared or series.entities is None:
        return {SHARED: np.arange(len(series))}
    names = series.entities.tolist()
    found: dict[Any, list[Counts]] = {}
    for first, end in bounds(series.codes):
        name = names[series.codes[first]]
        found.setdefault(name if group_by is None else group_of(name, group_by), []).append(np.arange(first, end))
    return {name: np.concatenate(places) for name, places in found.items()}


def group_numbers(whose: pd.Series, most: int = ROWS_AT_ONCE) -> Counts:
    """For each row the group that its series is scored in: all rows of a series are in one, of about so many rows.

    Rows of nobody are in the first.

    >>> group_numbers(pd.Series(["a", "b", "a", "c", None]), most=3).tolist()
    [0, 0, 0, 1, 0]
    """
    codes, names = pd.factorize(whose)
    ends = np.cumsum(np.bincount(codes[codes >= 0], minlength=len(names)))
    return np.asarray(np.append((ends - 1) // most, 0)[codes], dtype=np.int64)
