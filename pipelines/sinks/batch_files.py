"""Where a batch's scores land: a folder with one file a batch, and a manifest that says which count; or a table."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import sqlalchemy as sa
from numpy.typing import NDArray
from sqlalchemy.orm import Session

from detector.cleaning.values import read_names
from detector.errors import SettingError, SinkError
from detector.schema import Schema
from pipelines.config import Config
from pipelines.disk import unwritten
from pipelines.sinks.batch_sink import ROW_COLUMNS, BatchSink, Staged, row_names
from pipelines.sinks.files import CSV_SUFFIXES, PARQUET_SUFFIXES, FileSink
from pipelines.store import ScoreFile, Store, upsert
from pipelines.testing.failpoints import failpoint

ORPHANS = ".orphans"
STAGED = ".staged"


class FileBatchSink:
    """Files named after their batch and model: written under a hidden name, then renamed, then noted.

    - ``store``: Holds the manifest.
    - ``folder``: Made when missing. It belongs to the service: a file of scores that the manifest does not know is
      moved away.
    - ``suffix``: .parquet or .csv.
    - ``key``: The column that names a row.
    """

    def __init__(self, store: Store, folder: Path, *, suffix: str, key: str | None) -> None:
        self.store = store
        self.folder = folder
        self.suffix = suffix
        self.key = key
        self._keys: set[str] = set()
        self._looked_into: set[int] = set()

    def describe(self) -> str:
        """The folder."""
        return f"{self.folder}/"

    def tidy(self) -> int:
        """Move files that do not count to a hidden folder, and delete what was half written."""
        if not self.folder.is_dir():
            return 0
        with self.store.read() as session:
            counted = set(session.scalars(sa.select(ScoreFile.name)))
        found = 0
        for file in self.folder.glob(f".batch-*{self.suffix}*"):
            file.unlink(missing_ok=True)
            found += 1
        for file in self.folder.glob(f"batch-*{self.suffix}"):
            if file.name not in counted:
                (self.folder / ORPHANS).mkdir(exist_ok=True)
                file.replace(self.folder / ORPHANS / file.name)
                found += 1
        return found

    def known(self, keys: pd.Series, *, batch: int, thoroughly: bool = False) -> NDArray[np.bool_]:
        """Which keys other files hold; without ``thoroughly`` none are said to be known."""
        if not thoroughly or self.key is None:
            return np.zeros(len(keys), dtype=bool)
        with self.store.read() as session:
            others = set(session.scalars(sa.select(ScoreFile.batch).where(ScoreFile.batch != batch)))
        for other in others - self._looked_into:
            self._keys |= self.keys_of(other)
        self._looked_into |= others
        return np.asarray(read_names(keys).astype(str).isin(self._keys).to_numpy(dtype=bool))

    def keys_of(self, batch: int) -> set[str]:
        """What names the rows in the files of a batch."""
        columns = ROW_COLUMNS if self.key is None else (self.key,)
        with self.store.read() as session:
            names = list(session.scalars(sa.select(ScoreFile.name).where(ScoreFile.batch == batch)))
        found: set[str] = set()
        for name in names:
            path = self.folder / name
            if path.is_file() and (rows := _columns(path, columns)) is not None:
                found.update(row_names(rows, columns))
        return found

    def stage(
        self, frames: Iterable[pd.DataFrame], *, batch: int, version: str, folder: Path, replaces: bool = False
    ) -> Staged:
        """Write the file under a hidden name beside its place."""
        del folder  # another file system could not rename
        coming = iter(frames)
        first = next(coming, None)
        if first is None:
            return Staged(batch=batch, version=version, rows=0, paths=(), replaces=replaces)
        name = f"batch-{batch:08d}-{version}{self.suffix}"
        hidden = self.folder / f".{name}"
        with FileSink(hidden, repeated=("batch", "scored_at")) as sink:
            for frame in chain([first], coming):
                failpoint("landing.write")
                sink.write(frame)
        _flush(hidden)
        hidden = hidden.replace(hidden.with_name(hidden.name + STAGED))  # or a pattern such as *.parquet would find it
        return Staged(batch=batch, version=version, rows=sink.rows, paths=(hidden,), replaces=replaces)

    def deliver(self, staged: Staged) -> None:
        """Nothing: see ``show``."""

    def commit(self, staged: Staged, session: Session, *, now: datetime) -> None:
        """Note the file."""
        for hidden in staged.paths:
            note = {"batch": staged.batch, "model_version": staged.version, "rows": staged.rows}
            size = hidden.stat().st_size
            upsert(session, ScoreFile, [{"name": _place(hidden).name, "size": size, "written_at": now} | note])

    def show(self, staged: Staged) -> None:
        """Rename the file."""
        if not staged.paths:
            return
        (hidden,) = staged.paths
        place = _place(hidden)
        failpoint("landing.rename")
        try:
            hidden.replace(place)
            _flush(self.folder)
        except OSError as error:
            raise SinkError(f"{unwritten(place, error)} Nothing was kept.") from error
        failpoint("landing.renamed")

    def discard(self, batch: int) -> None:
        """Nothing: ``tidy`` finds what does not count."""
        del batch


def _place(hidden: Path) -> Path:
    return hidden.with_name(hidden.name.removeprefix(".").removesuffix(STAGED))


def _columns(path: Path, names: Sequence[str]) -> pd.DataFrame | None:
    """Some columns of a file of scores; None if it has others, as of a detector that named rows by something else."""
    try:
        if path.suffix in PARQUET_SUFFIXES:
            has_all = set(names) <= set(pq.read_schema(path).names)
            return pq.read_table(path, columns=list(names)).to_pandas() if has_all else None
        options = pa_csv.ConvertOptions(include_columns=list(names), column_types=dict.fromkeys(names, pa.string()))
        return pa_csv.read_csv(path, convert_options=options).to_pandas()
    except KeyError:
        return None
    except (OSError, pa.ArrowException) as error:
        raise SinkError(f"{path} cannot be read: {error}. Look whether the file is whole.") from error


def _flush(path: Path) -> None:
    """Have the disk hold it: the database is about to say that it does."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        raise SinkError(unwritten(path, error)) from error
    finally:
        os.close(handle)


def open_batch_sink(config: Config, store: Store, schema: Schema) -> BatchSink:
    """The place that a configuration's ``output`` names.

    A file there stands for a folder of its name: ``scores.parquet`` for ``scores/``, with one file a batch.
    """
    output = config.output
    if output.path is not None:
        path = Path(output.path)
        if path.suffix.lower() not in CSV_SUFFIXES + PARQUET_SUFFIXES:
            raise SettingError(
                f"`output.path` is {path}, and the service writes .parquet or .csv files into the folder of that name. "
                f"Name one with that ending, such as {path.name}.parquet."
            )
        return FileBatchSink(store, path.with_suffix(""), suffix=path.suffix.lower(), key=schema.key)
    from pipelines.sinks.batch_table import TableBatchSink

    return TableBatchSink(store, url=str(output.url), table=str(output.table), key=schema.key)
