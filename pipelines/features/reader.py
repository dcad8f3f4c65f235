"""Raw rows → what features need of them, typed, and with what is known of each by labels, reports and verdicts."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from detector.atomic import whole_file
from detector.cleaning import plain
from detector.cleaning.reader import ColumnReader
from detector.cleaning.values import read_names
from detector.errors import BundleError, DetectorError, SettingError
from detector.features import FeatureSet
from detector.features.feature import OF_NUMBER, OF_PLACE
from pipelines.config import Config
from pipelines.labels.feedback import Statements
from pipelines.labels.known import label_changes, may_be_labelled

log = logging.getLogger("detector.features")


class FeatureReader:
    """Reads of raw rows the columns that features need, and adds when the label of each became known.

    - ``config``: Names the columns, and whose word counts.
    - ``features``: What is to be measured.

    Raises ``SettingError`` if a feature is made of labels, and nothing can tell them.
    """

    def __init__(self, config: Config, features: FeatureSet) -> None:
        self.config = config
        self.features = features
        self._statements: Statements | None = None
        self._warned = False
        if self.features.knows and not may_be_labelled(config):
            name = next(feature.name for feature in self.features.all if feature.needs_label)
            raise SettingError(
                f"{name} is made of labels, but no label column is named, and no report or answer to an alert can name "
                f"a row. Name `columns.label`, or `columns.key` and `train.head.reports`."
            )

    @property
    def needs(self) -> tuple[str, ...]:
        """The columns to read."""
        features = self.features
        return (*(name for name in features.needs if name not in features.knows), *self.optional)

    @property
    def optional(self) -> tuple[str, ...]:
        """The columns among them that tell what is known of a row, which it may come without."""
        known = (self.config.columns.label, self.config.features.reported) if self.features.knows else ()
        return tuple(name for name in known if name is not None)

    @property
    def told_by(self) -> str | None:
        """Which sources say what is known of rows, to compare; None if no feature is made of that."""
        if not self.features.knows:
            return None
        head, reports = self.config.train.head, self.config.train.head.reports
        sources: dict[str, Any] = {
            "label": self.config.columns.label,
            "reported": self.config.features.reported,
            "verdicts": head.verdicts,
        }
        if reports is not None:  # they are the same where the folder or the database has moved
            path = reports.source.path and Path(reports.source.path).name
            sources["reports"] = [
                path,
                reports.source.table,
                reports.source.query,
                reports.key,
                reports.at,
                reports.label,
            ]
        return json.dumps(sources)

    @property
    def statements(self) -> Statements:
        """What reports and answers say, as read the first time or by ``refresh_statements``."""
        if self._statements is None:
            self._statements = Statements.read(self.config)
        return self._statements

    @statements.setter
    def statements(self, said: Statements) -> None:
        self._statements = said

    def read(self, frame: pd.DataFrame, reader: ColumnReader | None = None) -> pd.DataFrame:
        """The columns that features need, read as ``clean`` reads them; what cannot be read is missing.

        - ``reader``: of the frame, where somebody else asks for its columns as well.
        """
        features, label = self.features, self.config.columns.label
        reader = ColumnReader(frame) if reader is None else reader
        typed = {}
        for name in self.needs:
            if name not in frame.columns:
                if name in self.optional:
                    continue
                raise features.lacking(name, frame)
            if name in (features.time, self.config.features.reported):
                typed[name] = reader.dates(name)[0]
            elif name == label:
                typed[name] = reader.booleans(name)[0]
            elif name in self._numbers:
                values, unread = reader.numbers(name)
                typed[name] = values.mask(unread) if unread.any() else values
            else:
                typed[name] = reader.names(name)
        return pd.DataFrame(typed, index=frame.index, copy=False)

    def joined(self, some: pd.DataFrame, others: pd.DataFrame) -> pd.DataFrame:
        """Rows that were read, and others after them; a name is the same, as text, where some have it as a number."""
        every = pd.concat([some, others])
        dates = (self.features.time, self.config.features.reported)
        for name in set(some) & set(others) - {*dates, self.config.columns.label, *self._numbers}:
            if some[name].dtype != others[name].dtype:
                every[name] = read_names(every[name])
        return every

    def read_one(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The same of one row of plain values, without what is known of it: nothing of that counts in its own past.

        Raises ``NotPlainError`` if it takes ``read`` to read it.
        """
        typed: dict[str, Any] = {}
        for name in self.features.needs:
            if name in self.features.knows:
                continue
            if name not in row:
                raise plain.NotPlainError
            if name == self.features.time:
                typed[name] = np.datetime64(plain.moment(row[name], needed=True), "us")
            elif name in self._numbers:
                typed[name] = plain.number(row[name])
            else:
                typed[name] = plain.name(row[name], needed=name == self.features.key)
        return typed

    @cached_property
    def _numbers(self) -> frozenset[str]:
        """The columns that are numbers."""
        of = (each.of for each in self.features.all if each.measure in OF_NUMBER + OF_PLACE)
        return frozenset(name for names in of for name in names)

    def with_label_changes(self, typed: pd.DataFrame) -> pd.DataFrame:
        """The rows with the times at which each was known as fraud, no longer, and again, for features of labels."""
        features = self.features
        if not features.knows:
            return typed
        changes = label_changes(
            typed,
            self.statements,
            time=features.time,
            key=features.key,
            label=self.config.columns.label,
            reported=self.config.features.reported,
        )
        return pd.concat([typed, changes], axis="columns")

    def refresh_statements(self) -> bool:
        """Ask anew what was said of rows; whether that went well. Where it did not, what was known before stands."""
        if not self.features.knows:
            return True
        try:
            self._statements = Statements.read(self.config)
        except DetectorError as error:
            if not self._warned:
                log.warning("what was said of rows cannot be read, what was known before stands: %s", error)
            self._warned = True
            self._statements = self._statements or Statements.none()
            return False
        self._warned = False
        return True

    def write_learnt(self, rows: pd.DataFrame, path: Path) -> None:
        """Write down, of rows whose labels may still change, what a past knows them by and their own labels."""
        known = [name for name in dict.fromkeys((*self._known_by, *self.optional)) if name in rows]
        with whole_file(path) as file:
            rows[known].to_parquet(file)

    def read_learnt(self, path: Path) -> pd.DataFrame | None:
        """The rows that ``write_learnt`` wrote, with what is known of them by now; None if there are none.

        Raises ``BundleError`` if the file is broken.
        """
        if not self.features.knows or not path.is_file():
            return None
        try:
            rows = pd.read_parquet(path)
        except (OSError, ValueError) as error:
            raise BundleError(f"{path} is broken ({type(error).__name__}). Train again.") from error
        return self.with_label_changes(rows) if set(self._known_by) <= set(rows) else None  # else of other features

    @property
    def _known_by(self) -> list[str]:
        """The columns by which a past knows a row."""
        by = (name for each in self.features.all if each.needs_label for name in self.features.grouped_by(each))
        return list(dict.fromkeys([self.features.time, str(self.features.key), *by]))


def same_sources(one: str | None, other: str | None) -> bool:
    """Whether labels, reports and answers count alike in two settings, as ``told_by`` writes them.

    What the file of reports is called is of no account: a renamed file says the same.
    """
    if one is None or other is None:
        return one == other
    return _without_name(json.loads(one)) == _without_name(json.loads(other))


def _without_name(settings: dict[str, Any]) -> dict[str, Any]:
    return settings | {"reports": settings["reports"][1:]} if settings.get("reports") else settings
