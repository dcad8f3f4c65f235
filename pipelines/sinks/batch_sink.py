"""What a place for scores must be able to do."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from detector.cleaning.values import read_names

if TYPE_CHECKING:  # the names of columns are needed where no database is
    from sqlalchemy.orm import Session

ROW_COLUMNS = ("file", "row")
"""What names a row where no column does: the file it came from, and its number there."""


def row_names(rows: pd.DataFrame, columns: Sequence[str]) -> pd.Series:
    """What names each row, as text: its key, or its file and its number there.

    >>> row_names(pd.DataFrame({"file": ["a.csv"], "row": [7]}), ROW_COLUMNS).tolist()
    ['a.csv 7']
    """
    first, *others = (read_names(rows[name]).astype(str) for name in columns)
    for other in others:
        first = first + " " + other
    return first


@dataclass(frozen=True)
class Staged:
    """Scores of a batch that are ready to be put in their place.

    - ``version``: The model's.
    - ``paths``: Files that hold them for the time being.
    - ``replaces``: Whether the batch was scored before, by this model or by another one.
    """

    batch: int
    version: str
    rows: int
    paths: tuple[Path, ...]
    replaces: bool = False


class BatchSink(Protocol):
    """A place for scores. Putting the same batch there twice is the same as putting it there once."""

    def describe(self) -> str:
        """Where it is, without passwords."""
        ...

    def tidy(self) -> int:
        """Clear away what a crash left over; how many things there were."""
        ...

    def known(self, keys: pd.Series, *, batch: int, thoroughly: bool = False) -> NDArray[np.bool_]:
        """Which keys have scores from another batch. Files are only looked into ``thoroughly``: it takes time."""
        ...

    def keys_of(self, batch: int) -> set[str]:
        """The names of the rows of a batch that were scored, see ``row_names``."""
        ...

    def stage(
        self, frames: Iterable[pd.DataFrame], *, batch: int, version: str, folder: Path, replaces: bool = False
    ) -> Staged:
        """Write scores to where they are not seen yet."""
        ...

    def deliver(self, staged: Staged) -> None:
        """Put them in their place, if that cannot be part of the transaction of the state."""
        ...

    def commit(self, staged: Staged, session: Session, *, now: datetime) -> None:
        """Put them in their place as part of that transaction, where possible, and note them."""
        ...

    def show(self, staged: Staged) -> None:
        """Put them in their place, last thing before that transaction is committed, where it cannot hold them."""
        ...

    def discard(self, batch: int) -> None:
        """Take away what there may be of a batch that was given up."""
        ...
