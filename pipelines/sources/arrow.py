"""Arrow tables of any origin to tables of a few plain types, and those to pandas frames."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import reduce
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from detector.schema import MISSING

_SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
_NULLABLE = {"int64": pd.Int64Dtype(), "uint64": pd.UInt64Dtype(), "bool": pd.BooleanDtype()}


def plain_type(kind: pa.DataType) -> pa.DataType:
    """The type that values of a type are read as: few enough for ``detector.cleaning.clean`` to know them all.

    >>> str(plain_type(pa.dictionary(pa.int8(), pa.string()))), str(plain_type(pa.decimal128(9, 2)))
    ('string', 'double')
    """
    types = pa.types
    if types.is_dictionary(kind):
        return plain_type(kind.value_type)
    if types.is_null(kind) or types.is_boolean(kind) or types.is_timestamp(kind) or types.is_uint64(kind):
        return kind
    if types.is_integer(kind):
        return pa.int64()
    if types.is_floating(kind) or types.is_duration(kind):
        return kind if types.is_float32(kind) else pa.float64()
    if types.is_decimal(kind):
        whole = kind.scale <= 0
        return pa.float64() if not whole else pa.int64() if kind.precision <= 18 else pa.string()
    if types.is_date(kind):
        return pa.timestamp("us")
    return pa.string()


def plain_schema(schema: pa.Schema) -> pa.Schema:
    """The plain type of every column."""
    return pa.schema([(field.name, plain_type(field.type)) for field in schema])


def unify(first: pa.Schema, second: pa.Schema) -> pa.Schema:
    """The narrowest plain types that hold the values of two tables with the same columns."""
    return pa.schema([(field.name, _wider(field.type, second.field(field.name).type)) for field in first])


def _wider(first: pa.DataType, second: pa.DataType) -> pa.DataType:
    types = pa.types
    if first == second or types.is_null(second):
        return first
    if types.is_null(first):
        return second
    numbers = [types.is_integer(kind) or types.is_floating(kind) for kind in (first, second)]
    if all(numbers):
        return pa.float64()
    if types.is_timestamp(first) and types.is_timestamp(second) and first.tz == second.tz:
        return pa.timestamp("us", tz=first.tz)
    return pa.string()


def cast_table(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The columns of ``schema``, in its order and its types."""
    columns = [_cast(table.column(field.name), field.type) for field in schema]
    return pa.Table.from_arrays(columns, schema=schema)


def _cast(column: pa.ChunkedArray, target: pa.DataType) -> pa.ChunkedArray:
    types, kind = pa.types, column.type
    if kind == target:
        return column
    if types.is_dictionary(kind):
        return _cast(column.cast(kind.value_type), target)
    if types.is_duration(kind):
        seconds = pc.multiply(column.cast(pa.int64()).cast(pa.float64()), _SECONDS[kind.unit])
        return _cast(seconds, target)
    if types.is_string(target) and not _has_text(kind):
        return pa.chunked_array([[_text(value) for value in column.to_pylist()]], type=target)
    return column.cast(target, safe=False)


def _has_text(kind: pa.DataType) -> bool:
    """Whether Arrow can write values of this type as text itself."""
    types = pa.types
    return bool(
        types.is_string(kind)
        or types.is_large_string(kind)
        or types.is_string_view(kind)
        or types.is_integer(kind)
        or types.is_floating(kind)
        or types.is_boolean(kind)
        or types.is_timestamp(kind)
        or types.is_decimal(kind)
        or types.is_null(kind)
    )


def _text(value: Any) -> str | None:
    if value is None:
        return None
    return value.decode("utf-8", errors="replace") if isinstance(value, bytes) else str(value)


def rebatch(tables: Iterable[pa.Table], size: int) -> Iterator[pa.Table]:
    """Cut and join tables to ``size`` rows each; the last may be shorter.

    >>> [table.num_rows for table in rebatch([pa.table({"x": range(5)}), pa.table({"x": range(4)})], 3)]
    [3, 3, 3]
    """
    held: list[pa.Table] = []
    rows = 0
    for table in tables:
        held.append(table)
        rows += table.num_rows
        while rows >= size:
            joined = join_tables(held)
            yield joined.slice(0, size)
            rows -= size
            held = [joined.slice(size)] if rows else []
    if rows:
        yield join_tables(held)


def join_tables(tables: Sequence[pa.Table]) -> pa.Table:
    """One table of all, in types that hold the values of each."""
    target = reduce(unify, (table.schema for table in tables))
    return pa.concat_tables([cast_table(table, target) for table in tables])


def to_frame(table: pa.Table, index: pd.Index, numeric: frozenset[str] = frozenset()) -> pd.DataFrame:
    """A pandas frame; integers and booleans with gaps keep their type, and text in ``numeric`` is parsed.

    >>> frame = to_frame(pa.table({"x": ["1", "2"], "y": [7, None]}), pd.RangeIndex(2), frozenset(["x"]))
    >>> frame.dtypes.astype(str).to_dict()
    {'x': 'float64', 'y': 'Int64'}
    """
    columns: dict[str, pa.ChunkedArray] = {}
    nullable: dict[str, Any] = {}
    for name in table.column_names:
        column = table.column(name)
        if pa.types.is_null(column.type):
            column = column.cast(pa.float64())
        elif pa.types.is_string(column.type) and name in numeric:
            column = _numbers(column)
        dtype = _NULLABLE.get(str(column.type))
        if dtype is not None and column.null_count:
            nullable[name] = dtype.__from_arrow__(column)
        else:
            columns[name] = column
    frame = pa.table(columns).to_pandas(ignore_metadata=True) if columns else pd.DataFrame(index=index)
    frame.index = index
    if not nullable:
        return frame
    parts = {name: nullable[name] if name in nullable else frame[name] for name in table.column_names}
    return pd.DataFrame(parts, index=index, copy=False)


def _numbers(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Text as float64 if every value is a number or a word for missing; else the text as it was."""
    try:
        return column.cast(pa.float64())
    except pa.ArrowInvalid:
        trimmed = pc.utf8_trim_whitespace(column)
    words = pc.is_in(pc.utf8_lower(trimmed), value_set=pa.array(MISSING))
    try:
        return pc.if_else(words, pa.scalar(None, pa.string()), trimmed).cast(pa.float64())
    except pa.ArrowInvalid:
        return column
