"""Scores as rows of a database table, unique by row and model version."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import sqlalchemy as sa
from numpy.typing import NDArray
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.orm import Session

from detector.errors import SettingError, SinkError
from pipelines.disk import unwritten
from pipelines.sinks.batch_sink import ROW_COLUMNS, Staged
from pipelines.sinks.sql import ROWS_AN_INSERT, SqlSink, plain_rows
from pipelines.store import Store
from pipelines.store.database import Database
from pipelines.testing.failpoints import failpoint

KEYS_A_QUESTION = 5_000
UNCACHED = {"compiled_cache": None}
"""A table is looked at anew for each batch; statements about it in the cache of the engine would hold all of them."""


class TableBatchSink:
    """A table with a unique index on the row's key and the model's version.

    In the database of the state, scores and cursor are one transaction. In another one, the scores are written first,
    in a transaction that takes away what there may be of the batch; so doing it again after a crash changes nothing.

    - ``store``: The state.
    - ``url``, ``table``: The database and the table; it is created when missing.
    - ``key``: The column that names a row.

    Raises ``SettingError`` if the database is neither SQLite nor PostgreSQL.
    """

    def __init__(self, store: Store, *, url: str, table: str, key: str | None) -> None:
        self.store = store
        self.table = table
        self.identity = ((key,) if key is not None else ROW_COLUMNS) + ("model_version",)
        self.key = key
        self.shares = store.is_same_database(url)
        self._url = url
        self._database = Database(url, failure=SinkError, create=True)
        if self._database.url.get_backend_name() not in ("sqlite", "postgresql"):
            raise SettingError(
                f"Scores of the service go to SQLite, PostgreSQL or files, received {self._database.name}. "
                f"Name another `output`."
            )

    def describe(self) -> str:
        """The table and its database, without password."""
        return f"table {self.table} of {self._database.name}"

    def tidy(self) -> int:
        """Nothing is left over: a transaction is kept or undone."""
        return 0

    def known(self, keys: pd.Series, *, batch: int, thoroughly: bool = False) -> NDArray[np.bool_]:
        """Which keys the table holds from other batches."""
        del thoroughly
        if self.key is None or keys.empty:
            return np.zeros(len(keys), dtype=bool)
        found: set[Any] = set()
        with self._connect() as connection:
            table = self._database.table(connection, self.table)
            if table is None or "batch" not in table.columns:
                return np.zeros(len(keys), dtype=bool)
            column, values = table.columns[self.key], keys.tolist()
            for start in range(0, len(values), KEYS_A_QUESTION):
                some = values[start : start + KEYS_A_QUESTION]
                statement = sa.select(column).where(column.in_(some), table.columns["batch"] != batch)
                found.update(connection.scalars(statement, execution_options=UNCACHED))
        return np.asarray(keys.isin(found).to_numpy(dtype=bool))

    def keys_of(self, batch: int) -> set[str]:
        """What names the rows of a batch."""
        names = ROW_COLUMNS if self.key is None else (self.key,)
        with self._connect() as connection:
            table = self._database.table(connection, self.table)
            if table is None or not set(names) <= set(table.columns.keys()):
                return set()
            statement = sa.select(*(table.columns[name] for name in names)).where(table.columns["batch"] == batch)
            lines = connection.execute(statement, execution_options=UNCACHED)
            return {" ".join(str(value).strip() for value in line) for line in lines}

    def stage(
        self, frames: Iterable[pd.DataFrame], *, batch: int, version: str, folder: Path, replaces: bool = False
    ) -> Staged:
        """Keep them in temporary files, so that the transaction is short."""
        paths: list[Path] = []
        rows = 0
        for frame in frames:
            failpoint("landing.write")
            path = folder / f"{len(paths)}.scores"
            table = pa.Table.from_pandas(frame, preserve_index=False)
            try:
                with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
                    writer.write_table(table)
            except OSError as error:
                raise SinkError(unwritten(path, error)) from error
            paths.append(path)
            rows += len(frame)
        return Staged(batch=batch, version=version, rows=rows, paths=tuple(paths), replaces=replaces)

    def deliver(self, staged: Staged) -> None:
        """To another database than the state's: at once, in a transaction of its own."""
        if self.shares:
            return
        with self._database.connect() as connection:
            self._write(staged, connection)
            connection.commit()
        failpoint("landing.delivered")

    def commit(self, staged: Staged, session: Session, *, now: datetime) -> None:
        """To the state's own database: in its transaction."""
        del now
        if self.shares:
            self._write(staged, session.connection())

    def show(self, staged: Staged) -> None:
        """Nothing: the transaction shows them."""

    def discard(self, batch: int) -> None:
        """Take the rows of a batch away that only another database has kept."""
        if self.shares:
            return
        with self._database.connect() as connection:
            table = self._database.table(connection, self.table)
            if table is not None:
                connection.execute(sa.delete(table).where(table.columns["batch"] == batch), execution_options=UNCACHED)
                connection.commit()

    @contextmanager
    def _connect(self) -> Iterator[Connection]:
        if not self.shares:
            with self._database.connect() as connection:
                yield connection
            return
        with self.store.read() as session:
            yield session.connection()

    def _write(self, staged: Staged, connection: Connection) -> None:
        sink = _BatchTable(self._url, table=self.table, identity=self.identity).on(connection)
        if not staged.paths and (table := self._database.table(connection, self.table)) is not None:
            connection.execute(
                sa.delete(table).where(table.columns["batch"] == staged.batch), execution_options=UNCACHED
            )
        for number, path in enumerate(staged.paths):
            with pa.memory_map(str(path)) as file:
                frame = pa.ipc.open_file(file).read_all().to_pandas()
            if number == 0:
                sink.clear(frame, staged)
            failpoint("landing.insert")
            sink.write(frame)


class _BatchTable(SqlSink):
    """The table over a connection that belongs to somebody else."""

    def __init__(self, url: str, *, table: str, identity: tuple[str, ...]) -> None:
        super().__init__(url, table=table)
        self.identity = identity

    def on(self, connection: Connection) -> _BatchTable:
        """Use that connection; who gave it commits."""
        self._connection = connection
        return self

    def clear(self, frame: pd.DataFrame, staged: Staged) -> None:
        """Take away what there is of a batch: all that an earlier try left, or what this model said of it before."""
        try:
            self._table = self._prepare(frame)
            doomed = sa.delete(self._table).where(self._table.columns["batch"] == staged.batch)
            if staged.replaces:
                doomed = doomed.where(self._table.columns["model_version"] == staged.version)
            self._connection.execute(doomed, execution_options=UNCACHED)
        except SQLAlchemyError as error:
            raise self._failure(error) from None

    def write(self, frame: pd.DataFrame) -> None:
        """Add rows; one that is there already, of this key and model, stays as it is."""
        table = self._table
        if table is None:
            raise SinkError(f"The {self.describe()} was not prepared.")
        insert = postgresql.insert if self._connection.dialect.name == "postgresql" else sqlite.insert
        statement = insert(table).on_conflict_do_nothing(index_elements=list(self.identity))
        try:
            for start in range(0, len(frame), ROWS_AN_INSERT):
                rows = plain_rows(frame.iloc[start : start + ROWS_AN_INSERT])
                self._connection.execute(statement, rows, execution_options=UNCACHED)
        except SQLAlchemyError as error:
            raise self._failure(error) from None
        self.rows += len(frame)

    def _prepare(self, frame: pd.DataFrame) -> sa.Table:
        table = super()._prepare(frame)
        names = {index["name"] for index in sa.inspect(self._connection).get_indexes(table.name, schema=table.schema)}
        columns = [table.columns[name] for name in self.identity]
        wanted = (
            sa.Index(f"uq_{table.name}_row_model", *columns, unique=True),
            sa.Index(f"ix_{table.name}_batch", table.columns["batch"]),
        )
        try:
            for index in wanted:
                if index.name not in names:
                    index.create(self._connection)
        except IntegrityError:
            raise SinkError(
                f"The {self.describe()} holds rows twice for one model, from runs of `detector score`. "
                f"Set `output.table` to another name for the service."
            ) from None
        return table
