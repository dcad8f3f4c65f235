"""The service's own state: what was read, which batch is in hand, what every run did, who leads.

SQLite by default, PostgreSQL by URL. Everything that must agree is written in one transaction: the scores where they go
to the same database, and always the cursor, the batch and the manifest.
"""

from __future__ import annotations

from pipelines.store.engine import Store, chunks, existing_store, open_store, upsert
from pipelines.store.tables import (
    Audit,
    Base,
    Batch,
    Cursor,
    DayFlags,
    DueTime,
    JobState,
    KnownRows,
    Lease,
    RecentKey,
    Request,
    Run,
    ScoreFile,
    SeriesTail,
    SourceFile,
)

__all__ = [
    "Audit",
    "Base",
    "Batch",
    "Cursor",
    "DayFlags",
    "DueTime",
    "JobState",
    "KnownRows",
    "Lease",
    "RecentKey",
    "Request",
    "Run",
    "ScoreFile",
    "SeriesTail",
    "SourceFile",
    "Store",
    "chunks",
    "existing_store",
    "open_store",
    "upsert",
]
