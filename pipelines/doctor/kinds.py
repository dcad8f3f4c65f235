"""Which kind each column gets, and why: what training will take it for, before it does."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator

import pandas as pd

from detector.schema import Schema, guess_kind
from pipelines.doctor.check import Check

MOST_LISTED = 60
MOST_CODES = 5_000
LEAST_REPEATS = 2.0
_CODE = re.compile(
    r"(.*[_\W])?(mcc|sic|naics|code|kind|type|category|zip|postcode|postal|plz|bin|country|currency|iso|channel|"
    r"branch|shop|store|terminal|merchant|id|no|nr|number)(_?(id|code|no|nr|number))?",
)


def kind_checks(schema: Schema, frame: pd.DataFrame, guessed: Collection[str]) -> Iterator[Check]:
    """Every feature; of very many those that nothing speaks against are only counted."""
    checks = [kind_check(name, schema.kind_of(name), frame[name], guessed=name in guessed) for name in schema.features]
    if len(checks) <= MOST_LISTED:
        yield from checks
        return
    yield from (check for check in checks if check.state != "ok")
    quiet = Counter((check.place, check.found.partition(": ")[2]) for check in checks if check.state == "ok")
    for (place, found), count in quiet.items():
        yield Check(place, "ok", f"{count:,} columns: {found}")


def kind_check(name: str, kind: str, column: pd.Series, *, guessed: bool) -> Check:
    """One feature: what it is taken for and why, and what speaks against it.

    >>> column = pd.Series([5411, 5812] * 50)
    >>> kind_check("mcc", "numeric", column, guessed=True).advice
    'If they are codes, list it under `columns.categorical`; the difference of two codes means nothing.'
    """
    place = f"columns.{kind}"
    if not guessed:
        return Check(place, "ok", f"{name!r}: {kind}, as the configuration says")
    why = guess_kind(column)[1]
    found = f"{name!r}: {kind}, guessed, as {why}"
    if kind == "numeric" and _CODE.fullmatch(name.lower()) and _are_codes(column):
        advice = "If they are codes, list it under `columns.categorical`; the difference of two codes means nothing."
        return Check(place, "warning", found, advice)
    return Check(place, "ok", found)


def _are_codes(column: pd.Series) -> bool:
    """Whether numbers are whole, none below zero, and come again and again."""
    numbers = pd.to_numeric(column, errors="coerce").dropna()
    if numbers.empty or (numbers % 1 != 0).any() or (numbers < 0).any():
        return False
    different = numbers.nunique()
    return bool(1 < different <= MOST_CODES and len(numbers) >= LEAST_REPEATS * different)
