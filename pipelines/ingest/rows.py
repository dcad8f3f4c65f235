"""The rows of a table between two values of a column."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.exc import SQLAlchemyError

from pipelines.sources.sql import SqlReader


class WindowReader(SqlReader):
    """A table, read in the order of a column; only rows above the first and up to the second of its ``bounds``.

    - ``url``, ``table``: As ``SqlReader`` takes them.
    - ``cursor``: The column.
    """

    def __init__(self, url: str, *, table: str, cursor: str) -> None:
        super().__init__(url, table=table)
        self.cursor = cursor
        self.bounds: tuple[Any, Any] = (None, None)

    def count(self) -> int | None:
        """How many rows lie within the bounds."""
        statement = sa.select(sa.func.count()).select_from(self._there).where(*self._within(*self.bounds))
        return int(self._ask(statement)[0][0])

    def highest(self, after: Any, *, limit: int | None) -> Any:
        """The column's value in the last of the first ``limit`` rows after a position; None if there are none."""
        column = self._there.columns[self.cursor]
        if limit is not None:
            found = self._ask(
                sa.select(column).where(*self._within(after, None)).order_by(column).limit(1).offset(limit - 1)
            )
            if found:
                return found[0][0]
        return self._ask(sa.select(sa.func.max(column)).where(*self._within(after, None)))[0][0]

    def behind(self, after: Any) -> tuple[int, Any]:
        """How many rows lie after a position, and the highest of them."""
        column = self._there.columns[self.cursor]
        statement = sa.select(sa.func.count(), sa.func.max(column)).where(*self._within(after, None))
        found = self._ask(statement)[0]
        return int(found[0]), found[1]

    def keys(self, key: str, after: Any, upto: Any) -> Iterator[Any]:
        """The keys of the rows between two positions that have one."""
        column = self._there.columns[key]
        for (value,) in self._ask(sa.select(column).where(column.is_not(None), *self._within(after, upto))):
            yield value

    @property
    def _there(self) -> sa.Table:
        if self._table is None:  # not so: a table was asked for
            raise ValueError(self.describe())
        return self._table

    def _within(self, after: Any, upto: Any) -> list[sa.ColumnElement[bool]]:
        column = self._there.columns[self.cursor]
        rules: list[sa.ColumnElement[bool]] = [column.is_not(None)]
        if after is not None:
            rules.append(column > after)
        if upto is not None:
            rules.append(column <= upto)
        return rules

    def _ask(self, statement: Any) -> Sequence[Any]:
        try:
            with self._database.connect() as connection:
                return connection.execute(statement).all()
        except SQLAlchemyError as error:
            raise self._failure(error) from None

    def _select(
        self, connection: Connection, columns: Sequence[str], size: int
    ) -> tuple[dict[str, int], sa.CursorResult[Any]]:
        statement = (
            sa.select(*(self._there.columns[name] for name in columns))
            .where(*self._within(*self.bounds))
            .order_by(self._there.columns[self.cursor])
        )
        result = connection.execute(statement, execution_options={"stream_results": True, "yield_per": size})
        return {name: at for at, name in enumerate(columns)}, result
