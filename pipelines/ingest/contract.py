"""What a source that is followed batch by batch must be able to do."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

import pandas as pd
from sqlalchemy.orm import Session

from pipelines.ingest.batch import InputBatch, ReadFacts


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
    - ``is_last``: Whether it takes all that was there at the look; what comes meanwhile is for the next run.
    """

    window: Mapping[str, Any]
    claim: Callable[[Session, int], None] = _nothing
    is_last: bool = False


@dataclass(frozen=True)
class LeftOut:
    """Which of the rows that were left out are to be scored after all; by default all.

    - ``files``: The names of their files.
    - ``since``, ``until``: Positions of the cursor's column, as people write them.
    """

    files: Sequence[str] = ()
    since: str | None = None
    until: str | None = None


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

    def skipped(self) -> Iterator[pd.DataFrame]:
        """The rows of files that were left out at the start; of other sources none, which go on from a position."""
        ...

    def left_out(self, wanted: LeftOut, now: datetime) -> list[Proposal]:
        """The windows of what was left out.

        Raises ``SettingError`` if the source cannot say what is wanted, or what is wanted was not left out.
        """
        ...

    def can_replay(self, window: Mapping[str, Any]) -> bool:
        """Whether the rows of a window that was scored are there as they were, as far as the source can tell."""
        ...

    def replayed(self, window: Mapping[str, Any]) -> Mapping[str, Any]:
        """The window with which the rows of one that was scored are read again."""
        ...

    def lag(self, now: datetime) -> Lag:
        """How far the scores are behind."""
        ...
