"""Known anomalies where there are no labels: real rows, some of them spoilt on purpose.

What a detector finds of them says less than labels would, but it says something of any table: cells that do not belong
together, numbers out of their range, levels that are rare.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from detector.arrays import Flags, Floats, Places
from detector.errors import DataError, SettingError
from detector.schema import Schema

FEWEST = 20
WAYS = ("swapped", "moved", "rare")


def inject(
    rows: pd.DataFrame, schema: Schema, *, share: float = 0.02, random_state: int = 0
) -> tuple[pd.DataFrame, Flags]:
    """Spoil a share of cleaned rows, at least 20 or half of all; returned with them is which.

    Each spoilt row is spoilt in one of three ways, as far as the table has the columns: half of its cells are swapped
    for those of another row; one to three of its numbers are moved by 2 to 6 interquartile ranges; one of its
    categories becomes the rarest level, and one of its numbers is moved by 1 to 3. The same seed spoils the same rows
    in the same way. Raises ``DataError`` if there are fewer than two rows; ``SettingError`` if ``share`` is not between
    0 and 1.

    >>> rows = pd.DataFrame({"amount": np.arange(100.0), "fee": np.arange(100.0)})
    >>> spoilt, which = inject(rows, Schema(numeric=("amount", "fee")), share=0.2)
    >>> int(which.sum()), bool((spoilt[~which] == rows[~which]).all(axis=None))
    (20, True)
    """
    if len(rows) < 2:
        raise DataError(f"Injecting needs at least two rows, received {len(rows)}. Give more.")
    if not 0 < share < 1:
        raise SettingError(f"share must lie between 0 and 1, received {share}. A usual value is 0.02.")
    random = np.random.default_rng(random_state)
    count = min(max(FEWEST, round(share * len(rows))), len(rows) // 2)
    chosen = np.sort(random.choice(len(rows), count, replace=False))
    spoilt = rows.copy()
    numeric, levels = list(schema.numeric), list(schema.categorical + schema.boolean)
    ways = [way for way in WAYS if _possible(way, numeric, levels)]
    way_of = random.choice(ways, count)
    for name in numeric:
        spoilt[name] = _with_moved(
            spoilt[name], chosen, _strength(random, way_of, numeric.index(name), len(numeric)), random
        )
    rare = chosen[way_of == "rare"]
    if len(rare):
        column_of = random.integers(0, len(levels), len(rare))
        for number, name in enumerate(levels):
            at = rare[column_of == number]
            found = rows[name].dropna().value_counts()
            if len(at) and len(found):
                spoilt.iloc[at, spoilt.columns.get_loc(name)] = found.index[-1]
    swapped = chosen[way_of == "swapped"]
    if len(swapped):
        others = random.integers(0, len(rows), len(swapped))
        for name in numeric + levels:
            taken = random.random(len(swapped)) < 0.5
            values = rows[name].iloc[others[taken]].to_numpy()
            spoilt.iloc[swapped[taken], spoilt.columns.get_loc(name)] = values
    mark = np.zeros(len(rows), dtype=bool)
    mark[chosen] = True
    return spoilt, mark


def _possible(way: str, numeric: list[str], levels: list[str]) -> bool:
    return {"swapped": len(numeric) + len(levels) > 1, "moved": bool(numeric), "rare": bool(levels)}[way]


def _strength(random: np.random.Generator, way_of: NDArray[np.str_], column: int, columns: int) -> Floats:
    """By how many interquartile ranges each chosen row's number in this column moves; 0 where it stays."""
    hit = random.random(len(way_of)) < min(1.0, 2.0 / columns)
    if column == 0 and columns == 1:
        hit[:] = True
    size = np.where(way_of == "moved", random.uniform(2, 6, len(way_of)), random.uniform(1, 3, len(way_of)))
    return np.where(hit & (way_of != "swapped"), size * random.choice([-1.0, 1.0], len(way_of)), 0.0)


def _with_moved(column: pd.Series, chosen: Places, strength: Floats, random: np.random.Generator) -> pd.Series:
    """The column with the chosen rows' numbers moved; a column without negative numbers gets none."""
    values = column.to_numpy(dtype=np.float64, copy=True)
    known = values[~np.isnan(values)]
    if not len(known):
        return column
    low, high = np.quantile(known, [0.25, 0.75])
    spread = (high - low) or float(known.std()) or abs(float(known[0])) or 1.0
    here = values[chosen]
    here = np.where(np.isnan(here) & (strength != 0), random.choice(known, len(chosen)), here)
    moved = here + strength * spread
    if known.min() >= 0:
        moved = np.where(moved < 0, here + np.abs(strength) * spread, moved)
    values[chosen] = np.where(strength != 0, moved, values[chosen])
    return pd.Series(values, index=column.index, name=column.name)
