"""Which file a row of a batch came from, and its number there: what names it where no column does."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

import numpy as np
import pandas as pd

from detector.errors import SettingError
from pipelines.sinks.batch_sink import ROW_COLUMNS


def with_provenance(frame: pd.DataFrame, spans: Sequence[tuple[str, int, int]]) -> pd.DataFrame:
    """The rows with two columns in front that say so.

    - ``frame``: Its index is the position of each row in the batch, growing.
    - ``spans``: As in ``Reading``: name of the file, position of its first row here, number of that row in the file.

    Raises ``SettingError`` if the rows come from no file.

    >>> rows = with_provenance(pd.DataFrame({"risk": [0.5]}, index=[7]), [("a.csv", 0, 0), ("b.csv", 5, 100)])
    >>> rows.to_dict("records")
    [{'file': 'b.csv', 'row': 102, 'risk': 0.5}]
    """
    if not spans:
        raise SettingError("`columns.key` names no column, so rows of a table cannot be told apart. Name it.")
    positions = frame.index.to_numpy()
    starts = [start for _, start, _ in spans]
    first, last = (bisect_right(starts, positions[end]) - 1 for end in (0, -1))
    if first == last:  # positions grow, so all rows are of one file
        name, start, number = spans[first]
        file, row = pd.Series(name, index=frame.index, dtype="str"), positions + (number - start)
    else:
        at = np.searchsorted(starts, positions, side="right") - 1
        file = pd.Series(np.array([name for name, _, _ in spans], dtype=object)[at], index=frame.index, dtype="str")
        row = positions + np.array([number - start for _, start, number in spans])[at]
    rest = {name: frame[name] for name in frame.columns if name not in ROW_COLUMNS}
    return pd.DataFrame(dict(zip(ROW_COLUMNS, (file, row), strict=True)) | rest, index=frame.index, copy=False)
