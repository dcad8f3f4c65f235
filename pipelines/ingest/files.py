"""One file of a folder that grows, read from a given row on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from detector.schema import Schema
from pipelines.config import SourceSection
from pipelines.sources.files import FileReader
from pipelines.sources.source import Source

BATCH = 65_536


class FileWindow:
    """A file, and what reading it came to.

    - ``section``: How CSV is written.

    Raises ``SourceError`` if it cannot be read.
    """

    def __init__(self, path: Path, section: SourceSection) -> None:
        self.path = path
        self._reader = FileReader.of(section, str(path))
        self.source = Source(self._reader, section.complete_formats)
        self.rows = 0
        """Rows read so far, those skipped included."""

    @property
    def is_empty(self) -> bool:
        """Whether it has columns and nothing else."""
        return self._reader.parts[0].is_empty

    @property
    def rejected(self) -> pd.DataFrame:
        """Lines that could not be read."""
        return self.source.rejected

    def estimate(self) -> int | None:
        """About how many rows."""
        return self.source.estimate()


def columns_of(path: Path, section: SourceSection) -> list[str]:
    """The names of a file's columns."""
    return FileWindow(path, section).source.columns()


def columns_needed(columns: list[str], schema: Schema, also: Sequence[str] = ()) -> list[str]:
    """Those of the columns that scoring uses, and some others, in their order."""
    needed = {*schema.features, *(name for role, name in schema.roles.items() if role != "label"), *also}
    return [name for name in columns if name in needed]


def frames_of(
    window: FileWindow, schema: Schema, *, also: Sequence[str] = (), skip: int = 0, upto: int | None = None
) -> Iterator[pd.DataFrame]:
    """The rows of a file after the first ``skip``, and before row number ``upto``; ``also`` names more columns."""
    if window.is_empty:
        return
    columns = columns_needed(window.source.columns(), schema, also)
    for frame in window.source.batches(BATCH, columns=columns, numeric=schema.numeric):
        start = max(0, min(len(frame), skip - window.rows))
        end = len(frame) if upto is None else max(0, min(len(frame), upto - window.rows))
        window.rows += end
        if start < end:
            yield frame if end - start == len(frame) else frame.iloc[start:end].copy()
        if end < len(frame):
            return
