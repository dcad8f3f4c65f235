"""A table or a query of any SQL database."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.exc import SQLAlchemyError

from detector.errors import SourceError
from pipelines.sources.arrow import cast_table, plain_schema
from pipelines.store.database import Database

_COMMENTS = re.compile(r"\A(?:\s|--[^\n]*(?:\n|\Z)|/\*.*?\*/|\()*", re.DOTALL)
_READS = ("select", "with", "values", "table")
_NO_STATEMENT = re.compile(
    r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|`[^`]*`|\[[^\]]*\]|\$(\w*)\$.*?\$\1\$|--[^\n]*|/\*.*?\*/""", re.DOTALL
)
_READ_ONLY = {"sqlite": "PRAGMA query_only = ON", "postgresql": "SET TRANSACTION READ ONLY"}
"""The second line of defence: what a database session is set to before anything is read from it."""


class SqlReader:
    """Rows that a database streams; nothing in it is changed, and nothing beside it is opened.

    - ``url``: any SQLAlchemy URL.
    - ``table``, ``query``: what to read: a table (``schema.table`` where needed), or a SELECT. One of the two.

    Raises ``SourceError`` if the database cannot be reached, has no such table, or refuses the query.
    """

    def __init__(self, url: str, *, table: str | None = None, query: str | None = None) -> None:
        self.rejected: list[str] = []
        self._database = Database(url)
        self._query = None if query is None else query.strip().rstrip(";")
        self._table: sa.Table | None = None
        if self._query is not None:
            self._refuse_changes(self._query)
        try:
            with self._connect() as connection:
                if table is not None:
                    self._table = self._database.table(connection, table)
                    if self._table is None:
                        raise SourceError(self._database.unknown_table(connection, table))
                    self._columns = [column.name for column in self._table.columns]
                else:
                    self._columns = self._ask_columns(connection)
        except SQLAlchemyError as error:
            raise self._failure(error) from None

    def describe(self) -> str:
        """The address without password, and the table or the query."""
        if self._table is not None:
            return f"table {self._table.fullname} of {self._database.name}"
        query = " ".join(str(self._query).split())
        return f"query {query if len(query) <= 60 else query[:57] + '…'!r} to {self._database.name}"

    def columns(self) -> list[str]:
        """The names of the columns, in order."""
        return list(self._columns)

    def count(self) -> int | None:
        """The number of rows of a table; None for a query, which would have to run twice."""
        if self._table is None:
            return None
        try:
            with self._connect() as connection:
                return int(connection.scalar(sa.select(sa.func.count()).select_from(self._table)) or 0)
        except SQLAlchemyError as error:
            raise self._failure(error) from None

    def estimate(self) -> int | None:
        """The same as ``count``."""
        return self.count()

    def tables(self, columns: Sequence[str], *, size: int) -> Iterator[pa.Table]:
        """The rows in the order the database gives them, fetched ``size`` at a time."""
        try:
            with self._connect() as connection:
                positions, result = self._select(connection, columns, size)
                for rows in result.partitions(size):
                    values = list(zip(*rows, strict=True))
                    table = pa.table({name: _column(values[at]) for name, at in positions.items()})
                    yield cast_table(table, plain_schema(table.schema))
        except SQLAlchemyError as error:
            raise self._failure(error) from None

    def _select(
        self, connection: Connection, columns: Sequence[str], size: int
    ) -> tuple[dict[str, int], sa.CursorResult[Any]]:
        options = {"stream_results": True, "yield_per": size}
        if self._table is not None:
            statement = sa.select(*(self._table.columns[name] for name in columns))
            result = connection.execute(statement, execution_options=options)
            return {name: at for at, name in enumerate(columns)}, result
        result = connection.execution_options(**options, no_parameters=True).exec_driver_sql(str(self._query))
        return {name: self._columns.index(name) for name in columns}, result

    def _ask_columns(self, connection: Connection) -> list[str]:
        options = {"stream_results": True, "yield_per": 1, "no_parameters": True}
        result = connection.execution_options(**options).exec_driver_sql(str(self._query))
        if not result.returns_rows:
            raise SourceError(f"The query returns no rows: {self._query!r}. Expected a SELECT.")
        names = [str(name) for name in result.keys()]  # noqa: SIM118 - a result, not a dict
        result.close()
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise SourceError(f"The query returns two columns named {twice!r}. Rename one: SELECT x AS y.")
        return names

    def _refuse_changes(self, query: str) -> None:
        word = re.match(r"\w*", _COMMENTS.sub("", query, count=1))
        if word is None or word[0].lower() not in _READS:
            raise SourceError(f"`source.query` must be a SELECT, received {query[:60]!r}.")
        if ";" in _NO_STATEMENT.sub("", query):
            raise SourceError(f"`source.query` must be one SELECT, received several statements: {query[:60]!r}.")

    @contextmanager
    def _connect(self) -> Iterator[Connection]:
        with self._database.connect() as connection:
            if (command := _READ_ONLY.get(connection.dialect.name)) is not None:
                connection.exec_driver_sql(command)
            yield connection

    def _failure(self, error: SQLAlchemyError) -> SourceError:
        cause = self._database.cause(error)
        if self._query is not None:
            return SourceError(f"The query to {self._database.name} failed: {cause}. It was: {self._query[:200]}")
        return SourceError(f"{self._database.name} cannot be read: {cause}.")


def _column(values: Sequence[Any]) -> pa.Array:
    """Values as an Arrow array of one type; values of several types become text."""
    try:
        return pa.array(values)
    except (pa.ArrowException, OverflowError):
        return pa.array([_text(value) for value in values], pa.string())


def _text(value: Any) -> str | None:
    if value is None:
        return None
    return value.decode("utf-8", errors="replace") if isinstance(value, bytes) else str(value)
