"""The part of the configuration about how values are written: separators and units of numbers, forms of dates."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Literal, Self

from pydantic import field_validator, model_validator

from pipelines.config.values import Section

NAMED_DATES = ("day first", "month first", "seconds", "milliseconds", "microseconds", "nanoseconds")
_SOME_DAY = datetime(2026, 11, 28, 13, 45, 7)  # noqa: DTZ001 - only to try a form


class FormatSection(Section):
    """How the values of one column are written, where it is not 1234.56 or 2026-01-31T10:00:00."""

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
        if self.date is not None and (self.thousands or self.decimal or self.unit):
            raise ValueError("a column holds dates or numbers. Keep `date`, or `thousands`, `decimal` and `unit`.")
        if self.date is None and self.thousands is None and self.decimal is None and self.unit is None:
            raise ValueError("expected `thousands`, `decimal`, `unit` or `date`.")
        if self.thousands is not None and self.thousands == self.decimal:
            raise ValueError(f"`thousands` and `decimal` are both {self.thousands!r}. They must differ.")
        return self

    def with_decimal(self, usual: str) -> FormatSection:
        """The same with the decimal separator filled in, for numbers.

        >>> FormatSection(thousands=".").with_decimal(".").decimal
        ','
        """
        if self.date is not None or self.decimal is not None:
            return self
        return self.model_copy(update={"decimal": {",": ".", ".": ","}.get(str(self.thousands), usual)})

    def describe(self) -> str:
        """The form by an example, for people.

        >>> FormatSection(thousands=".", decimal=",").describe(), FormatSection(date="day first").describe()
        ('as 1.234,56', 'day first')
        """
        if self.date is not None:
            known = self.date in NAMED_DATES
            since = f"{self.date} since 1970" if self.date.endswith("seconds") else self.date
            return since if known else f"as {self.date}"
        return f"as 1{self.thousands or ''}234{self.decimal or '.'}56{' ' + self.unit if self.unit else ''}"
