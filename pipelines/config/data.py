"""The parts of the configuration about data: where it comes from, what it means, where results go."""

from __future__ import annotations

import codecs
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import ConfigDict, Field, PrivateAttr, field_validator, model_validator

from pipelines.config.formats import FormatSection
from pipelines.config.topics import TopicSection
from pipelines.config.values import Location, Section, Url

if TYPE_CHECKING:
    import pandas as pd

    from detector.schema import Schema


FILENAME = "filename"


class SourceSection(Section):
    """Where the rows come from: files, a database, or a Kafka topic."""

    path: Location | None = None
    """A file of CSV, Parquet or JSON lines, a folder of these, or a pattern such as data/2024-*.parquet."""

    url: Url | None = None
    """A database instead of files: any SQLAlchemy URL, such as postgresql://user:${PASSWORD}@host/name."""

    table: str | None = None
    """The table to read from that database."""

    query: str | None = None
    """A SELECT to read instead of a whole table."""

    topic: TopicSection | None = None
    """A Kafka topic of JSON objects instead: `detector serve` scores each message once, other commands read what is \
there."""

    separator: Annotated[str, Field(min_length=1, max_length=1)] | None = None
    """What separates the fields of a CSV file. Found by itself when left out."""

    header: Annotated[int, Field(ge=1)] | None = None
    """The line of a CSV file that names the columns, counted from 1, where a title or other lines stand above it; \
these are skipped. The first line that is not empty when left out."""

    encoding: str = "utf-8"
    """How the characters of a CSV file are written: utf-8, latin-1, cp1252, utf-16."""

    decimal: Literal[".", ","] = "."
    """What separates whole numbers from fractions in a CSV file, or in text of JSON lines."""

    formats: dict[str, FormatSection] = Field(default={})
    """How columns are written that are not as 1234.56 or 2026-01-31T10:00:00: amount: {thousands: ","} (or ".", " ", \
"'"; with decimal: "," or "."), load: {unit: "%"}, time: {date: day first} (or month first, seconds, milliseconds, \
microseconds, nanoseconds, or a form such as "%d.%m.%y %H:%M"). A value in another form is refused, never guessed; \
`detector doctor` proposes the form that fits."""

    _names_of_files: tuple[str, str] | None = PrivateAttr(default=None)
    _columns: ColumnsSection | None = PrivateAttr(default=None)

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, value: str) -> str:
        try:
            codecs.lookup(value)
        except LookupError:
            raise ValueError(f"expected an encoding such as utf-8, latin-1 or cp1252, received {value!r}.") from None
        return value

    @property
    def names_of_files(self) -> tuple[str, str] | None:
        """The column that is made of the names of files, and the pattern; None if none is."""
        return self._names_of_files

    def needs(self, name: str) -> bool:
        """Whether a column that one file has must be in all others."""
        return self._columns is None or self._columns.uses(name)

    def with_columns(self, columns: ColumnsSection) -> None:
        """Know what the columns mean, and that names of files make one if they say so; ``Config`` calls this once."""
        self._columns = columns
        if columns.entity_from is not None:
            self._names_of_files = (str(columns.entity), columns.entity_from)

    @property
    def complete_formats(self) -> dict[str, FormatSection]:
        """The forms, each with its decimal separator."""
        return {name: form.with_decimal(self.decimal) for name, form in self.formats.items()}

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if sum(place is not None for place in (self.path, self.url, self.topic)) != 1:
            raise ValueError("expected `path` (files), `url` (a database) or `topic` (Kafka). Give one of the three.")
        if self.url is None and (self.table or self.query):
            raise ValueError("`table` and `query` belong to a database. Give its `url` instead of `path`.")
        if self.url is not None and (self.table is None) == (self.query is None):
            raise ValueError("a database needs either `table` or `query`. Give one of the two.")
        return self

    def at(self, path: str) -> SourceSection:
        """The same settings for another file, folder or pattern, relative to the current folder."""
        return self.model_copy(update={"path": path, "url": None, "table": None, "query": None, "topic": None})


class ColumnName(Section):
    """What people call a column, and what its numbers are in."""

    name: str = ""
    """What reports, reasons and alerts call it; its own name when left out."""

    unit: str = ""
    """What its numbers are in, such as EUR, °C or km."""


class ColumnsSection(Section):
    """What the columns mean. Columns that are named nowhere are looked at, and their kind is guessed."""

    model_config: ClassVar[ConfigDict] = ConfigDict(coerce_numbers_to_str=True)

    key: str | None = None
    """The column that names a row, such as a transaction number."""

    time: str | None = None
    """The column that says when it happened."""

    entity: str | None = None
    """The column that says to whom or what it belongs: an account, a card, a machine."""

    entity_from: str | None = None
    """Where files do not hold that column: filename, for the name of each file without its ending, or a pattern with \
a group for the part that counts, such as "pump-([0-9]+)". `entity` then names the column that is made of it."""

    label: str | None = None
    """The known truth where there is one: 1 anomalous, 0 normal, empty unknown."""

    numeric: tuple[str, ...] = ()
    """Columns to be taken as numbers."""

    categorical: tuple[str, ...] = ()
    """Columns to be taken as categories, even if they look like numbers (a postcode, a shop number)."""

    boolean: tuple[str, ...] = ()
    """Columns that are true or false."""

    datetime: tuple[str, ...] = ()
    """Dates or times that are features: hour, weekday, and the days between them and to the time of the row."""

    ignore: tuple[str, ...] = ()
    """Columns to leave out."""

    others: Literal["infer", "ignore"] = "infer"
    """Columns that are named nowhere: guess their kind (infer), or leave them out (ignore)."""

    for_rules: tuple[str, ...] = ()
    """Columns that rules read, as text, and nothing is learnt from; what features are made of need not be named."""

    names: dict[str, ColumnName] = Field(default={})
    """What people call columns wherever reasons are shown (reports, alerts, scores, MLflow), and their unit or \
currency: amount: payment, or amount: {name: payment, unit: EUR}. Masks go on naming the columns themselves."""

    @field_validator("names", mode="before")
    @classmethod
    def _name_alone(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {column: {"name": said} if isinstance(said, str) else said for column, said in value.items()}

    @model_validator(mode="after")
    def _named_files(self) -> Self:
        if self.entity_from is None:
            return self
        if self.entity is None:
            raise ValueError("`entity_from` expected a name for what it makes. Give it in `entity`, such as machine.")
        if self.entity_from != FILENAME:
            try:
                groups = re.compile(self.entity_from).groups
            except re.error as error:
                raise ValueError(f"`entity_from` {self.entity_from!r} is not a pattern: {error}.") from None
            if groups != 1:
                raise ValueError(
                    f"`entity_from` expected filename, or a pattern with one group in brackets, such as "
                    f'"pump-([0-9]+)", received {self.entity_from!r} with {groups}.'
                )
        return self

    def uses(self, name: str) -> bool:
        """Whether a column has a meaning, or one is guessed for it.

        >>> section = ColumnsSection(key="id", ignore=["note"])
        >>> section.uses("id"), section.uses("amount"), section.uses("note")
        (True, True, False)
        """
        from detector.schema import KINDS, ROLES

        named = {getattr(self, role) for role in ROLES} | {each for kind in KINDS for each in getattr(self, kind)}
        return name in named or name in self.for_rules or (self.others == "infer" and name not in self.ignore)

    def schema_of(self, frame: pd.DataFrame) -> Schema:
        """The meaning of the columns of a table, given some of its rows.

        Raises ``SchemaError`` if a named column is not there, or has two meanings.
        """
        from detector.errors import SchemaError, nearest
        from detector.schema import KINDS, ROLES, Schema

        roles: dict[str, Any] = {role: getattr(self, role) for role in ROLES}
        kinds: dict[str, Any] = {kind: getattr(self, kind) for kind in KINDS}
        named = Schema(**roles, **kinds)
        present = [str(column) for column in frame.columns]
        named.check(present, labelled=self.label is not None)
        for name in self.names:
            if name not in present:
                raise SchemaError(f"There is no column {name!r}, which `columns.names` names. {nearest(name, present)}")
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
