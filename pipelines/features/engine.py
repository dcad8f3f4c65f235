"""Features in the jobs: raw rows → the same rows with feature columns, and the past that is kept beside a detector."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from detector.arrays import Flags, Floats
from detector.cleaning.values import naive_utc
from detector.errors import DataError, SettingError
from detector.features import FeatureSet, History
from detector.features.duration import MICROSECONDS, short
from detector.features.join import with_columns
from detector.schema import Schema
from pipelines.config import Config
from pipelines.features import stored_history
from pipelines.features.featured_rows import FeaturedRows
from pipelines.features.reader import FeatureReader, same_sources
from pipelines.labels.feedback import Statements

Rows = TypeVar("Rows", pd.DataFrame, pd.Series)

PAST, ROWS = "history", "rows.parquet"
MOSTLY = 0.5
"""Above this share of rows that are too old for the past, they are measured among themselves. Smaller, and a file of
new rows with some late ones forgets its past."""


def feature_engine_of(config: Config, *, trained: bool) -> FeatureEngine | None:
    """What adds the configured features, with the past that training left if there was one; None without features.

    Raises
    ------
    SettingError
        If the rows are readings of sensors.
    BundleError, DataError
        See ``FeatureEngine.load``.
    """
    if not config.features.wanted:
        return None
    if config.kind != "table":
        raise SettingError("`features` are measured of tables, and `kind` is sensors. Leave them out.")
    return FeatureEngine.load(config, history_folder(config)) if trained else FeatureEngine(config)


def statements_of(config: Config, engine: FeatureEngine | None) -> Statements | None:
    """What reports and answers say, read once for features and head; None where neither asks."""
    if engine is not None and engine.features.knows:
        return engine.reader.statements
    return Statements.read(config) if config.kind == "table" and config.train.head.enabled else None


def history_folder(config: Config) -> Path:
    """Where the past of the entities is kept: beside the bundle, for every detector of this configuration."""
    return config.bundle.with_name(f"{config.bundle.name}.features")


def report_known(history: History, rows: pd.DataFrame | None) -> bool:
    """Report to a history what is known of rows, as ``FeatureEngine.typed`` returns them; whether anything is.

    All rows of a moment must be among them: a history cannot tell them apart.
    """
    if rows is None or history.features.turns is None:
        return False
    time = rows[history.features.time]
    known = rows[history.features.turns[0]].notna()
    history.report(rows[time.isin(time[known])])
    return bool(known.any())


def old_note(old: int, rows: int) -> str:
    """What to say of rows that are measured among themselves, because most are too old for the past; else nothing.

    >>> old_note(1, 2), old_note(3, 4)[:46]
    ('', '75 % of the rows are older than the past that ')
    """
    if not rows or old / rows <= MOSTLY:
        return ""
    return (
        f"{100 * old / rows:.0f} % of the rows are older than the past that training left. Features were measured "
        f"among these rows alone, as in training, so the first rows have little past."
    )


class Faults(Protocol):
    """Says why each row cannot have features."""

    def __call__(self, rows: pd.DataFrame, *, now: pd.Timestamp | None, ahead: str) -> pd.Series:
        """Empty text where it can."""
        ...


class FeatureEngine:
    """Adds the configured features to raw rows, before they are cleaned and scored.

    - ``config``: With ``features`` and ``columns``; ``train.head`` says whose word counts.

    Raises ``SettingError`` if the features cannot be measured with these columns.
    """

    def __init__(self, config: Config) -> None:
        self.section = config.features
        self.features: FeatureSet = config.features.feature_set(config.columns)
        self.names = frozenset(self.features.names)
        self.reader = FeatureReader(config, self.features)
        self.history = self.empty()
        self.most_bytes = 1e6 * self.section.most_megabytes
        self.whole_from: pd.Timestamp | None = None
        self._learnt: pd.DataFrame | None = None

    @classmethod
    def load(cls, config: Config, folder: Path) -> FeatureEngine:
        """With the past that ``recall`` finds in a folder, or its error."""
        found = cls(config)
        found.history = found.recall(folder)
        return found

    @classmethod
    def of_past(cls, config: Config, history: History) -> FeatureEngine:
        """With a past that is at hand, and without anyone to ask what was said of rows."""
        found = cls(config)
        found.history, found.reader.statements = history, Statements.none()
        return found

    def recall(self, folder: Path) -> History:
        """The past that ``save`` left in a folder, with what was said since of the rows it was learnt from.

        Raises ``BundleError`` if there is none, or it is broken; ``DataError`` if it was kept for other features, or
        with labels of other sources, than are configured now.
        """
        history = stored_history.recall(folder / PAST)
        if not self.continues(history):
            raise DataError(
                f"The past in {folder} was kept for other features than the configuration asks for, or with other "
                f"labels, reports or verdicts. Train again."
            )
        report_known(history, self.reader.read_learnt(folder / ROWS))
        return history

    def continues(self, history: History) -> bool:
        """Whether a past is of the configured features, and was reported to by the configured sources."""
        return history.features == self.features and same_sources(history.told_by, self.reader.told_by)

    def save(self, folder: Path) -> Path:
        """Keep the past in a folder, and beside it the rows of which something may still be said."""
        folder.mkdir(parents=True, exist_ok=True)
        self.history.forget()
        if self._learnt is not None:
            self.reader.write_learnt(self._learnt, folder / ROWS)
        else:
            (folder / ROWS).unlink(missing_ok=True)  # of an earlier training, with keys as they are
        return stored_history.keep(self.history, folder / PAST, most=self.most_bytes)

    def learn(self, frame: pd.DataFrame, *, now: pd.Timestamp | None = None) -> FeaturedRows:
        """Add the features of a whole table, and start the past anew with it.

        ``whole_from`` then says from when on rows have a past as long as the features look back to.

        - ``frame``: All rows there are, not a sample: a past with holes is another past.
        - ``now``: Rows later than this, and the configured seconds, are quarantined.
        """
        featured = self.compute(frame, now=now)
        self.history = stored_history.learnt_from(self.empty(), featured.taken, most=self.most_bytes)
        if featured.taken.empty:
            return featured
        time = featured.taken[self.features.time]
        self.whole_from = time.min() + self.reach
        if self.features.knows and self.features.key is not None:
            oldest = time.max() - self.reach - pd.Timedelta(microseconds=self.history.lateness)
            self._learnt = featured.taken[time > oldest]
        return featured

    def compute(
        self, frame: pd.DataFrame, *, now: pd.Timestamp | None = None, before: pd.DataFrame | None = None
    ) -> FeaturedRows:
        """Add the features of a whole table, and leave the past as it is.

        - ``now``: Rows later than this, and the configured seconds, are quarantined.
        - ``before``: Other rows, as ``typed`` returns them, that are in the past of these.
        """
        typed, unusable = self._usable(self.reader.read(frame), self.features.faults, now)
        taken = _where(typed, ~self.repeated(typed))
        every = taken if before is None else pd.concat([before, taken], ignore_index=True)
        measured = self.features.measure(every)[:, len(every) - len(taken) :]
        return self._featured(frame, taken, measured, unusable)

    def push(
        self,
        frame: pd.DataFrame,
        *,
        now: pd.Timestamp | None = None,
        known: Callable[[pd.Series], NDArray[np.bool_]] | None = None,
        typed: pd.DataFrame | None = None,
    ) -> FeaturedRows:
        """Add the features of new rows, which then belong to the past; rows that come too late are quarantined.

        - ``now``: Rows later than this, and the configured seconds, are quarantined.
        - ``known``: Which keys belong to the past already. Such rows, and those whose key came before among these, have
          no features: they are not rows of their own.
        - ``typed``: The rows as the reader returns them, where they were read before.
        """
        typed = self.reader.read(frame) if typed is None else typed
        typed, unusable = self._usable(typed, self.history.faults, now)
        again = self.repeated(typed)
        if known is not None and self.features.key is not None:
            again = again | known(typed[self.features.key])
        taken = _where(typed, ~again)
        return self._featured(frame, taken, self.history.measure(taken, moves=True), unusable)

    def peek(
        self,
        frame: pd.DataFrame,
        *,
        history: History | None = None,
        now: pd.Timestamp | None = None,
        typed: pd.DataFrame | None = None,
        beside: pd.DataFrame | None = None,
    ) -> FeaturedRows:
        """Add the features of new rows, as ``push`` does, and leave the past as it is.

        - ``history``: Another past than the engine's.
        - ``beside``: Other new rows, as the reader returns them, under labels that are none of ``frame``.
        """
        history = self.history if history is None else history
        typed = self.reader.read(frame) if typed is None else typed
        every = typed if beside is None else self.reader.joined(beside, typed)
        usable, unusable = self._usable(every, history.faults, now)
        taken = _where(usable, ~self.repeated(usable))
        measured = history.measure(taken, moves=False)
        if beside is not None:
            own = taken.index.isin(typed.index)
            taken, measured = taken[own], measured[:, own]
            unusable = unusable[unusable.index.isin(typed.index)]
        return self._featured(frame, taken, measured, unusable)

    def latest(self, now: datetime) -> np.datetime64:
        """The latest time that a row may have."""
        moment = np.datetime64(now if now.tzinfo is None else now.astimezone(UTC).replace(tzinfo=None), "us")
        return moment + np.timedelta64(int(self.section.ahead * MICROSECONDS["s"]), "us")

    @property
    def reach(self) -> pd.Timedelta:
        """How far back the features look."""
        return pd.Timedelta(microseconds=self.features.reach)

    @property
    def lateness(self) -> pd.Timedelta:
        """How late a row may come and still find its place."""
        return pd.Timedelta(microseconds=self.history.lateness)

    def typed(self, frame: pd.DataFrame) -> pd.DataFrame:
        """The columns that features need of the rows that can have features, whenever they come."""
        return self._usable(self.reader.read(frame), self.features.faults, None)[0]

    def measure(self, frame: pd.DataFrame, *, now: pd.Timestamp | None = None) -> tuple[FeaturedRows, str]:
        """Add the features of a file of rows, and say how if it is not as of new rows; see ``push``.

        If most rows are older than the end of the past, such as those it was learnt from, all are measured among
        themselves, as in training.
        """
        old = self.is_old(self.typed(frame))
        note = old_note(int(old.sum()), len(old))
        return (self.compute if note else self.push)(frame, now=now), note

    def is_old(self, typed: pd.DataFrame) -> NDArray[np.bool_]:
        """Which rows, as ``typed`` returns them, are too old for the past."""
        if self.history.latest is None:
            return np.zeros(len(typed), dtype=bool)
        open_from = pd.Timestamp(self.history.latest - self.history.lateness, unit="us")
        return np.asarray(typed[self.features.time] < open_from, dtype=bool)

    def repeated(self, typed: pd.DataFrame) -> NDArray[np.bool_]:
        """Which rows have no key of their own, so that they do not belong to the past."""
        if self.features.key is None:
            return np.zeros(len(typed), dtype=bool)
        key = typed[self.features.key]
        again: NDArray[np.bool_] = key.isna().to_numpy(dtype=bool)
        return again if key.is_unique else again | key.duplicated().to_numpy(dtype=bool)

    def raw_schema(self, schema: Schema) -> Schema:
        """What the columns of rows mean that do not have their features yet, with all that features need.

        Raises ``DataError`` if a detector with this schema has learnt from other features.
        """
        names = set(self.features.names)
        if missing := names - set(schema.numeric):
            raise DataError(
                f"The detector has learnt without the feature {min(missing)!r} that is configured. Train it again: "
                f"detector train CONFIG."
            )
        raw = schema.without(self.features.names)
        known = {*raw.features, *raw.roles.values(), *self.reader.optional}
        return Schema(
            **{
                **raw.to_dict(),
                "categorical": (*raw.categorical, *(name for name in self.reader.needs if name not in known)),
            }
        )

    def schema(self, schema: Schema) -> Schema:
        """The meaning of the columns with the features among them; what only says when is no feature."""
        beside = [name for name in (self.section.reported,) if name in schema.features]
        schema = schema.without(beside)
        return Schema(**{**schema.to_dict(), "numeric": (*schema.numeric, *self.features.names)})

    def empty(self) -> History:
        """A past in which nothing has happened yet."""
        lateness = self.section.lateness
        late = short(lateness * MICROSECONDS["s"]) if lateness else None
        return History(self.features, lateness=late, told_by=self.reader.told_by)

    def faults(self, typed: pd.DataFrame, faults: Faults, now: pd.Timestamp | None) -> pd.Series:
        """Why each row, as the reader returns it, cannot have features by some rules; empty text where it can."""
        ahead = short(self.section.ahead * MICROSECONDS["s"])
        return faults(typed, now=None if now is None else naive_utc(now), ahead=ahead)

    def _usable(self, typed: pd.DataFrame, faults: Faults, now: pd.Timestamp | None) -> tuple[pd.DataFrame, pd.Series]:
        """The rows that can have features, of rows as the reader returns them, and why the others cannot."""
        typed = _where(typed, typed[self.features.time].notna().to_numpy())
        reasons = self.faults(typed, faults, now)
        bad = (reasons != "").to_numpy()
        return self.reader.with_label_changes(_where(typed, ~bad)), _where(reasons, bad)

    def _featured(
        self, frame: pd.DataFrame, taken: pd.DataFrame, measured: Floats, unusable: pd.Series
    ) -> FeaturedRows:
        """Rows as they came with their features; ``measured``, (n_features, n_taken): those of the rows taken."""
        bad = frame.iloc[:0]
        if len(unusable):
            bad, frame = frame.loc[unusable.index], frame.loc[~frame.index.isin(unusable.index)]
        if len(taken) < len(frame):
            every = np.full((len(measured), len(frame)), np.nan)
            every[:, frame.index.get_indexer(taken.index)] = measured
            measured = every
        rows = with_columns(frame, self.features.names, measured)
        return FeaturedRows(rows, taken, bad, unusable.tolist())


def _where(rows: Rows, wanted: Flags) -> Rows:
    """Some of the rows; all, which is mostly so, as they are."""
    return rows if wanted.all() else rows[wanted]
