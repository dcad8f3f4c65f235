"""What the service's state says of files that cannot be used."""

from __future__ import annotations

from contextlib import closing

import sqlalchemy as sa

from pipelines.config import Config
from pipelines.store import SourceFile, existing_store


def unusable_files(config: Config) -> dict[str, str]:
    """The files that the service knows to be broken or unfinished, each with the reason.

    Raises ``StoreError`` if the state cannot be read.
    """
    store = existing_store(config.service.store)
    if store is None:
        return {}
    broken = sa.select(SourceFile.name, SourceFile.reason).where(
        SourceFile.source == config.name, SourceFile.state.in_(("broken", "waiting"))
    )
    with closing(store), store.read() as session:
        return {name: reason for name, reason in session.execute(broken.order_by(SourceFile.name))}  # noqa: C416
