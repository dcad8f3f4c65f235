"""A batch of rows, and what reading it came to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd


@dataclass
class ReadFacts:
    """What reading a batch came to; filled while its rows are read, complete once they are used up."""

    rows: int = 0
    rejected: list[pd.DataFrame] = field(default_factory=list)
    """Lines that could not be read, with ``row`` and ``reason``."""
    spans: list[tuple[str, int, int]] = field(default_factory=list)
    """For files: name in the scores, index of its first row here, number of that row in the file."""
    state: dict[str, Any] = field(default_factory=dict)
    """What the source wants to remember for ``settle``."""

    @property
    def given(self) -> int:
        """Rows and lines that came, of which some could not be read."""
        return self.rows + sum(map(len, self.rejected))


@dataclass(frozen=True)
class InputBatch:
    """Rows that are scored together. It never changes; ``map`` makes another one.

    - ``columns``: The columns that a quarantine shows.
    - ``read``: Yields the rows, their index counting on through the whole batch, and notes what it finds.
    - ``facts``: What was found.
    """

    columns: Sequence[str]
    read: Callable[[ReadFacts], Iterator[pd.DataFrame]]
    facts: ReadFacts = field(default_factory=ReadFacts)

    def frames(self) -> Iterator[pd.DataFrame]:
        """The rows, in parts."""
        return self.read(self.facts)

    def map(self, change: Callable[[Iterator[pd.DataFrame]], Iterator[pd.DataFrame]]) -> InputBatch:
        """The batch with something done to its rows as they are read.

        >>> batch = InputBatch(("x",), lambda _: iter([pd.DataFrame({"x": [1, 2]})]))
        >>> [frame["x"].tolist() for frame in batch.map(lambda frames: (2 * frame for frame in frames)).frames()]
        [[2, 4]]
        """
        return replace(self, read=lambda facts: change(self.read(facts)))
