"""The configured source as jobs beside scoring read it: without the files that scoring has quarantined."""

from __future__ import annotations

import logging
from pathlib import Path

from detector.errors import StoreError
from pipelines.config import Config
from pipelines.ingest.listing import base_of
from pipelines.progress import counted
from pipelines.sources import Source, open_source

log = logging.getLogger("detector.ingest")

MOST_NAMED = 5


def open_usable(config: Config) -> Source:
    """The configured source; a file that the service knows to be broken or unfinished stops no job, and is named.

    Where no service has looked at the files, all are read.

    Raises ``SourceError`` if there are no files, or one that is not quarantined cannot be read.
    """
    path = config.source.path
    try:
        found = {} if path is None or Path(path).is_file() else _unusable(config)
    except StoreError as error:
        log.warning("all files are read, because nobody can say which scoring has quarantined: %s", error)
        found = {}
    if not found:
        return open_source(config.source)
    base = base_of(str(path))
    there = {name: reason for name, reason in found.items() if (base / name).is_file()}
    if there:
        named = "; ".join(f"{name} ({reason})" for name, reason in list(there.items())[:MOST_NAMED])
        more = f" and {counted(len(there) - MOST_NAMED, 'more file')}" if len(there) > MOST_NAMED else ""
        log.warning("not read, because scoring has quarantined it: %s%s", named, more)
    return open_source(config.source, without=[base / name for name in there])


def _unusable(config: Config) -> dict[str, str]:
    """The files that the service knows to be broken or unfinished, each with the reason."""
    if not config.service.may_have_state:
        return {}
    from pipelines.ingest.known_files import unusable_files  # it loads SQLAlchemy

    return unusable_files(config)
