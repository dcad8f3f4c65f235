"""Results to a table of any SQL database."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

import pandas as pd
import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.exc import SQLAlchemyError

from detector.errors import SinkError
from pipelines.store.database import Database

log = logging.getLogger("detector.sinks")

ROWS_AN_INSERT = 5_000
NEW_COLUMNS = ("reasons_json", "rules_hit", "hidden_by", "rules_version")
"""Columns that a table of an earlier version, or from before there were rules, does not have."""
_KINDS: dict[str, tuple[type[Any], ...]] = {
    "text": (sa.String, sa.Enum, sa.Uuid),
    "number": (sa.Numeric, sa.Float, sa.Integer),
    "truth": (sa.Boolean,),
    "time": (sa.DateTime, sa.Date),
}


class SqlSink:
    """A table that is appended to in one transaction, and created when missing.

    - ``url``: Any SQLAlchemy URL; an SQLite file is created when missing.
    - ``table``: The table, ``schema.table`` where needed.

    Raises ``SinkError`` if the database cannot be reached, or the table that is there has other columns or types.
    """

    def __init__(self, url: str, *, table: str) -> None:
        self.rows = 0
        self._database = Database(url, failure=SinkError, create=True)
        self._name = table
        self._table: sa.Table | None = None
        self._stack = ExitStack()

    def describe(self) -> str:
        """The table and the address of the database, without password."""
        return f"table {self._name} of {self._database.name}"

    def __enter__(self) -> Self:
        self._connection: Connection = self._stack.enter_context(self._database.connect())
        return self

    def write(self, frame: pd.DataFrame) -> None:
        """Take some rows; the first frame creates the table, or is compared with it."""
        try:
            if self._table is None:
                self._table = self._prepare(frame)
            for start in range(0, len(frame), ROWS_AN_INSERT):
                rows = plain_rows(frame.iloc[start : start + ROWS_AN_INSERT])
                self._connection.execute(sa.insert(self._table), rows)
        except SQLAlchemyError as error:
            raise self._failure(error) from None
        self.rows += len(frame)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._stack:
            if kind is not None:
                return
            try:
                self._connection.commit()
            except SQLAlchemyError as failure:
                raise self._failure(failure) from None

    def _prepare(self, frame: pd.DataFrame) -> sa.Table:
        existing = self._database.table(self._connection, self._name)
        if existing is not None:
            existing = self._with_new_columns(existing, frame)
            self._check(existing, frame)
            return existing
        schema, _, name = self._name.rpartition(".")
        columns = [sa.Column(str(title), _sql_type(frame[title])) for title in frame.columns]
        table = sa.Table(name, sa.MetaData(), *columns, schema=schema or None)
        table.create(self._connection)
        return table

    def _with_new_columns(self, table: sa.Table, frame: pd.DataFrame) -> sa.Table:
        """The table, with the columns that an earlier version did not write; they stay empty in its rows."""
        missing = [name for name in NEW_COLUMNS if name in frame.columns and name not in table.columns]
        if not missing:
            return table
        quoted = self._connection.dialect.identifier_preparer.format_table(table)
        for name in missing:
            column = sa.schema.CreateColumn(sa.Column(name, sa.Text())).compile(dialect=self._connection.dialect)
            self._connection.exec_driver_sql(f"ALTER TABLE {quoted} ADD COLUMN {column}")
            log.info("the %s has a new column %r from now on", self.describe(), name)
        found = self._database.table(self._connection, self._name)
        return table if found is None else found

    def _check(self, table: sa.Table, frame: pd.DataFrame) -> None:
        problems = [f"no column {name!r}" for name in frame.columns if name not in table.columns]
        for column in table.columns:
            if column.name in frame.columns:
                given, there = _kind(_sql_type(frame[column.name])), _kind(column.type)
                if given != there and there is not None and not (given == "truth" and there == "number"):
                    problems.append(f"{column.type} in {column.name!r}, which is to hold a {given}")
            elif not column.nullable and column.server_default is None and not column.primary_key:
                problems.append(f"a column {column.name!r} that must be filled, and there is nothing for it")
        if problems:
            raise SinkError(
                f"The {self.describe()} does not fit: it has {'; '.join(problems)}. "
                f"Set `output.table` to another name, and the table is created."
            )

    def _failure(self, error: SQLAlchemyError) -> SinkError:
        return SinkError(f"The {self.describe()} cannot be written: {self._database.cause(error)}. Nothing was kept.")


def _sql_type(column: pd.Series[Any]) -> sa.types.TypeEngine[Any]:
    types = pd.api.types
    if types.is_bool_dtype(column):
        return sa.Boolean()
    if types.is_integer_dtype(column):
        return sa.BigInteger()
    if types.is_float_dtype(column):
        return sa.Double()
    if isinstance(column.dtype, pd.DatetimeTZDtype):
        return sa.DateTime(timezone=True)
    return sa.DateTime() if types.is_datetime64_dtype(column) else sa.Text()


def _kind(kind: sa.types.TypeEngine[Any]) -> str | None:
    return next((name for name, types in _KINDS.items() if isinstance(kind, types)), None)


def plain_rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as database drivers take them: plain Python values, None where one is missing."""
    columns = {}
    for name in frame.columns:
        column = frame[name]
        if pd.api.types.is_datetime64_any_dtype(column):
            values = [None if value is pd.NaT else value.to_pydatetime() for value in column]
        else:
            values = column.astype(object).where(column.notna(), None).tolist()
        columns[str(name)] = values
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
