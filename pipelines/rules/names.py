"""What a rule may name: the columns of a scored row with their kinds, and the lists."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import pandas as pd

from detector.cleaning.values import read_names, read_numbers
from detector.errors import SettingError, nearest
from detector.features.feature import OF_NUMBER, OF_PLACE
from detector.schema import Schema
from pipelines.config import Config

Kind = Literal["number", "text", "flag", "time"]
SCORES: Mapping[str, Kind] = {"risk": "number", "p_value": "number"}
_KINDS: Mapping[str, Kind] = {"numeric": "number", "categorical": "text", "boolean": "flag", "datetime": "time"}
FOR_ALERTS = ("rule_tags",)
"""Columns that stand beside the scores for alerts alone."""
IN_WORDS = {"number": "a number", "text": "text", "flag": "true or false", "time": "a time"}


@dataclass(frozen=True)
class Names:
    """What a rule may name.

    - ``columns``: Each with its kind; ``risk`` and ``p_value`` are among them.
    - ``lists``: By their names.
    - ``extra``: Those that are read for rules and features alone.
    """

    columns: Mapping[str, Kind]
    lists: tuple[str, ...] = ()
    extra: Mapping[str, Kind] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, config: Config, schema: Schema) -> Names:
        """Those of a trained detector: what it learnt from, the key, the time, the entity, and what only rules read.

        Raises ``SettingError`` if a list has the name of a column.

        >>> config = Config.model_validate({"source": {"path": "a.csv"}, "columns": {"for_rules": ["home"]}})
        >>> names = Names.of(config, Schema(key="id", numeric=("amount",)))
        >>> dict(names.columns)
        {'id': 'text', 'amount': 'number', 'home': 'text', 'risk': 'number', 'p_value': 'number'}
        """
        columns: dict[str, Kind] = {}
        for role, name in schema.roles.items():
            if role != "label":
                columns[name] = "time" if role == "time" else "text"
        for name in schema.features:
            columns[name] = _KINDS[schema.kind_of(name)]
        extra = {name: kind for name, kind in _extra(config).items() if name not in (*columns, schema.label)}
        columns |= extra | dict(SCORES)
        for name in config.lists:
            if name in columns:
                raise SettingError(f"The list {name!r} of `lists` has the name of a column. Give it another one.")
        return cls(columns, tuple(config.lists), extra)

    def kind_of(self, name: str) -> Kind:
        """The kind of a column.

        Raises ``SettingError`` that names the nearest one, if there is none.
        """
        if name in self.columns:
            return self.columns[name]
        if name in self.lists:
            raise SettingError(f"{name!r} is a list. Write, for example: card in {name}")
        raise SettingError(
            f"There is no column {name!r} for rules. {nearest(name, self.columns)} "
            f"Text goes into single quotes; a column that nothing is learnt from into `columns.for_rules`."
        )


def _extra(config: Config) -> dict[str, Kind]:
    """What features are made of, and what is read for rules alone."""
    features = config.features
    found: dict[str, Kind] = dict.fromkeys(config.columns.for_rules, "text")
    if features.history:
        measured = features.feature_set(config.columns)
        numbers = {name for each in measured.all if each.measure in OF_NUMBER + OF_PLACE for name in each.of}
        known = (*measured.knows, config.columns.label, features.reported)
        found = {name: "number" if name in numbers else "text" for name in measured.needs if name not in known} | found
    return found


def typed(frame: pd.DataFrame, extra: Mapping[str, Kind]) -> dict[str, pd.Series]:
    """The extra columns that a frame of raw rows has, each as its kind; what cannot be read as one is missing."""
    found = {}
    for name, kind in extra.items():
        if name not in frame.columns:
            continue
        if kind == "number":
            values, unread = read_numbers(frame[name])
            found[name] = values.mask(unread)
        else:
            found[name] = read_names(frame[name]).astype("str")
    return found
