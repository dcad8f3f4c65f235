"""What the service's state says of files that cannot be used."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Session

from pipelines.config import Config
from pipelines.ingest.file_changes import OPEN, UNREADABLE
from pipelines.ingest.listing import base_of
from pipelines.store import SourceFile, existing_store


def unusable_files(config: Config) -> dict[str, str]:
    """The files that the service knows to be broken or unfinished, each with the reason.

    Raises ``StoreError`` if the state cannot be read.
    """
    store = existing_store(config.service.store)
    if store is None:
        return {}
    broken = sa.select(SourceFile.name, SourceFile.reason).where(
        SourceFile.source == config.name, SourceFile.state.in_(("broken", *OPEN))
    )
    with closing(store), store.read() as session:
        return {name: reason for name, reason in session.execute(broken.order_by(SourceFile.name))}  # noqa: C416


def broken_files(
    session: Session, config: Config, *, states: Sequence[str] = ("broken", UNREADABLE)
) -> list[tuple[str, str, datetime]]:
    """The files that were set aside and are still there: name, reason, and since when, the oldest first."""
    if config.source.path is None:
        return []
    broken = sa.select(SourceFile.name, SourceFile.reason, SourceFile.seen_at).where(
        SourceFile.source == config.name, SourceFile.state.in_(states)
    )
    base = base_of(config.source.path)
    rows = session.execute(broken.order_by(SourceFile.seen_at, SourceFile.name))
    return [(name, reason, since) for name, reason, since in rows if (base / name).is_file()]
