"""Take stored scores away again: what is too old, or of one entity. Files are written anew, tables by parts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.exc import SQLAlchemyError

from detector.atomic import whole_file
from detector.cleaning.values import naive_utc
from detector.errors import SinkError
from pipelines.config import Config
from pipelines.disk import unwritten
from pipelines.sinks.batch_files import ORPHANS
from pipelines.sinks.files import CSV_SUFFIXES, PARQUET_SUFFIXES
from pipelines.sinks.quarantine import quarantine_folder
from pipelines.store import ScoreFile, Store
from pipelines.store.database import Database

ROWS_AT_ONCE = 5_000
FILES_AT_ONCE = 100


@dataclass(frozen=True)
class Deleted:
    """How much was taken away: whole files, and rows."""

    files: int = 0
    rows: int = 0

    def __add__(self, other: Deleted) -> Deleted:
        return Deleted(self.files + other.files, self.rows + other.rows)


def delete_scores_before(config: Config, store: Store, moment: datetime) -> Deleted:
    """Delete scores, and rows that could not be used, that were written before then.

    A file leaves the manifest first: whatever is left of it after a crash counts no more, and is tidied up.

    Raises ``SinkError`` if they cannot be deleted.
    """
    found = Deleted(files=_remove(_old_files(quarantine_folder(config), moment)))
    if config.output.path is None:
        return found + Deleted(rows=_delete_rows(config, lambda table: table.columns["scored_at"] < naive_utc(moment)))
    folder, rows = score_folder(config), 0
    names: list[str] = []
    while True:
        with store.write() as session:
            some = session.scalars(sa.select(ScoreFile).where(ScoreFile.written_at < moment).limit(FILES_AT_ONCE)).all()
            rows += sum(each.rows for each in some)
            names = [each.name for each in some]
            session.execute(sa.delete(ScoreFile).where(ScoreFile.name.in_(names)))
        if not names:
            return found + Deleted(rows=rows)
        found += Deleted(files=_remove(folder / name for name in names))


def delete_scores_of(config: Config, store: Store, entity: str, *, dry: bool = False) -> tuple[Deleted, set[str]]:
    """Delete the scores of one entity, by ``columns.entity``, from all that the service wrote, set aside or left over.

    - ``entity``: as text.
    - ``dry``: only look.

    Returns how much that is, and the keys of the rows.

    Raises ``SinkError`` if something cannot be read or written.
    """
    keys: set[str] = set()
    found = Deleted()
    if config.output.path is None:
        column = str(config.columns.entity)

        def ours(table: sa.Table) -> sa.ColumnElement[bool]:
            return sa.cast(table.columns[column], sa.String) == entity

        keys |= _keys_in_table(config, ours)
        rows = len(keys) if dry and keys else _delete_rows(config, ours, dry=dry)
        found += Deleted(rows=rows)
    for path in _files_of(config):
        taken, of_rows = _filter(path, config, entity, dry=dry)
        keys |= of_rows
        if taken:
            found += Deleted(files=1, rows=taken)
            if not dry:
                _note_size(store, path)
    return found, keys


def score_folder(config: Config) -> Path:
    """The folder that the service keeps its files of scores in."""
    return Path(str(config.output.path)).with_suffix("")


def _files_of(config: Config) -> Iterator[Path]:
    folders = [quarantine_folder(config)]
    if config.output.path is not None:
        folders += [score_folder(config), score_folder(config) / ORPHANS]
    for folder in folders:
        if folder.is_dir():
            yield from sorted(path for path in folder.iterdir() if path.suffix in (*CSV_SUFFIXES, *PARQUET_SUFFIXES))


def _old_files(folder: Path, moment: datetime) -> Iterator[Path]:
    if folder.is_dir():
        yield from (path for path in folder.iterdir() if path.is_file() and path.stat().st_mtime < moment.timestamp())


def _remove(paths: Iterable[Path]) -> int:
    removed = 0
    for path in paths:
        try:
            path.unlink()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise SinkError(f"{path} cannot be deleted: {error.strerror}. May the service write there?") from error
        removed += 1
    return removed


def _filter(path: Path, config: Config, entity: str, *, dry: bool) -> tuple[int, set[str]]:
    """Write a file anew without the rows of an entity; how many those are, and their keys."""
    is_parquet = path.suffix in PARQUET_SUFFIXES
    try:
        table = pq.read_table(path) if is_parquet else _read_csv(path)
    except (OSError, pa.ArrowException) as error:
        raise SinkError(f"{path} cannot be read: {error}. Look whether the file is whole.") from error
    name, key = str(config.columns.entity), config.columns.key
    if name not in table.column_names:
        return 0, set()
    ours = pc.fill_null(pc.equal(pc.utf8_trim_whitespace(pc.cast(table[name], pa.string())), entity), False)
    taken = table.filter(ours)
    keys = set() if key not in table.column_names else {str(each).strip() for each in taken[key].to_pylist()}
    if taken.num_rows and not dry:
        try:
            with whole_file(path) as file:
                _write(table.filter(pc.invert(ours)), file, path)
        except OSError as error:
            raise SinkError(unwritten(path, error)) from error
    return taken.num_rows, keys


def _read_csv(path: Path) -> pa.Table:
    """As text, so that what stays is written as it was."""
    delimiter = "\t" if path.suffix == ".tsv" else ","
    parse = pa_csv.ParseOptions(delimiter=delimiter, newlines_in_values=True)
    with path.open("rb") as file:
        names = pa_csv.open_csv(file, parse_options=parse).schema.names
    types = dict.fromkeys(names, pa.string())
    convert = pa_csv.ConvertOptions(column_types=types, strings_can_be_null=True, quoted_strings_can_be_null=False)
    return pa_csv.read_csv(path, parse_options=parse, convert_options=convert)


def _write(table: pa.Table, file: Any, path: Path) -> None:
    if path.suffix in PARQUET_SUFFIXES:
        pq.write_table(table, file, compression="zstd")
    else:
        pa_csv.write_csv(table, file, pa_csv.WriteOptions(delimiter="\t" if path.suffix == ".tsv" else ","))


def _note_size(store: Store, path: Path) -> None:
    """Have the manifest say how large a file is now."""
    rows = pq.read_metadata(path).num_rows if path.suffix in PARQUET_SUFFIXES else _read_csv(path).num_rows
    with store.write() as session:
        statement = sa.update(ScoreFile).where(ScoreFile.name == path.name)
        session.execute(statement.values(rows=rows, size=path.stat().st_size))


@contextmanager
def _scores_table(config: Config) -> Iterator[tuple[Database, Connection, sa.Table] | None]:
    database = Database(str(config.output.url), failure=SinkError, create=True)
    if database.is_missing_file:
        yield None
        return
    with database.connect() as connection:
        table = database.table(connection, str(config.output.table))
        if table is None or "batch" not in table.columns:
            yield None
            return
        try:
            yield database, connection, table
        except SQLAlchemyError as error:
            raise SinkError(f"The scores in {database.name} cannot be deleted: {database.cause(error)}.") from None


def _delete_rows(config: Config, which: Callable[[sa.Table], sa.ColumnElement[bool]], *, dry: bool = False) -> int:
    """Delete rows that the service wrote, some thousand in a transaction; how many."""
    with _scores_table(config) as found:
        if found is None:
            return 0
        database, connection, table = found
        own = sa.and_(which(table), table.columns["batch"].is_not(None))
        if dry:
            return int(connection.scalar(sa.select(sa.func.count()).select_from(table).where(own)) or 0)
        place: Any = sa.literal_column("ctid" if database.url.get_backend_name() == "postgresql" else "rowid")
        deleted = 0
        while True:
            some = sa.select(place).select_from(table).where(own).limit(ROWS_AT_ONCE)
            done = connection.execute(sa.delete(table).where(place.in_(some)))
            connection.commit()
            deleted += done.rowcount
            if done.rowcount < ROWS_AT_ONCE:
                return deleted


def _keys_in_table(config: Config, which: Callable[[sa.Table], sa.ColumnElement[bool]]) -> set[str]:
    with _scores_table(config) as found:
        if found is None or str(config.columns.key) not in found[2].columns:
            return set()
        _, connection, table = found
        column = table.columns[str(config.columns.key)]
        return {str(value).strip() for value in connection.scalars(sa.select(column).where(which(table)))}
