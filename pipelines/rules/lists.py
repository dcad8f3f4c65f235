"""Lists that rules look a column up in: from the configuration, a file or a table, each value with its end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from detector.cleaning.values import naive_utc, read_dates, read_names
from detector.errors import SchemaError, SettingError, SourceError, nearest
from pipelines.config import Config, ListSection
from pipelines.config.rules import ListEntry
from pipelines.jobs.context import ProcessCache
from pipelines.sources import NoRowsError, open_source

MOST_VALUES = 5_000_000
REREAD_SECONDS = 60.0
"""A table is read anew after so long; a file at once when it has changed."""


@dataclass(frozen=True)
class ValueList:
    """Values, and until when each is valid.

    - ``values``: As text.
    - ``until``: Of each, without time zone, in UTC; missing where it has no end.

    >>> found = ValueList.of({"a": None, "b": datetime(2026, 3, 1)})
    >>> moments = pa.array([datetime(2026, 2, 1), datetime(2026, 4, 1)], pa.timestamp("us"))
    >>> found.holds(pa.array(["b", "b"], pa.large_string()), "text", moments).to_pylist()
    [True, False]
    """

    values: pa.Array
    until: pa.Array

    @classmethod
    def of(cls, entries: Mapping[str, datetime | None]) -> ValueList:
        """A list of values with their ends."""
        values = pa.array(list(entries), pa.large_string())
        return cls(values, pa.array(list(entries.values()), pa.timestamp("us")))

    def __len__(self) -> int:
        return len(self.values)

    @cached_property
    def _numbers(self) -> pa.Array:
        found = pd.to_numeric(pd.Series(self.values.to_pylist(), dtype=object), errors="coerce")
        return pa.array(found.to_numpy(dtype=np.float64), from_pandas=True)

    def holds(self, column: Any, kind: str, moments: Any) -> Any:
        """Which values of a column are in the list, at the moment of each."""
        values = self._numbers if kind == "number" else self.values
        if not self.until.null_count < len(self.until):
            return pc.is_in(column, value_set=values, skip_nulls=True)
        place = pc.index_in(column, value_set=values, skip_nulls=True)
        until = pc.take(self.until, place)
        valid = pc.or_(pc.is_null(until), pc.fill_null(pc.less(moments, until), False))
        return pc.and_(pc.is_valid(place), valid)


def lists_of(config: Config, cache: ProcessCache, names: tuple[str, ...], *, seconds: float) -> dict[str, ValueList]:
    """The lists of these names, read anew where their file has changed; ``seconds`` is a clock.

    Raises ``SettingError``, ``SourceError`` or ``SchemaError`` if one cannot be read.
    """
    found = {}
    for name in names:
        found[name] = cache.of(("list", name), _token(config.lists[name], seconds), partial(read_list, config, name))
    return found


def read_list(config: Config, name: str) -> ValueList:
    """Read a list.

    Raises ``SettingError``, ``SourceError`` or ``SchemaError`` that name the list, if it cannot be read.
    """
    section = config.lists[name]
    try:
        entries = {_written(each): _end(each) for each in section.values}
        if section.is_text:
            entries = _lines(Path(str(section.path))) | entries
        elif section.source is not None:
            entries = _rows(section, name) | entries
    except SourceError as error:
        raise SourceError(f"The list {name!r} cannot be read: {error}") from error
    if len(entries) > MOST_VALUES:
        raise SettingError(f"The list {name!r} holds {len(entries):,} values; it may hold {MOST_VALUES:,}.")
    return ValueList.of(entries)


def _token(section: ListSection, seconds: float) -> object:
    if section.url is not None:
        return section, int(seconds // REREAD_SECONDS)
    if section.path is None:
        return section
    try:
        found = Path(section.path).stat()
    except OSError:
        return section, "gone"
    return section, found.st_mtime_ns, found.st_size


def _written(value: str | int | float | ListEntry) -> str:
    found = value.value if isinstance(value, ListEntry) else value
    if isinstance(found, float) and found.is_integer():
        found = int(found)
    return str(found)


def _end(value: object) -> datetime | None:
    until = value.until if isinstance(value, ListEntry) else None
    if isinstance(until, date) and not isinstance(until, datetime):
        return datetime(until.year, until.month, until.day)  # noqa: DTZ001 - UTC without a zone, as rows have it
    return None if until is None else naive_utc(until).to_pydatetime()


def _lines(path: Path) -> dict[str, datetime | None]:
    """One value a line; a line that begins with # is none."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{path}: {error}. Give a text file in UTF-8 with one value a line.") from None
    lines = (line.strip() for line in text.splitlines())
    return dict.fromkeys((line for line in lines if line and not line.startswith("#")), None)


def _rows(section: ListSection, name: str) -> dict[str, datetime | None]:
    source = open_source(section.source)  # type: ignore[arg-type]  # there is one, or nobody asks
    columns = source.columns()
    for wanted in (section.column, section.until):
        if wanted is not None and wanted not in columns:
            raise SchemaError(f"The list {name!r} has no column {wanted!r}. {nearest(wanted, columns)}")
    column = section.column or columns[0]
    until = section.until or ("until" if "until" in columns and column != "until" else None)
    try:
        frame = source.read(columns=[column, *([until] if until else [])])
    except NoRowsError:
        return {}
    frame = frame[frame[column].notna()]
    values = read_names(frame[column]).astype("str").str.strip().tolist()
    if until is None:
        return dict.fromkeys((value for value in values if value), None)
    ends, unread = read_dates(frame[until])
    if unread.any():
        shown = frame[until][unread].iloc[0]
        raise SettingError(
            f"The list {name!r}: {shown!r} in {until!r} is no time. Write it as 2026-12-31, or leave it empty."
        )
    return {
        value: None if end is pd.NaT else end.to_pydatetime() for value, end in zip(values, ends, strict=True) if value
    }
