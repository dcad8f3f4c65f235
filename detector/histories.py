"""A table of events → one sequence an entity, in order of time, and what is known of events → rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from detector.errors import DataError, SchemaError, ShapeError, nearest
from detector.schema import Schema


@dataclass(frozen=True)
class Histories:
    """Sequences of events by entity. Make one with ``Histories.of``.

    Parameters
    ----------
    entities : Index
        In order of appearance.
    sequences : list of array
        For each entity its events in order of time: of shape (n_events,), or (n_events, n_columns).
    rows : list of array
        For each entity the positions of its events among the rows.
    n_rows : int
        Rows there are, those without an entity included.
    """

    entities: pd.Index
    sequences: list[NDArray[Any]]
    rows: list[NDArray[np.intp]]
    n_rows: int

    @classmethod
    def of(cls, rows: pd.DataFrame, schema: Schema, columns: str | Sequence[str]) -> Histories:
        """Group cleaned rows by entity, each in order of time, then key, then as they came.

        Parameters
        ----------
        rows : DataFrame
            As ``clean`` returns them.
        schema : Schema
            Names the entity and, if there are, time and key.
        columns : str or list of str
            One name: a column of whole numbers, the tokens. A list: columns of numbers, the vectors.

        Returns
        -------
        Histories
            Rows without an entity belong to none.

        Raises
        ------
        SchemaError
            If the schema names no entity, or a column is missing.
        DataError
            If no row has an entity, a time is missing, or tokens are not whole numbers.

        >>> rows = pd.DataFrame({"card": ["a", "b", "a"], "shop": [7, 8, 9]})
        >>> histories = Histories.of(rows, Schema(entity="card"), "shop")
        >>> histories.sequences, histories.rows
        ([array([7, 9]), array([8])], [array([0, 2]), array([1])])
        """
        entity, order = _order(rows, schema)
        wanted = [columns] if isinstance(columns, str) else list(columns)
        for name in wanted:
            if name not in rows.columns:
                raise SchemaError(f"Column {name!r} is missing from the table. {nearest(name, rows.columns)}")
        if isinstance(columns, str):
            values = _tokens(rows[columns].iloc[order])
        else:
            values = rows[wanted].iloc[order].to_numpy(dtype=np.float64)
        codes, entities = pd.factorize(entity)
        bounds = np.flatnonzero(np.diff(codes[order])) + 1
        return cls(pd.Index(entities), np.split(values, bounds), np.split(order, bounds), len(rows))

    def to_rows(self, events: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
        """One number an event, as ``Padded.to_events`` returns it, for each row; NaN without an entity.

        Raises
        ------
        ShapeError
            If there is not one number for each event.

        >>> rows = pd.DataFrame({"card": ["a", "b", "a"], "shop": [7, 8, 9]})
        >>> histories = Histories.of(rows, Schema(entity="card"), "shop")
        >>> histories.to_rows([np.array([0.1, 0.2]), np.array([0.3])])
        array([0.1, 0.3, 0.2])
        """
        if [np.shape(own) for own in events] != [own.shape for own in self.rows]:
            raise ShapeError(
                f"to_rows expected one number for each event of {len(self.rows)} entities, got {len(events)} arrays, "
                f"or one of another length. Pass what Padded.to_events returns."
            )
        values = np.full(self.n_rows, np.nan)
        values[np.concatenate(self.rows)] = np.concatenate(events)
        return values


def _order(rows: pd.DataFrame, schema: Schema) -> tuple[pd.Series, NDArray[np.intp]]:
    """The entities, and the positions of the rows that have one: entity after entity, each in order."""
    if schema.entity is None:
        raise SchemaError(
            "Histories expected an entity to group by, but the schema names none. Name one, such as a card."
        )
    roles = [name for name in (schema.entity, schema.time, schema.key) if name is not None]
    Schema(categorical=tuple(roles)).check(rows.columns)
    entity = rows[schema.entity]
    codes = pd.factorize(entity)[0]
    named = np.flatnonzero(codes >= 0)
    if not len(named):
        raise DataError(f"None of {len(rows)} rows has an entity in column {schema.entity!r}. Give rows that do.")
    if schema.time is not None and rows[schema.time].isna().any():
        row = rows.index[rows[schema.time].isna().to_numpy()][0]
        raise DataError(
            f"The time in column {schema.time!r} is missing at row {row}. Pass the rows through clean(), which sets "
            f"such rows aside."
        )
    keys = [pd.factorize(rows[name], sort=True)[0] for name in (schema.key, schema.time) if name is not None]
    return entity, named[np.lexsort([key[named] for key in (*keys, codes)])]


def _tokens(column: pd.Series) -> NDArray[np.int64]:
    whole = pd.api.types.is_numeric_dtype(column) and not column.isna().any()
    if not whole or (column != np.floor(column)).any():
        raise DataError(
            f"Column {column.name!r} should hold whole numbers, the tokens, but its type is {column.dtype}, or a value "
            f"is missing or broken. Turn names into numbers first, or give a list of columns for vectors."
        )
    return np.asarray(column.to_numpy(dtype=np.int64))
