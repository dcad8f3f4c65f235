"""Rows that lie in a group apart from all others, and are ordinary all the same: they differ by a rare value alone.

Categories have gaps by their nature, and so have counts: four rows of a hundred with another status than the others, or
with one failed attempt where those have none, lie as far from them as anomalies do, and are none. How rare a value is,
the detector knows; a number far from all others, or two rare values that come together, say more than that.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from detector.arrays import Flags, Floats, Places
from detector.schema import Schema

LEAST_ALIKE, MOSTLY = 3, 0.5
"""A value belongs to a group that has so many rows with it, and this share of all there are. A group is a tenth of the
rows at most, so a value that has nothing to do with it has about a tenth of its rows in it."""
MOST_COUNTS = 100
"""Different whole numbers in a column of counts. Fewer, and the hour of the day is a measure; more, and amounts without
cents are counts."""


def ordinary_rows(group: Flags, *, rows: pd.DataFrame, schema: Schema) -> Flags:
    """Which rows of a group, and which others that are like them, one rare value is enough to explain.

    In a table of categories and counts alone, none is needed: even common values come in combinations that are few.

    - ``group``, (n_rows,): rows that lie apart from all others.
    - ``rows``: cleaned training rows, as the schema describes them.

    >>> rows = pd.DataFrame({"status": ["ok"] * 95 + ["late"] * 5, "amount": [0.5, 1.5, 2.5, 3.5, 4.5] * 20})
    >>> rows.loc[99, "amount"] = 1e6
    >>> schema = Schema(numeric=("amount",), categorical=("status",))
    >>> np.flatnonzero(ordinary_rows(rows["status"].eq("late").to_numpy(), rows=rows, schema=schema)).tolist()
    [95, 96, 97, 98]
    """
    rare, beyond = np.zeros(len(rows), dtype=np.int64), np.zeros(len(rows), dtype=bool)
    for name in (*schema.categorical, *schema.boolean):
        rare += _belongs(rows[name], group)
    measured = False
    for name in schema.numeric:
        values = rows[name].to_numpy(dtype=np.float64)
        far = _beyond(values, ~group)
        if _are_counts(values):
            next_to = far & ~_beyond(values, ~group, by=1.0) & _belongs(rows[name], group)
            rare += next_to
            far &= ~next_to
        else:
            measured = True
        beyond |= far
    return np.asarray(~beyond & ((rare == 1) if measured else (rare <= 1)))


def _belongs(values: pd.Series, group: Flags) -> Flags:
    """Which rows have a value that belongs to a group."""
    codes: Places = np.asarray(pd.factorize(values)[0] + 1)
    of_all, inside = np.bincount(codes), np.bincount(codes[group], minlength=codes.max(initial=0) + 1)
    return np.asarray(((inside >= LEAST_ALIKE) & (inside >= MOSTLY * of_all))[codes])


def _beyond(values: Floats, others: Flags, *, by: float = 0.0) -> Flags:
    """Which numbers are beyond those of the others, by more than so much; a missing one never is."""
    known = values[others & ~np.isnan(values)]
    if not len(known):
        return np.zeros(len(values), dtype=bool)
    return np.asarray((values < known.min() - by) | (values > known.max() + by))


def _are_counts(values: Floats) -> bool:
    """Whether there are whole numbers only, and few different ones."""
    different = np.unique(values[~np.isnan(values)])
    return len(different) <= MOST_COUNTS and bool((different == np.rint(different)).all())
