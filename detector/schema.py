"""What a table's columns mean: key, time, entity, label, and the features by kind."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

import numpy as np
import pandas as pd

from detector.arrays import Flags, Integers
from detector.errors import SchemaError, nearest

ROLES = ("key", "time", "entity", "label")
KINDS = ("numeric", "categorical", "boolean", "datetime")
MISSING_WORDS = ("", "na", "n/a", "<na>", "nan", "nat", "null", "none")
MISSING = (*MISSING_WORDS, ".", "..", "-", "--", "?")
"""What stands where no number, date or truth is known: words, and signs as statistics packages write them."""
MOST = 0.5
LOOKED_AT = 200
MANY_PADDED = 0.01
PHONE = r"\+[0-9]{7,15}"
DATE = r"[0-9]{4}-[0-9]{2}-[0-9]{2}(?![0-9])"


@dataclass(frozen=True)
class Schema:
    """The meaning of a table's columns.

    Parameters
    ----------
    key, time, entity, label : str or None
        The column that names a row, says when it happened, says to whom it belongs, and holds the known
        truth (1 anomalous, 0 normal, missing unknown). None of them is a feature, except that ``time``
        may also stand in ``datetime``.
    numeric, categorical, boolean, datetime : tuple of str
        The feature columns, by kind.

    Raises
    ------
    SchemaError
        If a column has two meanings, or if a kind is given as one text in place of a list.

    >>> Schema(key="id", numeric=("amount",), categorical=("country",)).features
    ('amount', 'country')
    """

    key: str | None = None
    time: str | None = None
    entity: str | None = None
    label: str | None = None
    numeric: tuple[str, ...] = ()
    categorical: tuple[str, ...] = ()
    boolean: tuple[str, ...] = ()
    datetime: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for kind in KINDS:
            names = getattr(self, kind)
            if isinstance(names, str):
                raise SchemaError(f"{kind} expected a list of columns, got {names!r}. Write [{names!r}].")
            object.__setattr__(self, kind, tuple(names))
        features = list(self.features)
        for name in features:
            if features.count(name) > 1:
                raise SchemaError(f"Column {name!r} is listed as a feature twice. Keep one kind for it.")
        for role, name in self.roles.items():
            other = next(other for other, owner in self.roles.items() if owner == name)
            if other != role:
                raise SchemaError(f"Column {name!r} is the {other} and the {role}. Keep one of the two.")
            if name in features and not (role == "time" and name in self.datetime):
                raise SchemaError(f"Column {name!r} is the {role} and a feature. Keep one of the two.")

    @property
    def features(self) -> tuple[str, ...]:
        """The feature columns, numeric first."""
        return self.numeric + self.boolean + self.datetime + self.categorical

    @property
    def roles(self) -> dict[str, str]:
        """The columns that are not features, by role."""
        return {role: name for role in ROLES if (name := getattr(self, role)) is not None}

    def kind_of(self, column: str) -> str:
        """The kind of a feature column."""
        for kind in KINDS:
            if column in getattr(self, kind):
                return kind
        raise SchemaError(f"Column {column!r} is not a feature. {nearest(column, self.features)}")

    def check(self, columns: Iterable[Any], *, labelled: bool = False) -> None:
        """Raise if a column this schema needs is not among ``columns``.

        Parameters
        ----------
        columns : iterable
            The names the table has.
        labelled : bool
            Whether the label column is needed too.

        Raises
        ------
        SchemaError
            Naming the column that is there twice, or the missing column and the nearest one there is.
        """
        present = _names_once(columns)
        needed = [name for role, name in self.roles.items() if role != "label" or labelled]
        wanted = (*needed, *self.features)
        for name in wanted:
            if name not in present:
                spare = [other for other in present if other not in wanted]
                raise SchemaError(f"Column {name!r} is missing from the table. {nearest(name, present, spare=spare)}")

    @classmethod
    def infer(
        cls,
        frame: pd.DataFrame,
        *,
        key: str | None = None,
        time: str | None = None,
        entity: str | None = None,
        label: str | None = None,
        ignore: Iterable[str] = (),
    ) -> Self:
        """Guess the kind of every column that has no role and is not ignored.

        Text that parses as numbers is numeric; other text and pandas categories are categorical; true and
        false are boolean; dates are datetime.

        Parameters
        ----------
        frame : DataFrame
            A sample of the table; a few thousand rows are enough.
        key, time, entity, label : str or None
            The columns that have a role.
        ignore : iterable of str
            Columns to leave out.

        Raises
        ------
        SchemaError
            If a named column is not in the frame, or if two columns have one name.

        >>> frame = pd.DataFrame({"id": [1, 2], "amount": ["3.5", "4"], "shop": ["a", "b"]})
        >>> Schema.infer(frame, key="id")
        Schema(key='id', time=None, entity=None, label=None, numeric=('amount',), categorical=('shop',), \
boolean=(), datetime=())
        """
        roles = (key, time, entity, label)
        columns = _names_once(frame.columns)
        for name in (*ignore, *(role for role in roles if role is not None)):
            if name not in columns:
                raise SchemaError(f"Column {name!r} is missing from the table. {nearest(name, columns)}")
        taken = {*ignore, *roles}
        kinds: dict[str, list[str]] = {kind: [] for kind in KINDS}
        for position, name in enumerate(columns):
            if name not in taken:
                kinds[guess_kind(frame.iloc[:, position])[0]].append(name)
        features: dict[str, Any] = {kind: tuple(names) for kind, names in kinds.items()}
        return cls(key=key, time=time, entity=entity, label=label, **features)

    def without(self, columns: Iterable[str]) -> Self:
        """The same schema with some feature columns left out."""
        gone = set(columns)
        left: dict[str, Any] = {kind: tuple(c for c in getattr(self, kind) if c not in gone) for kind in KINDS}
        return replace(self, **left)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of ``to_dict``.

        Raises
        ------
        SchemaError
            If a key is neither a role nor a kind.
        """
        for name in values:
            if name not in (*ROLES, *KINDS):
                raise SchemaError(f"A schema has no {name!r}. {nearest(name, (*ROLES, *KINDS))}")
        return cls(**values)


def refuse_no_columns(table: Any) -> None:
    """Raise ``SchemaError`` if a frame has no column; what is no frame is passed over.

    >>> refuse_no_columns(pd.DataFrame(index=range(3)))
    Traceback (most recent call last):
    detector.errors.SchemaError: Expected a frame with columns, received one of 3 rows without any. Give one with
    columns.
    """
    if isinstance(table, pd.DataFrame) and not len(table.columns):
        raise SchemaError(
            f"Expected a frame with columns, received one of {len(table)} rows without any. Give one with columns."
        )


def _names_once(columns: Iterable[Any]) -> list[str]:
    names = [str(column) for column in columns]
    if len(set(names)) < len(names):
        name = next(name for position, name in enumerate(names) if name in names[:position])
        raise SchemaError(f"The table has two columns named {name!r}. Rename or drop one of them.")
    return names


def are_codes(values: pd.Series) -> bool:
    """Whether text is of digits with zeros before them, as accounts and postcodes are written and numbers are not.

    Or with a plus before many of them, as phone numbers are.

    >>> are_codes(pd.Series(["00140", "20095"])), are_codes(pd.Series(["0", "140"])), are_codes(pd.Series([140]))
    (True, False, False)
    >>> are_codes(pd.Series(["+4369911122", "+1202555013"])), are_codes(pd.Series(["+12", "-7.5"]))
    (True, False)
    """
    if not pd.api.types.is_string_dtype(values):
        return False
    return _are_codes(*_different(values))


def _are_codes(values: pd.Series, times: Integers) -> bool:
    if not values.str.match(r"0[0-9]|\+").any():
        return False
    if _share(values.str.fullmatch(PHONE), times) > MOST:
        return True
    digits = values.str.fullmatch("[0-9]+").to_numpy(dtype=bool)
    return _share(digits, times) > MOST and _share(values[digits].str.match("0[0-9]"), times[digits]) > MANY_PADDED


def guess_kind(column: pd.Series) -> tuple[str, str]:
    """The kind of a column nobody named, and why it is taken for that.

    >>> guess_kind(pd.Series(["5411", "n/a", "5812"]))
    ('numeric', 'all values are numbers')
    >>> guess_kind(pd.Series(["5411-A", "5812-B"]))
    ('categorical', 'text that is neither numbers nor dates')
    >>> guess_kind(pd.Series(["0042", "1700"]))
    ('categorical', 'codes, as numbers have no leading zeros')
    """
    types = pd.api.types
    typed = f"its type is {column.dtype}"
    if types.is_bool_dtype(column):
        return "boolean", typed
    if types.is_numeric_dtype(column):
        return "numeric", typed
    if types.is_datetime64_any_dtype(column):
        return "datetime", typed
    if isinstance(column.dtype, pd.CategoricalDtype):
        return "categorical", typed
    values, times = _different(column)
    is_known = ~values.str.lower().isin(MISSING).to_numpy(dtype=bool)
    values, times = values[is_known], times[is_known]
    if values.empty:
        return "numeric", "it is always missing"
    if set(values.str.lower().unique()[:3]) <= {"true", "false"}:
        return "boolean", "all values are true or false"
    if _are_codes(values, times):
        is_phone = _share(values.str.startswith("+"), times) > MOST
        return "categorical", f"codes, as numbers have no leading {'plus' if is_phone else 'zeros'}"
    numbers = _share(pd.to_numeric(values, errors="coerce").notna(), times)
    if numbers > MOST:
        return "numeric", f"{_in_words(numbers)} are numbers"
    places = np.repeat(np.arange(len(values)), times)
    some = values.iloc[places[:: max(1, len(places) // LOOKED_AT)]]
    dated = some[some.str.match(DATE)]  # a year alone is no date: "5411" is a kind of shop
    dates = int(pd.to_datetime(dated, errors="coerce", format="ISO8601", utc=True).notna().sum()) / len(some)
    if dates > MOST:
        return "datetime", f"{_in_words(dates)} are dates"
    return "categorical", "text that is neither numbers nor dates"


def _different(column: pd.Series) -> tuple[pd.Series, Integers]:
    """The different values of a column, without spaces around them, and how often each is there."""
    counts = column.dropna().astype(str).value_counts(sort=False)
    return counts.index.to_series(index=range(len(counts))).astype("str").str.strip(), counts.to_numpy(dtype=np.int64)


def _share(flags: pd.Series | Flags, times: Integers) -> float:
    """The share of rows whose value is such; 0 of none."""
    return float(times[np.asarray(flags, dtype=bool)].sum() / times.sum()) if len(times) else 0.0


def _in_words(share: float) -> str:
    return "all values" if share == 1 else f"{100 * share:.0f} % of the values"
