"""Events in the body of a request as Arrow's stream format, and scores as one.

Whoever sends a stream says how long everything in it is. So nothing is unpacked whose size is not known beforehand:
no compressed stream, and no column that names a long text many times over; buffers are checked before they are read.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.api.limits import check_number
from pipelines.api.problems import ProblemError
from pipelines.sources.arrow import cast_table, plain_schema, to_frame

FIRST, LAST = -62_135_596_800_000_000, 253_402_300_799_999_999
"""The years 1 to 9999 in microseconds since 1970."""
DICTIONARIES, ROWS = 2, 3
"""The kinds of messages that hold buffers."""
VIEW = 16
"""Bytes of a view."""
EXPECTED = "expected numbers, text, true and false, or times"


def frame_of(body: bytes, columns: Container[str], *, most: int, most_columns: int) -> tuple[pd.DataFrame, list[str]]:
    """The rows of a stream, labelled 0, 1, …, with those of its columns that are wanted; and the names of all.

    Raises ``ProblemError`` if the body is no such stream, is too large, or has a column that cannot be read.
    """
    try:
        for message in pa.ipc.MessageReader.open_stream(pa.BufferReader(body)):
            if is_compressed(message.metadata.to_pybytes()):
                raise _refused({"body": "expected an Arrow stream without compression of its own"})
        with pa.ipc.open_stream(body) as stream:
            names = list(stream.schema.names)
            _check_names(names, most=most_columns)
            wanted = [name for name in names if name in columns]
            batches, rows = [], 0
            for batch in stream:
                check_number(rows := rows + batch.num_rows, most=most)
                batches.append(batch.select(wanted))
                batches[-1].validate(full=True)
            schema = pa.schema([stream.schema.field(name) for name in wanted])
    except (pa.ArrowException, OSError, ValueError, IndexError, struct.error) as error:
        detail = " ".join(str(error).split())[:200]
        raise _refused({"body": f"not a whole Arrow stream: {detail}"}) from None
    if not rows:
        raise _refused({"events": "expected at least one row"})
    table = pa.Table.from_batches(batches, schema)
    if wrong := {f"events.{name}": why for name in wanted if (why := _fault(table.column(name), len(body)))}:
        raise _refused(wrong)
    table = pa.table({name: _in_utc(table.column(name), name) for name in wanted})
    return to_frame(cast_table(table, plain_schema(table.schema)), pd.RangeIndex(rows)), names


def _check_names(names: Sequence[str], *, most: int) -> None:
    if len(names) > most:
        raise _refused({"events": f"expected at most {most:,} columns, received {len(names):,}"})
    if len(set(names)) < len(names):
        twice = next(name for name, times in Counter(names).items() if times > 1)
        raise _refused({f"events.{twice}": "there are two columns of this name"})


def is_compressed(metadata: bytes) -> bool:
    """Whether the buffers of a message are packed, by the flatbuffer in front of them (Arrow's ``Message.fbs``).

    Raises ``struct.error`` or ``IndexError`` if it is none.
    """

    def field(table: int, number: int) -> int:
        """Where a field of a table is; 0 if it is not there."""
        about = table - struct.unpack_from("<i", metadata, table)[0]
        (size,) = struct.unpack_from("<H", metadata, about)
        at = 4 + 2 * number
        offset = struct.unpack_from("<H", metadata, about + at)[0] if at < size else 0
        return table + offset if offset else 0

    def follow(place: int) -> int:
        return place + int(struct.unpack_from("<I", metadata, place)[0])

    message = follow(0)
    kind = metadata[at] if (at := field(message, 1)) else 0
    if kind not in (DICTIONARIES, ROWS) or not (at := field(message, 2)):
        return False
    batch = follow(at)
    if kind == DICTIONARIES:
        batch = follow(field(batch, 1))
    return bool(field(batch, 3))


def _fault(column: pa.ChunkedArray, most: int) -> str:
    """Why a column cannot be read; empty if it can."""
    types, kind = pa.types, column.type
    packed = types.is_dictionary(kind)
    of = kind.value_type if packed else kind
    is_text = types.is_string(of) or types.is_large_string(of) or types.is_string_view(of)
    plain = types.is_null(of) or types.is_boolean(of) or types.is_integer(of) or types.is_floating(of)
    if not (is_text or plain or types.is_decimal(of) or types.is_timestamp(of) or types.is_date(of)):
        return f"{EXPECTED}, received {kind}"
    if is_text and (packed or types.is_string_view(of)):
        long = sum(_unpacked(chunk) for chunk in column.chunks)
        if long > most:
            return f"its texts have {long:,} bytes when they are unpacked, more than the whole request"
    return ""


def _unpacked(chunk: pa.Array) -> int:
    """How many bytes the texts of views or of a dictionary have in all."""
    if pa.types.is_dictionary(chunk.type):
        return pc.sum(_lengths(chunk.dictionary).take(chunk.indices)).as_py() or 0
    return pc.sum(_lengths(chunk)).as_py() or 0


def _lengths(texts: pa.Array) -> pa.Array:
    if not pa.types.is_string_view(texts.type):
        return pc.binary_length(texts)
    views = np.frombuffer(texts.buffers()[1], dtype=np.int32)[:: VIEW // 4]  # each begins with the length of its text
    return pa.array(views[texts.offset : texts.offset + len(texts)].astype(np.int64))


def _in_utc(column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    """Times without a zone, in UTC, to the microsecond where they are coarser; all else as it is."""
    types, kind = pa.types, column.type
    if types.is_dictionary(kind) and types.is_temporal(kind.value_type):
        column = column.cast(kind.value_type)
        kind = column.type
    if not types.is_temporal(kind):
        return column
    if types.is_timestamp(kind) and kind.tz is not None:
        column = column.cast(pa.int64()).cast(pa.timestamp(kind.unit))  # a time with a zone is kept in UTC
    if column.type == pa.timestamp("ns"):
        return column
    try:
        moments = column.cast(pa.timestamp("us"))
    except pa.ArrowInvalid as error:
        raise _refused({f"events.{name}": str(error)}) from None
    first, last = pc.min_max(moments.cast(pa.int64())).as_py().values()
    if first is not None and (first < FIRST or last > LAST):
        raise _refused({f"events.{name}": "expected times of the years 1 to 9999"})
    return moments


def _refused(fields: Mapping[str, str]) -> ProblemError:
    return ProblemError(422, "The Arrow stream cannot be used.", fields=fields)


REASON = pa.struct(
    [("feature", pa.string()), ("observed", pa.string()), ("expected", pa.string()), ("share", pa.float64())]
)
SCORES = pa.schema(
    [
        ("place", pa.int64()),
        ("key", pa.string()),
        ("risk", pa.float64()),
        ("p_value", pa.float64()),
        ("flagged", pa.bool_()),
        ("severity", pa.string()),
        ("decided_by", pa.string()),
        ("rules", pa.list_(pa.string())),
        ("hidden_by", pa.list_(pa.string())),
        ("reasons", pa.list_(REASON)),
        ("field", pa.string()),
        ("detail", pa.string()),
    ]
)
"""One row an event, in their order; ``field`` and ``detail`` say why one is refused, which has no score."""


def stream_of(answer: Mapping[str, Any]) -> bytes:
    """The answer to a request as a stream; what is said of all events is in the metadata of its schema."""
    rows: Sequence[Mapping[str, Any]] = sorted((*answer["scores"], *answer["refused"]), key=lambda row: row["place"])
    columns = {name: [row.get(name) for row in rows] for name in SCORES.names}
    columns["key"] = [None if key is None else str(key) for key in columns["key"]]
    about = {name: "" if answer[name] is None else str(answer[name]) for name in ("model_version", "held", "note")}
    table = pa.table(columns, schema=SCORES.with_metadata(about))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return bytes(sink.getvalue().to_pybytes())
