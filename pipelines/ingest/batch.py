"""A batch of rows, and what a source that is followed batch by batch must be able to do."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Protocol

import pandas as pd
from sqlalchemy.orm import Session


@dataclass(frozen=True)
class Lag:
    """How far the scores are behind the source.

    - ``waiting``: Files, or rows, that wait.
    - ``seconds``: Age of the oldest file that waits, or how far the newest row is ahead of the cursor; 0 if nothing
      waits.
    """

    waiting: int = 0
    seconds: float = 0.0


def _nothing(session: Session, batch: int) -> None:
    del session, batch


@dataclass(frozen=True)
class Proposal:
    """A window that could be scored next.

    - ``window``: As JSON can hold it: enough to read exactly the same rows again after a crash.
    - ``claim``: Marks the window as taken, given the session of the transaction that inserts the batch and the batch's
      number.
    """

    window: Mapping[str, Any]
    claim: Callable[[Session, int], None] = _nothing


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


class FollowedSource(Protocol):
    """A source that is followed."""

    name: str
    """Under which the state is kept."""

    notices: list[str]
    """What people should know of the last look."""

    def propose(self, now: datetime) -> Proposal | None:
        """Look what is there, and propose the next window; None if nothing is ready."""
        ...

    def is_intact(self, window: Mapping[str, Any]) -> bool:
        """Whether a window that was claimed earlier can still be read as it was."""
        ...

    def release(self, session: Session, window: Mapping[str, Any]) -> None:
        """Give back a window of which nothing was kept."""
        ...

    def open(self, window: Mapping[str, Any]) -> InputBatch:
        """Read a window."""
        ...

    def refuse(self, window: Mapping[str, Any], error: Exception, *, now: datetime) -> str | None:
        """Quarantine the part of a window that cannot be read, and say so; None if the error is not the rows' fault."""
        ...

    def settle(self, session: Session, window: dict[str, Any], facts: ReadFacts, *, batch: int, now: datetime) -> None:
        """Write down, in the transaction of the scores, that a window is done; what a replay needs is added to it.

        Raises ``SourceError`` if what was read has changed meanwhile; nothing is kept then.
        """
        ...

    def passed(self, window: Mapping[str, Any] | None = None) -> Iterator[pd.DataFrame]:
        """The rows that lie behind: scored, or left out at the start; without those of a window.

        What cannot be read any more is left out; a table leaves it to the caller to tell the window's rows by their
        key.
        """
        ...

    def lag(self, now: datetime) -> Lag:
        """How far the scores are behind."""
        ...
