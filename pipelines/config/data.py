"""The parts of the configuration about data: where it comes from, what it means, where results go."""

from __future__ import annotations

import codecs
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import ConfigDict, Field, field_validator, model_validator

from pipelines.config.values import Location, Section, Url

if TYPE_CHECKING:
    import pandas as pd

    from detector.schema import Schema


class SourceSection(Section):
    """Where the rows come from: files, or a database."""

    path: Location | None = None
    """A CSV or Parquet file, a folder of either, or a pattern such as data/2024-*.parquet."""

    url: Url | None = None
    """A database instead of files: any SQLAlchemy URL, such as postgresql://user:${PASSWORD}@host/name."""

    table: str | None = None
    """The table to read from that database."""

    query: str | None = None
    """A SELECT to read instead of a whole table."""

    separator: Annotated[str, Field(min_length=1, max_length=1)] | None = None
    """What separates the fields of a CSV file. Found by itself when left out."""

    encoding: str = "utf-8"
    """How the characters of a CSV file are written: utf-8, latin-1, cp1252, utf-16."""

    decimal: Literal[".", ","] = "."
    """What separates whole numbers from fractions in a CSV file."""

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, value: str) -> str:
        try:
            codecs.lookup(value)
        except LookupError:
            raise ValueError(f"expected an encoding such as utf-8, latin-1 or cp1252, received {value!r}.") from None
        return value

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.path is None) == (self.url is None):
            raise ValueError("expected either `path` (files) or `url` (a database). Give one of the two.")
        if self.url is None and (self.table or self.query):
            raise ValueError("`table` and `query` belong to a database. Give its `url` instead of `path`.")
        if self.url is not None and (self.table is None) == (self.query is None):
            raise ValueError("a database needs either `table` or `query`. Give one of the two.")
        return self

    def at(self, path: str) -> SourceSection:
        """The same settings for another file, folder or pattern, relative to the current folder."""
        return self.model_copy(update={"path": path, "url": None, "table": None, "query": None})


class ColumnsSection(Section):
    """What the columns mean. Columns that are named nowhere are looked at, and their kind is guessed."""

    model_config: ClassVar[ConfigDict] = ConfigDict(coerce_numbers_to_str=True)

    key: str | None = None
    """The column that names a row, such as a transaction number."""

    time: str | None = None
    """The column that says when it happened."""

    entity: str | None = None
    """The column that says to whom or what it belongs: an account, a card, a machine."""

    label: str | None = None
    """The known truth where there is one: 1 anomalous, 0 normal, empty unknown."""

    numeric: tuple[str, ...] = ()
    """Columns to be taken as numbers."""

    categorical: tuple[str, ...] = ()
    """Columns to be taken as categories, even if they look like numbers (a postcode, a shop number)."""

    boolean: tuple[str, ...] = ()
    """Columns that are true or false."""

    datetime: tuple[str, ...] = ()
    """Columns that are dates or times, to be used as features (hour, weekday)."""

    ignore: tuple[str, ...] = ()
    """Columns to leave out."""

    others: Literal["infer", "ignore"] = "infer"
    """Columns that are named nowhere: guess their kind (infer), or leave them out (ignore)."""

    def schema_of(self, frame: pd.DataFrame) -> Schema:
        """The meaning of the columns of a table, given some of its rows.

        Raises ``SchemaError`` if a named column is not there, or has two meanings.
        """
        from detector.schema import KINDS, ROLES, Schema

        roles: dict[str, Any] = {role: getattr(self, role) for role in ROLES}
        kinds: dict[str, Any] = {kind: getattr(self, kind) for kind in KINDS}
        named = Schema(**roles, **kinds)
        present = [str(column) for column in frame.columns]
        named.check(present, labelled=self.label is not None)
        if self.others == "ignore":
            return named
        known = (*self.ignore, *(name for name in named.features if name != self.time))
        guessed = Schema.infer(frame, **roles, ignore=known)
        return Schema(**roles, **{kind: kinds[kind] + getattr(guessed, kind) for kind in KINDS})


class OutputSection(Section):
    """Where the scores go: a file, or a database table."""

    path: Location | None = None
    """A .parquet or .csv file; an older one is replaced, and only once all rows are written."""

    url: Url | None = None
    """A database instead of a file: any SQLAlchemy URL."""

    table: str | None = None
    """The table to append to; it is created when missing."""

    quarantine: Location | None = None
    """A .csv file for rows that cannot be used, with the reason. By default it lies next to the scores."""

    escape_formulas: bool = True
    """In the quarantine, which people open: a ' before text that is a formula to spreadsheets; the reason says so."""

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.path is None) == (self.url is None):
            raise ValueError("expected either `path` (a file) or `url` (a database). Give one of the two.")
        if (self.url is None) != (self.table is None):
            raise ValueError("a database needs both `url` and `table`.")
        if self.quarantine is not None and self.quarantine == self.path:
            raise ValueError("`quarantine` and `path` are the same file. Name two.")
        return self

    def at(self, path: str) -> OutputSection:
        """The same settings for another file; ``path`` is relative to the current folder."""
        return OutputSection(path=path, escape_formulas=self.escape_formulas)

    @property
    def events(self) -> OutputSection:
        """Where the events of series go: beside the scores.

        >>> OutputSection(path="out/scores.parquet").events.path
        'out/scores.events.parquet'
        """
        if self.path is not None:
            path = Path(self.path)
            return OutputSection(path=str(path.with_name(f"{path.stem}.events{path.suffix}")))
        return OutputSection(url=self.url, table=f"{self.table}_events")

    @property
    def quarantine_path(self) -> Path:
        """Where rows that cannot be used are written.

        >>> OutputSection(path="out/scores.parquet").quarantine_path.name
        'scores.quarantine.csv'
        """
        if self.quarantine is not None:
            return Path(self.quarantine)
        if self.path is not None:
            return Path(self.path).with_suffix(".quarantine.csv")
        return Path(f"{self.table}.quarantine.csv")
