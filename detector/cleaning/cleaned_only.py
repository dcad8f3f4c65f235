"""What takes cleaned rows alone, and says so where it is given others."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

import pandas as pd

from detector.cleaning.clean import clean, shown
from detector.errors import DataError, DetectorError
from detector.schema import Schema


class HasSchema(Protocol):
    """What knows the columns of its rows."""

    @property
    def schema(self) -> Schema:
        """What the columns mean."""
        ...


Owner = TypeVar("Owner", bound=HasSchema)
Given = ParamSpec("Given")
Found = TypeVar("Found")


def cleaned_only(
    method: Callable[Concatenate[Owner, pd.DataFrame, Given], Found],
) -> Callable[Concatenate[Owner, pd.DataFrame, Given], Found]:
    """A method of cleaned rows that raises ``DataError`` with column and row where it fails for others.

    Cleaned rows are not looked at, so this costs nothing.
    """

    @wraps(method)
    def checked(self: Owner, rows: pd.DataFrame, *args: Given.args, **given: Given.kwargs) -> Found:
        try:
            return method(self, rows, *args, **given)
        except DetectorError:
            raise
        except Exception as error:
            if (fault := uncleaned(rows, self.schema)) is None:
                raise
            raise DataError(
                f"Expected cleaned rows. {fault} `judge` takes a table as it comes, and "
                f"`detector.cleaning.clean.clean(frame, scorer.schema).rows` are its cleaned rows."
            ) from error

    return checked  # type: ignore[return-value]  # that takes ``rows`` by name, too, which Concatenate cannot say


def uncleaned(rows: Any, schema: Schema) -> str | None:
    """What shows that rows are not as ``clean`` returns them; None if nothing does.

    >>> uncleaned(pd.DataFrame({"amount": ["1", "x"]}), Schema(numeric=("amount",)))
    "Row 1: amount: 'x' is not a number."
    """
    try:
        cleaned = clean(rows, schema, drop_duplicates=False)
    except DetectorError as error:
        return str(error)
    if len(cleaned.quarantine):
        first = cleaned.quarantine.iloc[0]
        return f"Row {first['row']}: {first['reason']}."
    for name, column in cleaned.rows.items():
        texts = [place for place, value in enumerate(rows[name]) if isinstance(value, str)]
        if column.dtype != "str" and texts:
            return f"Row {texts[0]}: {name}: {shown(rows[name].iloc[texts[0]])} is text."
    if rows.index.has_duplicates:
        return f"Two rows have the index {rows.index[rows.index.duplicated()][0]}."
    return None
