"""The part of the configuration about rules beside the model, and the lists that they look into."""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated, Any, Literal, Self

from pydantic import Field, PositiveFloat, field_validator, model_validator

from pipelines.config.alert_channels import Severity
from pipelines.config.data import SourceSection
from pipelines.config.values import Location, Section, Url

NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"
Action = Literal["alert", "score_up", "never"]
State = Literal["off", "shadow", "live"]
STATES: tuple[State, ...] = ("off", "shadow", "live")

MOST_RULES = 200
MOST_WHEN = 2_000
MOST_REASON = 300
TEXT_FILES = (".txt", ".list")


class ListEntry(Section):
    """A value of a list that does not stay there for ever."""

    value: str | int | float
    """The value."""

    until: datetime | date | None = None
    """Rows from then on do not find it, such as 2026-12-31; UTC where no zone is given."""


class ListSection(Section):
    """Values that rules may look a column up in: here, in a file or in a table; together, where several are given."""

    values: tuple[str | int | float | ListEntry, ...] = ()
    """The values: [C00014, {value: C00015, until: 2026-12-31}]."""

    path: Location | None = None
    """A text file with one value a line, or a .csv or .parquet file; read anew when it has changed."""

    url: Url | None = None
    """A database instead of a file."""

    table: str | None = None
    """The table in that database."""

    column: str | None = None
    """The column that holds the values; by default the first."""

    until: str | None = None
    """The column that says until when each is valid; by default `until`, if there is one."""

    @model_validator(mode="after")
    def _has_values(self) -> Self:
        if not self.values and self.path is None and self.url is None:
            raise ValueError("expected `values`, `path` or `url`: a list needs some place to come from.")
        if self.path is not None and self.url is not None:
            raise ValueError("expected either `path` (a file) or `url` (a database). Give one of the two.")
        if (self.url is None) != (self.table is None):
            raise ValueError("a database needs both `url` and `table`.")
        return self

    @property
    def is_text(self) -> bool:
        """Whether the file holds one value a line, and no table."""
        return self.path is not None and self.path.lower().endswith(TEXT_FILES)

    @property
    def source(self) -> SourceSection | None:
        """The file or table as a source of rows; None if all values stand in the configuration."""
        if self.path is not None:
            return SourceSection(path=self.path)
        return None if self.url is None else SourceSection(url=self.url, table=self.table)


class RuleSection(Section):
    """What people know, beside the model: which rows are alerts, rarer than they look, or never to be told."""

    name: Annotated[str, Field(pattern=NAME)]
    """Names it: letters, digits, dots, dashes and underscores, at most 64."""

    when: Annotated[str, Field(min_length=1, max_length=MOST_WHEN)]
    """Which rows: amount > 500 and country != home_country; see docs/rules.md for all that can be said."""

    action: Action = "alert"
    """alert flags the row whatever the policy says; score_up raises its risk before the policy decides; never keeps \
it from being flagged, and counts what it hid."""

    severity: Severity = "medium"
    """How severe a row is that an alert rule flags, at least."""

    tag: Annotated[str, Field(max_length=64)] = ""
    """A word that alerts of this rule carry, for whoever receives them."""

    by: PositiveFloat = 1.0
    """How much score_up adds to the risk: the unit is the spread of normal rows' risks (of a head: log-odds). Too \
little changes nothing; from about 5 on, nearly every row it hits is flagged."""

    reason: Annotated[str, Field(max_length=MOST_REASON)] = ""
    """What people are told, beside the model's reasons. By default `when`."""

    state: State = "shadow"
    """live acts; shadow is counted and told to nobody; off is not looked at."""

    @field_validator("when", "reason", "tag")
    @classmethod
    def _printable(cls, value: str) -> str:
        plain = value.replace("\n", " ").replace("\t", " ").strip()
        if not plain.isprintable():
            raise ValueError("expected printable characters only.")
        return plain

    @model_validator(mode="after")
    def _fits(self) -> Self:
        for name, action in (("severity", "alert"), ("tag", "alert"), ("by", "score_up")):
            if name in self.model_fields_set and self.action != action and getattr(self, name) != _default(name):
                raise ValueError(f"`{name}` is for `action: {action}`, and the action is {self.action}. Leave it out.")
        return self

    @property
    def said(self) -> str:
        """What people are told."""
        return self.reason or self.when

    @property
    def definition(self) -> dict[str, Any]:
        """All but the name and the state, as JSON can hold it."""
        return self.model_dump(mode="json", exclude={"name", "state"})


def _default(name: str) -> object:
    return RuleSection.model_fields[name].default


def check_names(rules: tuple[RuleSection, ...]) -> None:
    """Refuse a name that two rules have, and more rules than there may be.

    Raises ``ValueError``.
    """
    if len(rules) > MOST_RULES:
        raise ValueError(f"`rules` holds {len(rules)} rules; there may be {MOST_RULES}. Join some with `or`.")
    seen: set[str] = set()
    for rule in rules:
        if rule.name.casefold() in seen:
            raise ValueError(f"`rules` holds two rules named {rule.name!r}. Give one of them another name.")
        seen.add(rule.name.casefold())
