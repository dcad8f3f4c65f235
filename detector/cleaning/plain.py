"""One row of plain values, cleaned without a frame around it: what scoring online can afford.

Only values that mean the same to every reader are taken: numbers that are numbers, text without space around it, dates
in full. Whatever needs a second look is for ``clean``, and so is every row that has a fault: there is one place that
says what odd values mean, and one that says what is wrong with them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from math import isinf, nan
from typing import Any

from detector.cleaning.clean import MOST_NAME
from detector.cleaning.values import MOMENT
from detector.schema import Schema

Cell = float | int | str | None

WHOLE = 2**53
"""Whole numbers beyond this are not all floats."""
LONG = 2**63
_DATE = re.compile(MOMENT)
_EPOCH, _EPOCH_UTC, _MICROSECOND = datetime(1970, 1, 1), datetime(1970, 1, 1, tzinfo=UTC), timedelta(microseconds=1)  # noqa: DTZ001 - times without a zone are UTC


class NotPlainError(Exception):
    """A value that takes the reader of whole columns."""


def plain_row(row: Mapping[str, Any], schema: Schema) -> dict[str, Cell]:
    """The cells of a row as ``clean`` types them; times in microseconds since 1970, what is missing as NaN or None.

    Raises ``NotPlainError`` if it takes ``clean`` to read the row, or to say what is wrong with it.

    >>> schema = Schema(key="id", time="at", numeric=("amount",), categorical=("shop",))
    >>> plain_row({"id": "T1", "at": "1970-01-01T00:00:01", "amount": 3, "shop": None}, schema)
    {'id': 'T1', 'at': 1000000, 'amount': 3.0, 'shop': None}
    """
    found: dict[str, Cell] = {}
    try:
        if schema.key is not None:
            found[schema.key] = name(row[schema.key], needed=True)
        if schema.time is not None:
            found[schema.time] = moment(row[schema.time], needed=True)
        if schema.entity is not None:
            found[schema.entity] = name(row[schema.entity])
        for names, read in (
            (schema.numeric, number),
            (schema.categorical, category),
            (schema.boolean, truth),
            (schema.datetime, moment),
        ):
            _read(row, names, read, found)
    except KeyError:
        raise NotPlainError from None
    return found


def _read(row: Mapping[str, Any], names: tuple[str, ...], read: Callable[[Any], Cell], found: dict[str, Cell]) -> None:
    for column in names:
        if column not in found:
            found[column] = read(row[column])


def number(value: Any) -> float:
    """A number that is not infinite.

    Raises ``NotPlainError`` if it is none.

    >>> number(3), number(None)
    (3.0, nan)
    """
    kind = type(value)
    if (kind is float and not isinf(value)) or (kind is int and -WHOLE <= value <= WHOLE):
        return float(value)
    if value is None:
        return nan
    raise NotPlainError


def truth(value: Any) -> float:
    """1 or 0. Raises ``NotPlainError`` if it is neither."""
    if type(value) in (bool, int, float) and value in (0, 1):
        return float(value)
    if value is None:
        return nan
    raise NotPlainError


def moment(value: Any, *, needed: bool = False) -> int | None:
    """Microseconds since 1970 of a date with its time, in UTC.

    Raises ``NotPlainError`` if it is none, or missing and ``needed``.

    >>> moment("2024-01-31T10:00:00+02:00") - moment("2024-01-31 08:00:00")
    0
    """
    if value is None and not needed:
        return None
    if type(value) is not str or _DATE.fullmatch(value) is None:
        raise NotPlainError
    try:
        read = datetime.fromisoformat(value)
    except ValueError:
        raise NotPlainError from None
    return (read - (_EPOCH if read.tzinfo is None else _EPOCH_UTC)) // _MICROSECOND


def name(value: Any, *, needed: bool = False) -> str | int | None:
    """A key or an entity. Raises ``NotPlainError`` if it is none that can be kept as it is."""
    if type(value) is int and -LONG <= value < LONG:
        return value
    found = category(value)
    if (found is None and needed) or (found is not None and len(found) > MOST_NAME):
        raise NotPlainError
    return found


def category(value: Any) -> str | None:
    """Text without space around it, or a whole number as text. Raises ``NotPlainError`` if it is neither.

    >>> category(7), category("a b")
    ('7', 'a b')
    """
    kind = type(value)
    if kind is str and value and value.isprintable() and value[0] != " " and value[-1] != " ":
        return str(value)
    if kind is int and -LONG <= value < LONG:
        return str(value)
    if value is None:
        return None
    raise NotPlainError
