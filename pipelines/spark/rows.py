"""Arrow batches as Spark hands them to Python → frames as every other source yields them, and back.

Arrow, not pandas, is what tasks are given: Spark's own way to pandas makes floats of whole numbers with gaps, which
then are other keys, and other values beyond 2⁵³.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import pyarrow as pa

from pipelines.config.formats import FormatSection
from pipelines.sources.arrow import cast_table, plain_schema, to_frame
from pipelines.sources.formats import with_formats

POSITION = "position"


@dataclass(frozen=True)
class SourceColumns:
    """How the columns of a source come to a task: under names that Spark cannot take for anything else.

    - ``names``: What they are called.
    - ``numeric``: Those that will be taken as numbers.
    - ``formats``: Forms in which some are written.
    """

    names: tuple[str, ...]
    numeric: frozenset[str] = frozenset()
    formats: Mapping[str, FormatSection] = field(default_factory=dict)

    @property
    def columns(self) -> list[str]:
        """Their names in Spark, in the same order."""
        return [f"x{number}" for number in range(len(self.names))]

    def frame(self, table: pa.Table) -> pd.DataFrame:
        """The rows of a table, indexed by their position in the source."""
        data = table.select(self.columns).rename_columns(list(self.names))
        data = with_formats(cast_table(data, plain_schema(data.schema)), self.formats)
        return to_frame(data, pd.Index(table.column(POSITION).to_numpy()), self.numeric)


def in_order(table: pa.Table) -> pa.Table:
    """The rows in the order of the source: among equals it decides, and files reach a task in any order."""
    position = table.column(POSITION).to_numpy()
    if len(position) < 2 or bool((np.diff(position) > 0).all()):
        return table
    return table.take(pa.array(np.argsort(position)))


def as_table(frame: pd.DataFrame, schema: pa.Schema) -> pa.Table:
    """Columns of a frame in the types that Spark was promised.

    >>> as_table(pd.DataFrame({"x": [1, 2]}), pa.schema([("x", pa.float64())])).to_pylist()
    [{'x': 1.0}, {'x': 2.0}]
    """
    arrays = [pa.array(frame[field.name], from_pandas=True) for field in schema]
    return pa.Table.from_arrays(
        [array.cast(field.type) for array, field in zip(arrays, schema, strict=True)], schema=schema
    )
