"""Scores that the service has written, read back: of some batches, of one entity, of the last days."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from detector.cleaning.values import naive_utc, read_dates
from detector.errors import SinkError
from pipelines.config import Config
from pipelines.sinks.files import PARQUET_SUFFIXES
from pipelines.store import ScoreFile, Store
from pipelines.store.database import Database

TEXT = ("severity", "model_version", "decided_by", "reasons", "reasons_json")


@dataclass(frozen=True)
class ScoresQuery:
    """Which scores.

    - ``columns``: those to read; one that is not there is left out.
    - ``batches``: only of these.
    - ``entity``: only of this one, by ``columns.entity``, as text.
    - ``since``: only of rows from then on, by ``columns.time``; without a time, of what was scored from then on.
    """

    columns: Sequence[str]
    batches: Sequence[int] | None = None
    entity: str | None = None
    since: datetime | None = None


def stored_scores(config: Config, store: Store, wanted: ScoresQuery) -> pd.DataFrame:
    """The latest score of each row; an empty frame where nothing was scored yet.

    Raises ``SinkError`` if they cannot be read.
    """
    found = _of_files(config, store, wanted) if config.output.path is not None else _of_table(config, wanted)
    key, time = config.columns.key, config.columns.time
    if time in found:
        found = found.assign(**{str(time): read_dates(found[time])[0]})
        if wanted.since is not None:
            found = found[found[time] >= naive_utc(wanted.since)]
    if key in found and "scored_at" in found:
        found = found.sort_values("scored_at", kind="stable").drop_duplicates(key, keep="last")
    return found.reset_index(drop=True)


def _names(config: Config, wanted: ScoresQuery) -> list[str]:
    own = (config.columns.key, config.columns.time, config.columns.entity, "scored_at", "batch")
    return list(dict.fromkeys([*(name for name in own if name is not None), *wanted.columns]))


def _of_files(config: Config, store: Store, wanted: ScoresQuery) -> pd.DataFrame:
    folder = Path(str(config.output.path)).with_suffix("")
    statement = sa.select(ScoreFile.name).order_by(ScoreFile.batch)
    if wanted.batches is not None:
        statement = statement.where(ScoreFile.batch.in_(list(wanted.batches)))
    if wanted.since is not None:
        statement = statement.where(ScoreFile.written_at >= wanted.since)  # no row is scored before it happens
    with store.read() as session:
        paths = [folder / name for name in session.scalars(statement)]
    names, parts = _names(config, wanted), []
    try:
        for path in paths:
            if path.is_file():
                table = _read(path, names)
                entity = config.columns.entity
                if wanted.entity is not None and entity in table.column_names:
                    table = table.filter(pc.equal(pc.cast(table[entity], pa.string()), wanted.entity))
                if table.num_rows:
                    parts.append(table.to_pandas())
    except (OSError, pa.ArrowException) as error:
        raise SinkError(f"The scores in {folder} cannot be read: {error}. Look whether the file is whole.") from error
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=names)


def _read(path: Path, names: Sequence[str]) -> pa.Table:
    if path.suffix in PARQUET_SUFFIXES:
        there = set(pq.read_schema(path).names)
        return pq.read_table(path, columns=[name for name in names if name in there])
    types = {name: pa.string() for name in TEXT}
    options = pa_csv.ConvertOptions(column_types=types)
    table = pa_csv.read_csv(path, convert_options=options)
    return table.select([name for name in names if name in table.column_names])


def _of_table(config: Config, wanted: ScoresQuery) -> pd.DataFrame:
    database = Database(str(config.output.url), failure=SinkError, create=True)
    names = _names(config, wanted)
    if database.is_missing_file:
        return pd.DataFrame(columns=names)
    with database.connect() as connection:
        table = database.table(connection, str(config.output.table))
        if table is None:
            return pd.DataFrame(columns=names)
        statement: Any = sa.select(*(table.columns[name] for name in names if name in table.columns))
        if wanted.batches is not None:
            statement = statement.where(table.columns["batch"].in_(list(wanted.batches)))
        if wanted.entity is not None and config.columns.entity is not None:
            own = sa.cast(table.columns[config.columns.entity], sa.String)
            statement = statement.where(own == wanted.entity)
        if wanted.since is not None and "scored_at" in table.columns:
            statement = statement.where(table.columns["scored_at"] >= naive_utc(wanted.since))
        try:
            found = connection.execute(statement).mappings().all()
        except SQLAlchemyError as error:
            raise SinkError(f"The scores in {database.name} cannot be read: {database.cause(error)}.") from None
        return pd.DataFrame(found, columns=list(statement.selected_columns.keys()))
