"""Where the scores of a batch land: one file a batch, or rows of a table, each row once."""

from __future__ import annotations

from pathlib import Path

from detector.schema import Schema
from pipelines.config import Config
from pipelines.sinks.batch_files import FileBatchSink
from pipelines.sinks.batch_sink import BatchSink, Staged
from pipelines.store import Store

__all__ = ["BatchSink", "FileBatchSink", "Staged", "open_batch_sink", "quarantine_folder"]


def open_batch_sink(config: Config, store: Store, schema: Schema) -> BatchSink:
    """The place that a configuration's ``output`` names.

    A file there stands for a folder of its name: ``scores.parquet`` for ``scores/``, with one file a batch.
    """
    output = config.output
    if output.path is not None:
        path = Path(output.path)
        return FileBatchSink(store, path.with_suffix(""), suffix=path.suffix.lower(), key=schema.key)
    from pipelines.sinks.batch_table import TableBatchSink

    return TableBatchSink(store, url=str(output.url), table=str(output.table), key=schema.key)


def quarantine_folder(config: Config) -> Path:
    """The folder for rows that cannot be used, one file a batch."""
    path = config.output.quarantine_path.with_suffix("")
    # Beside the configuration, not in whatever folder the service was started from.
    return path if path.is_absolute() or config.file is None else config.file.parent / path
