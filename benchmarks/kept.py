"""Results in a CSV file that a run replaces row by row, so that one which is cut short leaves those of another."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from detector.atomic import whole_file


def keep(records: pd.DataFrame, path: Path, *, by: Sequence[str], digits: int = 4) -> pd.DataFrame:
    """Write results and those of the file that they do not replace; what the file holds then.

    - ``by``: what names a result: an earlier one is replaced by one that is the same in all of these.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "ap.csv"
    >>> _ = keep(pd.DataFrame({"set": ["a", "b"], "ap": [0.1, 0.2]}), path, by=["set"])
    >>> keep(pd.DataFrame({"set": ["a"], "ap": [0.3]}), path, by=["set"])["ap"].tolist()
    [0.3, 0.2]
    """
    found = records.round(digits)
    if path.exists():
        earlier, names = pd.read_csv(path), [*by]
        replaced = pd.MultiIndex.from_frame(earlier[names]).isin(pd.MultiIndex.from_frame(found[names]))
        found = pd.concat([found, earlier[~replaced]], ignore_index=True)
    with whole_file(path) as file:
        found.to_csv(file, index=False, lineterminator="\n")
    return found
