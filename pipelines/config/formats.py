"""The part of the configuration about how values are written: separators and units, forms of dates, what is missing."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, ClassVar, Literal, Self

import pandas as pd
from pydantic import ConfigDict, field_validator, model_validator

from pipelines.config.values import Section, Zone

NAMED_DATES = ("day first", "month first", "seconds", "milliseconds", "microseconds", "nanoseconds")
_SOME_DAY = datetime(2026, 11, 28, 13, 45, 7, tzinfo=UTC)


class FormatSection(Section):
    """How the values of one column are written, where it is not 1234.56 or 2026-01-31T10:00:00."""

    model_config: ClassVar[ConfigDict] = ConfigDict(coerce_numbers_to_str=True)

    thousands: Literal[",", ".", " ", "'"] | None = None
    """What separates thousands. A value whose separators stand elsewhere is refused, not read."""

    decimal: Literal[".", ","] | None = None
    """What separates whole numbers from fractions. By default the other one than `thousands`, else as the source."""

    unit: str | None = None
    """What is written behind or before each number, such as "%", °C or €; a number without it, or with another, is \
refused."""

    date: str | None = None
    """Dates: day first, month first, seconds, milliseconds, microseconds or nanoseconds (since 1970), or a form such \
as %d.%m.%Y %H:%M. Dates such as 2026-01-31 are read beside it, unless the form begins with the year."""

    timezone: Zone | None = None
    """Whose clock tells dates that name no zone, such as Europe/Berlin; by default UTC. Of an hour that the clock \
repeats in autumn the first is taken, and a time that it skips in spring counts as an hour later."""

    missing: tuple[str, ...] = ()
    """What stands for a missing value beside nothing, NA and null, such as Bad, No Data or -9999. Otherwise text \
among numbers has its row put in the quarantine, and such a number is learnt from as if it were measured."""

    @field_validator("date")
    @classmethod
    def _known_form(cls, value: str | None) -> str | None:
        if value is None or value in NAMED_DATES:
            return value
        try:
            again = datetime.strptime(_SOME_DAY.strftime(value), value)  # noqa: DTZ007 - only to try a form
        except (ValueError, TypeError):
            again = None
        if again is None or "%" not in value or (again.month, again.day) != (_SOME_DAY.month, _SOME_DAY.day):
            raise ValueError(
                f"expected {', '.join(NAMED_DATES)}, or a form with day, month and year such as %d.%m.%Y %H:%M, "
                f"received {value!r}."
            )
        return value

    @field_validator("unit")
    @classmethod
    def _no_part_of_a_number(cls, value: str | None) -> str | None:
        if value is None or re.fullmatch(r"[^\s\d.,'+()-][^+()-]*", value.strip()):
            return value and value.strip()
        raise ValueError(f"expected what stands behind the numbers, such as %, °C or km/h, received {value!r}.")

    @model_validator(mode="after")
    def _one_meaning(self) -> Self:
        if self.is_date and (self.thousands or self.decimal or self.unit):
            raise ValueError(
                "a column holds dates or numbers. Keep `date` and `timezone`, or `thousands`, `decimal` and `unit`."
            )
        if self.is_plain and not self.missing:
            raise ValueError("expected `thousands`, `decimal`, `unit`, `date`, `timezone` or `missing`.")
        if self.timezone is not None and self.date is not None and self.date.endswith("seconds"):
            raise ValueError(f"{self.date} count from 1970 in UTC, whatever the clock. Leave `timezone` out.")
        if self.thousands is not None and self.thousands == self.decimal:
            raise ValueError(f"`thousands` and `decimal` are both {self.thousands!r}. They must differ.")
        return self

    @property
    def is_date(self) -> bool:
        """Whether it is about dates, not numbers."""
        return self.date is not None or self.timezone is not None

    @property
    def is_plain(self) -> bool:
        """Whether it says nothing of how values are written, only which are missing."""
        return not self.is_date and self.thousands is None and self.decimal is None and self.unit is None

    @cached_property
    def missing_texts(self) -> frozenset[str]:
        """What stands for a missing value, in small letters."""
        return frozenset(text.strip().lower() for text in self.missing)

    @cached_property
    def missing_numbers(self) -> frozenset[float]:
        """The numbers among it."""
        return frozenset(pd.to_numeric(pd.Series(self.missing, dtype=object), errors="coerce").dropna().astype(float))

    def is_missing(self, value: Any) -> bool:
        """Whether a value stands for a missing one.

        >>> form = FormatSection(missing=["Bad", -9999])
        >>> [form.is_missing(each) for each in ("bad ", -9999.0, "-9999", 0, None)]
        [True, True, True, False, False]
        """
        if isinstance(value, str):
            return value.strip().lower() in self.missing_texts
        return isinstance(value, (int, float)) and not isinstance(value, bool) and float(value) in self.missing_numbers

    def with_decimal(self, usual: str) -> FormatSection:
        """The same with the decimal separator filled in, for numbers.

        >>> FormatSection(thousands=".").with_decimal(".").decimal
        ','
        """
        if self.is_date or self.is_plain or self.decimal is not None:
            return self
        return self.model_copy(update={"decimal": {",": ".", ".": ","}.get(str(self.thousands), usual)})

    def describe(self) -> str:
        """The form by an example, for people.

        >>> FormatSection(thousands=".", decimal=",").describe(), FormatSection(date="day first").describe()
        ('as 1.234,56', 'day first')
        """
        if self.is_plain:
            return "as it is"
        if self.is_date:
            form = self.date or "2026-01-31 10:15"
            since = f"{form} since 1970" if form.endswith("seconds") else form
            clock = "" if self.timezone is None else f", by the clock of {self.timezone}"
            return f"{since if form in NAMED_DATES else f'as {form}'}{clock}"
        return f"as 1{self.thousands or ''}234{self.decimal or '.'}56{' ' + self.unit if self.unit else ''}"
