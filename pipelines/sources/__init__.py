"""Where rows come from: CSV, Parquet and JSON lines, folders and patterns of them, any SQL database, Kafka topics.

All are read in batches of bounded memory. Text stays text, whatever the rows before it were like: what a
value means is decided in ``detector.cleaning.clean``, never by the batch it came in.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from pipelines.config.data import SourceSection
from pipelines.sources.files import FileReader
from pipelines.sources.source import NoRowsError, Reader, Source

__all__ = ["NoRowsError", "Reader", "Source", "open_source"]


def open_source(section: SourceSection, *, without: Collection[Path] = ()) -> Source:
    """Open what a configuration names.

    - ``section``: ``section.at(path)`` names another file with the same separator and encoding.
    - ``without``: files of a folder or pattern that are not read.

    Raises ``SourceError`` if a file, folder, database, table or topic is not there or cannot be read: what was
    expected, what is there instead, and what to do.
    """
    if section.path is not None:
        return Source(FileReader.of(section, section.path, without=without), section.complete_formats)
    if section.topic is not None:
        from pipelines.sources.topic import TopicReader, topic_of

        return Source(TopicReader(topic_of(section.topic)), section.complete_formats)
    from pipelines.sources.sql import SqlReader

    return Source(SqlReader(str(section.url), table=section.table, query=section.query), section.complete_formats)
