"""Types, duplicates, impossible values: what leaves a table, and why.

How a single value is read is in ``detector.cleaning.values``. A missing feature, label or entity stays missing; a
row without its key or its time goes to quarantine.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from detector.arrays import Flags, Places
from detector.cleaning.quarantine import quarantine
from detector.cleaning.reader import ColumnReader
from detector.cleaning.text import are_longer, hold
from detector.errors import DataError
from detector.schema import Schema

SHOWN = 40
MOST_NAME = 10_000


@dataclass(frozen=True)
class Cleaned:
    """A table in two parts: rows that can be scored, and rows that cannot.

    - ``rows``: the role columns and the features, typed; the index is the row's position in the table.
    - ``unusable``: the other rows, as they came.
    - ``why``: the reason of each of these.
    - ``counts``: how many rows each kind of fault sent to quarantine.
    """

    rows: pd.DataFrame
    unusable: pd.DataFrame
    why: Sequence[str] = ()
    counts: Mapping[str, int] = field(default_factory=dict)

    @cached_property
    def quarantine(self) -> pd.DataFrame:
        """The rows that cannot be scored: ``row`` (the position), ``reason``, then the columns as they came."""
        positions = self.unusable.index.to_numpy(dtype=np.int64)
        return quarantine(self.unusable, self.why, positions=positions).reset_index(drop=True)

    def reasons(self) -> dict[str, int]:
        """How often each kind of fault occurred, the most frequent first.

        >>> table = pd.DataFrame({"amount": ["1", "x", "y"]})
        >>> clean(table, Schema(numeric=("amount",))).reasons()
        {'amount: not a number': 2}
        """
        return dict(sorted(self.counts.items(), key=lambda item: -item[1]))

    def usable(self, least: int = 1) -> pd.DataFrame:
        """The rows that can be scored.

        Raises ``DataError`` that says why the others cannot, if there are fewer than ``least``.

        >>> clean(pd.DataFrame({"amount": ["x", None]}), Schema(numeric=("amount",))).usable(2)
        Traceback (most recent call last):
        detector.errors.DataError: Expected at least 2 rows that can be read; received n_samples = 1, and 1 that cannot:
        amount: not a number (1).
        """
        if len(self.rows) < least and self.counts:
            why = "; ".join(f"{reason} ({count:,})" for reason, count in self.reasons().items())
            raise DataError(
                f"Expected at least {least} row{'' if least == 1 else 's'} that can be read; received n_samples = "
                f"{len(self.rows)}, and {len(self.quarantine):,} that cannot: {why}."
            )
        return self.rows


def clean(
    frame: pd.DataFrame,
    schema: Schema,
    *,
    labelled: bool = False,
    drop_duplicates: bool = True,
    positions: pd.Index | None = None,
    reader: ColumnReader | None = None,
) -> Cleaned:
    """Type every column the schema names, and quarantine the rows that cannot be used.

    No row is lost: each is either in ``rows`` or in ``quarantine``, in the order it came.

    Parameters
    ----------
    frame : DataFrame of shape (n_rows, n_columns)
        Columns the schema does not name are left out of ``rows``.
    schema : Schema
        What the columns mean.
    labelled : bool
        Whether the label must be there. If so, a label other than 0, 1 or missing is a fault; if not, it is
        read where it can be.
    drop_duplicates : bool
        Whether a key's second appearance is a fault. Only good rows count as its first.
    positions : Index, optional
        Where each row stands in the table, where the frame is a batch or a sample of it; 0, 1, ... by default.
    reader : ColumnReader, optional
        Of the same frame, indexed by ``positions``, where some of its columns were read before.

    Returns
    -------
    Cleaned
        In ``rows`` numeric and boolean columns are float64 with NaN where missing, dates are
        ``datetime64[us]``, categories are text. Keys and entities keep their type, save that whole floats
        become integers and mixed objects become text.

    Raises
    ------
    DataError
        If ``frame`` is not a pandas DataFrame.
    SchemaError
        If a column is missing or there twice, or if its type can never be read as its kind.

    >>> table = pd.DataFrame({"id": [7, 8, 7], "amount": [" 12.5", "abc", "3"]})
    >>> cleaned = clean(table, Schema(key="id", numeric=("amount",)))
    >>> cleaned.rows
       id  amount
    0   7    12.5
    >>> list(cleaned.quarantine["reason"])
    ["amount: 'abc' is not a number", 'id: key 7 appears again (first at row 0)']
    """
    if not isinstance(frame, pd.DataFrame):
        raise DataError(
            f"clean expected a pandas DataFrame, got {type(frame).__name__}. "
            f"Convert it first, such as with .to_pandas()."
        )
    schema.check(frame.columns, labelled=labelled)
    if not all(isinstance(name, str) for name in frame.columns):
        frame = frame.set_axis([str(name) for name in frame.columns], axis="columns")
    positions = pd.RangeIndex(len(frame)) if positions is None else positions
    if positions is not frame.index:
        frame = frame.set_axis(positions, axis="index")
    faults = _Faults(frame)
    reader = ColumnReader(frame) if reader is None else reader
    rows = pd.DataFrame(_typed(reader, schema, faults, labelled=labelled), index=frame.index, copy=False)
    if schema.key is not None and drop_duplicates:
        _refuse_repeated(rows[schema.key], faults)
    if not faults.bad.any():
        return Cleaned(rows, frame.iloc[:0])
    return Cleaned(rows[~faults.bad], frame[faults.bad], faults.why(), dict(faults.counts))


class _Faults:
    """Which rows are bad, and everything that is wrong with each."""

    def __init__(self, frame: pd.DataFrame) -> None:
        self.frame = frame
        self.bad = np.zeros(len(frame), dtype=bool)
        self.counts: Counter[str] = Counter()
        self._reasons: dict[int, list[str]] = {}

    def add(self, column: str, mask: Flags, kind: str, saying: str) -> None:
        """Note a fault of one kind in all rows of ``mask``; ``{}`` in ``saying`` stands for the value."""
        if mask.any():
            sayings = [saying.replace("{}", shown(value)) for value in self.frame[column][mask]]
            self.note(column, np.flatnonzero(mask), kind, sayings)

    def note(self, column: str, positions: Places, kind: str, sayings: Iterable[str]) -> None:
        """Note a fault of one kind in the rows at ``positions``, each in its own words."""
        self.bad[positions] = True
        self.counts[f"{column}: {kind}"] += len(positions)
        for position, saying in zip(positions.tolist(), sayings, strict=True):
            self._reasons.setdefault(position, []).append(f"{column}: {saying}")

    def why(self) -> list[str]:
        """The reasons of each bad row, in their order."""
        return ["; ".join(self._reasons[position]) for position in np.flatnonzero(self.bad).tolist()]


def _typed(reader: ColumnReader, schema: Schema, faults: _Faults, *, labelled: bool) -> dict[str, pd.Series]:
    typed: dict[str, pd.Series] = {}
    if schema.key is not None:
        typed[schema.key] = reader.names(schema.key)
        absent = typed[schema.key].isna().to_numpy()
        faults.add(schema.key, absent, "missing key", "the key is missing")
        _refuse_unusable(typed[schema.key], faults)
    for name in dict.fromkeys(name for name in (schema.time, *schema.datetime) if name is not None):
        typed[name], unread = reader.dates(name)
        faults.add(name, unread, "not a date", "{} is not a date")
        if name == schema.time:
            absent = typed[name].isna().to_numpy() & ~unread
            faults.add(name, absent, "missing time", "the time is missing")
    if schema.entity is not None:
        typed[schema.entity] = reader.names(schema.entity)
        _refuse_unusable(typed[schema.entity], faults)
    if schema.label is not None and schema.label in reader.frame:
        typed[schema.label], unread = reader.booleans(schema.label)
        if labelled:
            faults.add(schema.label, unread, "not 0 or 1", "{} is neither 0 nor 1")
    for name in schema.numeric:
        typed[name], unread = reader.numbers(name)
        faults.add(name, unread, "not a number", "{} is not a number")
        values = typed[name].to_numpy()
        if not np.isfinite(values).all():
            faults.add(name, np.isinf(values), "infinite", "{} is infinite")
    for name in schema.boolean:
        typed[name], unread = reader.booleans(name)
        faults.add(name, unread, "not true or false", "{} is neither true nor false")
    for name in schema.categorical:
        typed[name] = reader.categories(name)
    return {name: typed[name] for name in (*schema.roles.values(), *schema.features) if name in typed}


def _refuse_unusable(names: pd.Series, faults: _Faults) -> None:
    """Names are written to databases and kept in memory: no NUL, which PostgreSQL refuses, and no megabytes."""
    if names.dtype != "str":
        return
    long = are_longer(names, MOST_NAME)
    faults.add(str(names.name), long, "too long", f"{{}} has more than {MOST_NAME:,} characters")
    faults.add(str(names.name), hold(names, "\0"), "a NUL character", "{} holds a NUL character")


def _refuse_repeated(key: pd.Series, faults: _Faults) -> None:
    good = np.flatnonzero(~faults.bad)
    names = key if len(good) == len(key) else key.iloc[good]
    if names.is_unique:
        return
    repeated = names.duplicated().to_numpy()
    codes = pd.factorize(names)[0]
    first = names.index.to_numpy()[~repeated][codes[repeated]]
    pairs = zip(names[repeated], first, strict=True)
    sayings = [f"key {shown(name, quote=False)} appears again (first at row {row})" for name, row in pairs]
    faults.note(str(key.name), good[repeated], "repeated key", sayings)


def shown(value: Any, *, quote: bool = True) -> str:
    """A value as a reason says it: text in quotes, cut where it is long."""
    text = repr(value) if isinstance(value, str) and quote else str(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
