"""Open the source that a configuration names, to be followed."""

from __future__ import annotations

from collections.abc import Sequence

from detector.errors import SettingError
from detector.schema import Schema
from pipelines.config import Config
from pipelines.ingest.contract import FollowedSource
from pipelines.ingest.folder import FollowedFolder
from pipelines.store import Store


def open_followed(config: Config, store: Store, schema: Schema, *, also: Sequence[str] = ()) -> FollowedSource:
    """The source of a configuration, to be followed; ``also`` names columns to read where they are there.

    Raises ``SettingError`` if the source cannot be followed: a query, or a table without an ingestion column or without
    a key.
    """
    section, source = config.service, config.source
    if source.path is not None:
        return FollowedFolder(store, name=config.name, source=source, schema=schema, section=section, also=also)
    if source.topic is not None:
        from pipelines.ingest.topic import FollowedTopic
        from pipelines.sources.topic import topic_of

        return FollowedTopic(
            store,
            name=config.name,
            topic=topic_of(source.topic),
            schema=schema,
            starts_new=section.start == "new",
            batch_rows=section.batch_rows,
            also=also,
            formats=source.complete_formats,
        )
    if source.table is None:
        raise SettingError(
            "`source.query` can be scored once, but not followed. Make a view of it, and name that in `source.table`."
        )
    if section.cursor is None:
        raise SettingError(
            "`service.cursor` names no column. Name the one that grows with every row that comes into the table, "
            "a number or the time of arrival."
        )
    if schema.key is None:
        raise SettingError(
            "`columns.key` names no column, so rows of a table cannot be told apart. Name it, and train again."
        )
    from pipelines.ingest.table import FollowedTable

    return FollowedTable(
        store,
        name=config.name,
        url=str(source.url),
        table=source.table,
        cursor=section.cursor,
        key=schema.key,
        lateness=section.lateness,
        starts_new=section.start == "new",
        batch_rows=section.batch_rows,
        formats=source.complete_formats,
    )
