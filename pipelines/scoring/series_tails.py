"""The last rows of each series as bytes: in the service's state, written in the transaction that moves the cursor."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from sqlalchemy.orm import Session

from detector.detectors.series.stream import Tail
from detector.schema import Schema
from pipelines.store import SeriesTail, Store, upsert

WAITING = "(waiting)"


def load_memory(store: Store, source: str) -> bytes:
    """What was kept of a source's series; empty at the beginning."""
    with store.read() as session:
        found = session.get(SeriesTail, source)
        return b"" if found is None else found.rows


def keep_memory(session: Session, source: str, memory: bytes, *, batch: int) -> None:
    """Write what the next batch needs, in the transaction of this one."""
    upsert(session, SeriesTail, [{"source": source, "batch": batch, "rows": memory}])


def encode(tail: Tail, schema: Schema) -> bytes:
    """As a compressed Arrow file; keys and entities, whose types differ, as JSON."""
    frame = tail.rows.reset_index(drop=True)
    for name in _names(schema, frame):
        codes, names = pd.factorize(frame[name], use_na_sentinel=False)
        frame[name] = pd.Series(pd.Index([_to_json(value) for value in names], dtype="str").take(codes))
    frame[WAITING] = tail.waiting
    table = pa.Table.from_pandas(frame, preserve_index=False)
    into = pa.BufferOutputStream()
    with pa.ipc.new_file(into, table.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_table(table)
    return bytes(into.getvalue())


def decode(content: bytes, schema: Schema, *, like: pd.DataFrame) -> Tail:
    """The inverse of ``encode``; empty if there is nothing, or its time or entity is another column now.

    - ``schema``: Of the detector that serves. Another one than before may have other sensors.
    - ``like``: Rows with the columns that are wanted.
    """
    if not content:
        return Tail.empty(like)
    frame = pa.ipc.open_file(pa.BufferReader(content)).read_all().to_pandas()
    if any(name is not None and name not in frame for name in (schema.time, schema.entity, schema.key)):
        return Tail.empty(like)
    for name in _names(schema, frame):
        codes, texts = pd.factorize(frame[name])
        frame[name] = pd.Series(pd.Index([json.loads(text) for text in texts]).take(codes), index=frame.index)
    waiting = frame[WAITING].to_numpy(dtype=bool)
    rows = frame.reindex(columns=like.columns)
    missing = [name for name in schema.numeric + schema.boolean if name in rows and name not in frame]
    return Tail(rows.astype(dict.fromkeys(missing, np.float64)), waiting)


def _names(schema: Schema, frame: pd.DataFrame) -> list[str]:
    return [name for name in (schema.key, schema.entity) if name is not None and name in frame]


def _to_json(value: Any) -> str:
    return json.dumps(value.item() if isinstance(value, np.generic) else value, default=str)
