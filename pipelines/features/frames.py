"""Rows as one frame, and as parts of a size that scoring likes."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

SLICE = 65_536


def joined(frames: Iterable[pd.DataFrame]) -> pd.DataFrame | None:
    """All rows as one frame, because those of an entity may lie in any order; None if there are none."""
    parts = [frame for frame in frames if len(frame)]
    return pd.concat(parts) if parts else None


def slices(rows: pd.DataFrame) -> list[pd.DataFrame]:
    """The rows in parts of a size that scoring likes; at least one part."""
    return [rows.iloc[start : start + SLICE] for start in range(0, max(len(rows), 1), SLICE)]
