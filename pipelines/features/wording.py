"""How a configuration words reasons and columns."""

from __future__ import annotations

from detector.features import ColumnWords, Wording
from pipelines.config import Config


def wording_of(config: Config) -> Wording:
    """Features in the words of an entity's history, columns by their names in `columns.names`."""
    names = {column: ColumnWords(said.name, said.unit) for column, said in config.columns.names.items()}
    if config.kind != "table" or not config.features.wanted:
        return Wording(names=names)
    features = config.features.feature_set(config.columns)
    return Wording(tuple(features.all), tuple(features.calendar), features.time, names)
