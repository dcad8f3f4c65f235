"""Feedback: what reports and answers to alerts say of rows, and when each was said."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Self

import numpy as np
import pandas as pd

from detector.cleaning.values import naive_utc, read_dates, read_names
from detector.errors import SchemaError, nearest
from detector.metrics.ranking import read_labels
from pipelines.config import Config
from pipelines.config.masking import Masks, masks_of
from pipelines.sources import NoRowsError, open_source

TRUTH_OF = {"fraud": 1.0, "fine": 0.0, "unsure": np.nan}
MOMENT = "datetime64[us]"


@dataclass(frozen=True)
class Statements:
    """All that was ever said of rows by reports and by answers to alerts.

    - ``reports``, ``verdicts``: A line a statement and row, in the order they were made: ``key`` as text (of verdicts
      as alerts show it), ``label`` (1 fraud, 0 not, missing unsure) and ``known_at``, without time zone, in UTC.
    - ``key``: The column that names rows.
    - ``masks``: How alerts show it.
    """

    reports: pd.DataFrame
    verdicts: pd.DataFrame
    key: str | None = None
    masks: Masks = field(default_factory=Masks)

    @classmethod
    def none(cls) -> Self:
        """Nothing was ever said."""
        return cls(no_statements(), no_statements())

    @classmethod
    def read(cls, config: Config) -> Self:
        """What is there at this moment and may be learnt from; nothing where rows have no key.

        Raises ``SourceError`` if the reports cannot be read; ``SchemaError`` if they lack a column.
        """
        return cls._of(config, reports=True, verdicts=config.train.head.verdicts)

    @classmethod
    def all(cls, config: Config) -> Self:
        """The same, whether or not anything is to learn from answers to alerts."""
        return cls._of(config, reports=True, verdicts=True)

    @classmethod
    def answers(cls, config: Config) -> Self:
        """Only what people answered to alerts, whether or not anything is to learn from it."""
        return cls._of(config, reports=False, verdicts=True)

    @classmethod
    def _of(cls, config: Config, *, reports: bool, verdicts: bool) -> Self:
        if config.columns.key is None:
            return cls.none()
        return cls(
            _reports(config) if reports else no_statements(),
            _verdicts(config) if verdicts else no_statements(),
            config.columns.key,
            masks_of(config),
        )

    def __bool__(self) -> bool:
        """Whether anything was said."""
        return not (self.reports.empty and self.verdicts.empty)

    def about(self, keys: pd.Series) -> dict[str, pd.DataFrame]:
        """The statements about rows of these keys, by their kind: ``row`` (a position), ``label`` and ``known_at``.

        A verdict tells of a row only by a key that alerts show as it is or hashed: cut to its last signs or hidden it
        may be that of any row, and is of no account.

        >>> reports = pd.DataFrame({"key": ["7", "9"], "label": 1.0, "known_at": pd.Timestamp("2026-01-02")})
        >>> Statements(reports, reports.iloc[:0], "id").about(pd.Series([5, 7]))["reports"]["row"].tolist()
        [1]
        """
        if not self:
            return {"reports": no_statements("row"), "verdicts": no_statements("row")}
        names = read_names(keys).astype("str")
        shown = names
        if self.key is not None and self.masks.is_masked(self.key):
            masks, key = self.masks, self.key
            usable = masks.tells_apart(key) and len(self.verdicts)
            shown = names.map(lambda name: masks.show(key, name), na_action="ignore") if usable else names.iloc[:0]
        return {"reports": _joined(self.reports, names), "verdicts": _joined(self.verdicts, shown)}

    def may_be_about(self, key: str) -> bool:
        """Whether something was said of the row of a key, or nobody can tell without masking it.

        >>> reports = pd.DataFrame({"key": ["7", "9"], "label": 1.0, "known_at": pd.Timestamp("2026-01-02")})
        >>> said = Statements(reports, reports.iloc[:0], "id")
        >>> said.may_be_about("7"), said.may_be_about("8")
        (True, False)
        """
        is_masked = self.key is not None and self.masks.is_masked(self.key)
        return key in self._keys or (is_masked and not self.verdicts.empty)

    @cached_property
    def _keys(self) -> frozenset[str]:
        return frozenset(self.reports["key"]) | frozenset(self.verdicts["key"])

    def unmatched(self, keys: pd.Series) -> list[str]:
        """Keys that were reported and that none of the rows has, each once.

        >>> reports = pd.DataFrame({"key": ["7", "9"], "label": 1.0, "known_at": pd.Timestamp("2026-01-02")})
        >>> Statements(reports, reports.iloc[:0], "id").unmatched(pd.Series([5, 7]))
        ['9']
        """
        names = set(read_names(keys).dropna().astype("str"))
        return [key for key in dict.fromkeys(self.reports["key"]) if key not in names]


def _verdicts(config: Config) -> pd.DataFrame:
    """What people answered to alerts, as statements; nothing if there is no state of a service yet."""
    if not config.service.may_have_state:
        return no_statements()
    from pipelines.labels.answers import answered  # half a second, and most files are scored where no service runs

    found = [(key, TRUTH_OF[verdict], naive_utc(at)) for verdict, at, keys in answered(config) for key in keys]
    return pd.DataFrame(found, columns=["key", "label", "known_at"]) if found else no_statements()


def _reports(config: Config) -> pd.DataFrame:
    """Reports as statements; without a column that says what was found, each says that it was fraud."""
    section = config.train.head.reports
    if section is None:
        return no_statements()
    source = open_source(section.source)
    try:
        frame = source.read()
    except NoRowsError:  # nobody has reported anything yet
        frame = pd.DataFrame(columns=source.columns())
    key = section.key or str(config.columns.key)
    for name in (key, section.at, *(() if section.label is None else (section.label,))):
        if name not in frame.columns:
            raise SchemaError(
                f"The reports of `train.head.reports` have no column {name!r}. {nearest(name, map(str, frame.columns))}"
            )
    if frame.empty:
        return no_statements()
    label = np.ones(len(frame)) if section.label is None else read_labels(frame[section.label])
    names = read_names(frame[key]).astype("str").astype("object")
    return pd.DataFrame({"key": names, "label": label, "known_at": read_dates(frame[section.at])[0]}).dropna()


def _joined(statements: pd.DataFrame, names: pd.Series) -> pd.DataFrame:
    """Statements with the positions of the rows of their keys."""
    keys = names.astype("object")  # Arrow's text takes seconds to look up among much text
    statements = statements[statements["key"].isin(keys.dropna())]
    wanted = keys.isin(statements["key"]).to_numpy()
    places = pd.DataFrame({"row": np.flatnonzero(wanted), "key": keys[wanted].to_numpy()})
    found = statements.merge(places, on="key") if len(places) else no_statements()
    return found.reindex(columns=["row", "label", "known_at"]).astype({"row": "int64", "known_at": MOMENT})


def no_statements(name: str = "key") -> pd.DataFrame:
    """A frame of statements with none in it, about keys or, by another name, about positions of rows."""
    kind = "object" if name == "key" else "int64"
    return pd.DataFrame(
        {name: pd.Series(dtype=kind), "label": pd.Series(dtype="float64"), "known_at": pd.Series(dtype=MOMENT)}
    )
