"""What has come in since the last time, and how far it was scored: a folder that grows, or a table that does."""

from __future__ import annotations

from collections.abc import Sequence

from detector.errors import SettingError
from detector.schema import Schema
from pipelines.config import Config
from pipelines.ingest.batch import Intake, Lag, Proposal, Reading
from pipelines.ingest.folder import FolderIntake
from pipelines.store import Store

__all__ = ["Intake", "Lag", "Proposal", "Reading", "open_intake"]


def open_intake(config: Config, store: Store, schema: Schema, *, also: Sequence[str] = ()) -> Intake:
    """The intake of a configuration's source; ``also`` names columns to read where they are there.

    Raises
    ------
    SettingError
        If the source cannot be followed: a query, or a table without an ingestion column or without a key.
    """
    section, source = config.service, config.source
    if source.path is not None:
        return FolderIntake(
            store,
            name=config.name,
            source=source,
            schema=schema,
            settle=section.settle,
            broken_after=section.broken_after,
            rescores_replaced=section.replaced == "rescore",
            starts_new=section.start == "new",
            batch_rows=section.batch_rows,
            also=also,
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
    from pipelines.ingest.table import TableIntake

    return TableIntake(
        store,
        name=config.name,
        url=str(source.url),
        table=source.table,
        cursor=section.cursor,
        key=schema.key,
        lateness=section.lateness,
        starts_new=section.start == "new",
        batch_rows=section.batch_rows,
    )
