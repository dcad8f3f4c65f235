"""A source of raw rows: opened, checked against a detector, read, and given the features that the detector asks for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import pandas as pd

from detector.schema import Schema
from pipelines.config import Config
from pipelines.features.engine import FeatureEngine, feature_engine_of
from pipelines.features.featured_rows import FeaturedRows
from pipelines.ingest.usable import open_usable
from pipelines.progress import progress
from pipelines.sources import Source, open_source


@dataclass(frozen=True)
class RawSource:
    """Rows before their features are measured, and what measures these.

    - ``schema``: What their columns mean: the detector's, without the features.
    - ``engine``: None where no features are configured.
    """

    source: Source
    schema: Schema
    engine: FeatureEngine | None

    @classmethod
    def open(
        cls,
        config: Config,
        schema: Schema,
        *,
        place: str | None,
        trained: bool = True,
        labelled: bool = False,
    ) -> RawSource:
        """The configured source without the files that scoring has quarantined, or another place.

        - ``schema``: The detector's.
        - ``place``: A file, folder or pattern to read instead.
        - ``trained``: Whether features go on from the past that training left.
        - ``labelled``: Whether the label column is needed too.

        Raises ``SourceError`` if the place cannot be read; ``SchemaError`` if a column is missing; for the past, see
        ``feature_engine_of``.
        """
        source = open_usable(config) if place is None else open_source(config.source.at(place))
        engine = feature_engine_of(config, trained=trained)
        raw = without_features(schema, engine)
        raw.check(source.columns(), labelled=labelled)
        return cls(source, raw, engine)

    def columns(self, *, also: Sequence[str] = ()) -> list[str]:
        """See ``read_columns``."""
        return read_columns(self.source.columns(), self.schema, self.engine, also=also)

    def read(self, *, also: Sequence[str] = ()) -> pd.DataFrame:
        """All rows, with the columns that scoring needs, and ``also`` these; a bar shows how far it is."""
        with progress("Reading", total=self.source.estimate()) as advance:
            return self.source.read(columns=self.columns(also=also), numeric=self.schema.numeric, advance=advance)

    def measure(self, frame: pd.DataFrame, *, now: datetime) -> tuple[FeaturedRows, str]:
        """See ``FeatureEngine.measure``; without features, the rows as they are."""
        if self.engine is None:
            return FeaturedRows.of_all(frame), ""
        return self.engine.measure(frame, now=pd.Timestamp(now))


def without_features(schema: Schema, engine: FeatureEngine | None) -> Schema:
    """What the columns of rows mean whose features are not measured yet."""
    return schema if engine is None else schema.without(engine.features.names)


def read_columns(
    columns: Sequence[str], schema: Schema, engine: FeatureEngine | None, *, also: Sequence[str] = ()
) -> list[str]:
    """Of the columns that a source has, those that scoring needs, and ``also`` these.

    - ``schema``: As ``without_features`` returns it.
    """
    needed = {*schema.features, *(name for role, name in schema.roles.items() if role != "label"), *also}
    if engine is not None:
        needed |= set(engine.reader.needs)
    return [name for name in columns if name in needed]
