"""All features of a table as one definition, and the batch path: rows → rows with feature columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any, Self

import numpy as np
import pandas as pd

from detector.arrays import Floats, Integers, Times
from detector.errors import SchemaError, SettingError, nearest
from detector.features import integers
from detector.features.calendar import check_calendar
from detector.features.duration import microseconds
from detector.features.events import NEVER, by_entity
from detector.features.feature import Feature, parse
from detector.features.join import FeatureColumns, GroupedEvents, with_columns
from detector.features.measures import TURNS, column_keys
from detector.features.money import Money

Groups = dict[tuple[str, ...], list[Feature]]


@dataclass(frozen=True)
class FeatureSet:
    """Point-in-time features of a table's rows.

    Parameters
    ----------
    features : tuple of Feature, or lines
        What is measured; text is read by ``Feature.parse``.
    time : str
        The column that says when.
    key : str, optional
        The column that orders rows of one moment; without it they keep the order they came in.
    calendar : tuple of str
        Some of ``CALENDAR``.
    money : Money
        The rules of the amount column.
    label : str, optional
        1 where a row is known to be fraud.
    reported : str, optional
        When that became known; without it, when it happened. The delay of each feature comes on top.
    turns : tuple of three str, optional
        In place of these two, for a truth that may change: columns that say since when a row was known to be fraud,
        when that was taken back, and when it was said again; each missing where it was not.
    decimals : int
        Numbers count in so many decimals: whole cents by default. That makes sums exact.
    most_events : int
        A window holds at most so many events of one entity, those just before the row: counts go no higher.

    Raises
    ------
    SettingError
        If a setting has no meaning.

    >>> features = FeatureSet(("ratio of amount by card over 30d",), time="time")
    >>> rows = pd.DataFrame({"time": pd.to_datetime(["2024-01-01", "2024-01-02"]), "card": "c", "amount": [10.0, 30.0]})
    >>> features.compute(rows)["amount_ratio_30d_by_card"].tolist()
    [nan, 3.0]
    """

    features: tuple[Feature, ...] | tuple[str, ...]
    time: str
    key: str | None = None
    calendar: tuple[str, ...] = ()
    money: Money = field(default_factory=Money)
    label: str | None = None
    reported: str | None = None
    turns: tuple[str, str, str] | None = None
    decimals: int = 2
    most_events: int = 2_000

    def __post_init__(self) -> None:
        lines = [feature for feature in self.features if isinstance(feature, str)]
        given = [feature for feature in self.features if isinstance(feature, Feature)]
        object.__setattr__(self, "features", tuple(dict.fromkeys([*given, *parse(lines)])))
        object.__setattr__(self, "calendar", tuple(self.calendar))
        check_calendar(self.calendar)
        if not 0 <= self.decimals <= 6:
            raise SettingError(f"decimals must lie between 0 and 6. Received: decimals={self.decimals}.")
        if not 1 <= self.most_events <= 100_000:
            raise SettingError(f"most_events must lie in 1 to 100,000. Received: most_events={self.most_events}.")
        if self.turns is not None:
            object.__setattr__(self, "turns", tuple(self.turns))
            if len(self.turns) != len(TURNS) or self.label is not None or self.reported is not None:
                raise SettingError(
                    f"turns expected {len(TURNS)} columns in place of label and reported. Received: "
                    f"turns={self.turns}, label={self.label!r}, reported={self.reported!r}. Give one or the other."
                )
        elif self.label is None and (needing := next((f for f in self.all if f.needs_label), None)):
            raise SettingError(f"{needing.name} is made of labels, but no label column is named. Name it.")

    @cached_property
    def all(self) -> tuple[Feature, ...]:
        """The features, read."""
        return tuple(feature for feature in self.features if isinstance(feature, Feature))

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The columns that ``compute`` adds."""
        return tuple(feature.name for feature in self.all) + self.calendar

    @cached_property
    def reach(self) -> int:
        """How far back they look, in microseconds."""
        return max((feature.reach for feature in self.all), default=0)

    @property
    def scale(self) -> int:
        """Units to one."""
        return int(10**self.decimals)

    @cached_property
    def needs(self) -> tuple[str, ...]:
        """The columns that rows must have."""
        roles = [self.time, *([self.key] if self.key else [])]
        columns = [name for feature in self.all for name in (*self.grouped_by(feature), *feature.of)]
        columns += self.knows
        if self.money.currency is not None and self.money.column in columns:
            columns.append(self.money.currency)
        return tuple(dict.fromkeys(roles + columns))

    @cached_property
    def knows(self) -> tuple[str, ...]:
        """The columns among them that tell what is known of a row; none if no feature is made of it."""
        if not any(feature.needs_label for feature in self.all):
            return ()
        return self.turns or tuple(name for name in (self.label, self.reported) if name is not None)

    def grouped_by(self, feature: Feature) -> tuple[str, ...]:
        """The columns whose values an event must share with the row; the currency too if amounts are kept apart."""
        return feature.by + (self.money.apart_by if feature.of == (self.money.column,) else ())

    @cached_property
    def groups(self) -> Groups:
        """The features of each way to group rows."""
        found: Groups = {}
        for feature in self.all:
            found.setdefault(self.grouped_by(feature), []).append(feature)
        return found

    def compute(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Add the features to each row, as they were at its time.

        Parameters
        ----------
        rows : DataFrame
            As ``clean`` returns them, or at least with dates as dates and numbers as numbers; in any order.

        Returns
        -------
        DataFrame
            The same rows in the same order with a float64 column for each feature.

        Raises
        ------
        SchemaError
            If a column is missing, or there already.
        DataError
            If a time is missing, or an amount is against the rules of ``money``.
        """
        return with_columns(rows, self.names, self.measure(rows))

    def measure(self, rows: pd.DataFrame) -> Floats:
        """The features of rows by themselves, shape (n_features, n_rows). Raises as ``compute`` does."""
        self.check(rows)
        read = self.read(rows, lasting=any(feature.measure == "code" for feature in self.all))
        columns = self.columns_for(read.time)
        for by, features in self.groups.items():
            entity = integers.groups(rows, by)
            order, counts = by_entity(entity, read.order)
            columns.add(features, GroupedEvents(order, counts, read.time, read.columns))
        return columns.values

    def columns_for(self, time: Times) -> FeatureColumns:
        """Room for the features of rows of these times."""
        return FeatureColumns(self.names, time, most_events=self.most_events, scale=self.scale, clock=self.calendar)

    def check(self, rows: pd.DataFrame) -> None:
        """Raise if a column is missing, or one of the features is there already."""
        for name in self.needs:
            if name not in rows.columns:
                raise self.lacking(name, rows)
        for name in self.names:
            if name in rows.columns:
                raise SchemaError(f"The table has a column {name!r} already, and so is a feature named. Rename one.")

    def lacking(self, column: str, rows: pd.DataFrame) -> SchemaError:
        """The error that rows lack a column."""
        users = (feature.name for feature in self.all if column in (*self.grouped_by(feature), *feature.of))
        user = next((f"The feature {name!r}" for name in users), "A feature")
        return SchemaError(f"{user} needs the column {column!r}. {nearest(column, map(str, rows.columns))}")

    def read(self, rows: pd.DataFrame, *, lasting: bool = False) -> integers.Table:
        """The rows as whole numbers; with ``lasting``, names have the same codes in every frame."""
        time = integers.times(rows[self.time])
        order = integers.ordered(time, rows[self.key] if self.key else None)
        columns = {key: self._column(rows, key, lasting) for key in self._keys() if key not in TURNS}
        if self.knows:
            columns |= dict(zip(TURNS, self.turns_of(rows, time), strict=True))
        return integers.Table(time, order, columns)

    def turns_of(self, rows: pd.DataFrame, time: Times) -> list[Integers]:
        """When rows of these times were known to be fraud, no longer, and again, as far as they say so themselves."""
        if self.turns is not None:
            return integers.turn_times(time, (rows[name] for name in self.turns))
        reported = rows[self.reported] if self.reported else None
        never = np.full(len(time), NEVER)
        return [integers.known_times(time, rows[str(self.label)], reported), never, never]

    def faults(self, rows: pd.DataFrame, *, now: pd.Timestamp | None = None, ahead: str = "5m") -> pd.Series:
        """Why each row cannot have features: so that it can be quarantined before; empty text where it can.

        Parameters
        ----------
        rows : DataFrame
            Rows with a time.
        now : Timestamp, optional
            A row later than this, and ``ahead``, comes from a clock that runs wrong.
        ahead : str
            How far clocks may run ahead.
        """
        reasons = np.full(len(rows), "", dtype=object)
        if self.money.column in self.needs:
            reasons = self.money.faults(rows)
            if self.money.currency is None or self.money.mixed != "convert":
                amount = rows[self.money.column].to_numpy(dtype=np.float64, na_value=0.0)
                most = f"at most {integers.MOST_UNITS / self.scale:,.0f} with {self.decimals} `features.decimals`"
                reasons[np.abs(amount) * self.scale >= integers.MOST_UNITS] = (
                    f"{self.money.column}: too large to count, {most}"
                )
        if now is not None:
            latest = now + pd.Timedelta(microseconds=microseconds(ahead))
            late = rows[self.time].to_numpy() > latest.to_datetime64()
            reasons[late] = f"{self.time}: lies in the future by more than {ahead}"
        return pd.Series(reasons, index=rows.index, dtype=object, name="reason")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        values = {
            **{each.name: getattr(self, each.name) for each in fields(self)},
            "features": [feature.to_dict() for feature in self.all],
        }
        return values | {
            "calendar": list(self.calendar),
            "money": {**vars(self.money), "rates": dict(self.money.rates)},
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The inverse of ``to_dict``."""
        features = tuple(Feature.from_dict(feature) for feature in values["features"])
        return cls(**{**values, "features": features, "money": Money(**values["money"])})

    def _keys(self) -> Sequence[str]:
        return tuple(dict.fromkeys(key for feature in self.all for key in column_keys(feature)))

    def _column(self, rows: pd.DataFrame, key: str, lasting: bool) -> Integers:
        kind, name = key.split(":", 1)
        if kind == "name":
            return (integers.lasting_codes if lasting else integers.codes)(rows[name])
        if kind == "number" and name == self.money.column:
            return integers.units(self.money.read(rows), name, self.scale)
        values = rows[name].to_numpy(dtype=np.float64, na_value=np.nan)
        return integers.places(values) if kind == "place" else integers.units(values, name, self.scale)
