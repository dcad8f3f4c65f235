"""Keys that come more than once, found before rows are measured: of their rows the first that is good is scored."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from pipelines.spark.measuring import key_texts
from pipelines.spark.rows import POSITION, SourceColumns

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


@dataclass(frozen=True)
class Keys:
    """Reads the keys of rows in executors, with forms and blanks as cleaning takes them."""

    raw: SourceColumns

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """``key`` of rows that have one."""
        for batch in batches:
            frame = self.raw.frame(pa.Table.from_batches([batch]))
            keys = pa.array(key_texts(frame.iloc[:, 0]), pa.string(), from_pandas=True)
            yield pa.RecordBatch.from_arrays([keys.drop_null()], ["key"])


def repeated_keys(rows: DataFrame, raw: SourceColumns, key: str | None) -> frozenset[str]:
    """The keys that more than one row has, as text; they are few, or something is wrong with the source.

    - ``rows``: ``position`` and the columns of ``raw``.
    """
    if key is None:
        return frozenset()
    alias = raw.columns[raw.names.index(key)]
    only = SourceColumns((key,), formats=raw.formats)
    keys = rows.select(POSITION, rows[alias].alias("x0")).mapInArrow(Keys(only), "key string")
    found = keys.groupBy("key").count().where("count > 1").select("key").toArrow()
    return frozenset(found.column("key").to_pylist())
