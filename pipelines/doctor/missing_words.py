"""What stands among numbers where there is none, as historians and exports write it: Bad, No Data, -9999."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from detector.cleaning.values import INFINITE, read_numbers
from detector.schema import MISSING
from pipelines.config.formats import FormatSection
from pipelines.doctor.choice import Choice
from pipelines.sources.formats import as_written

MOST_WORDS = 8
HALF = 0.5
LEAST_TIMES, LEAST_OTHERS = 3, 20
NINES = r"-?9{2,}(?:\.9+)?"


def words_of(column: pd.Series) -> tuple[str, ...]:
    """The few words among values most of which have digits, the commonest first; empty if it holds none or many.

    >>> words_of(pd.Series(["1,5", "Bad", "2,0", "No Data", "Bad", "7,1", "7,2"]))
    ('Bad', 'No Data')
    """
    if not pd.api.types.is_string_dtype(column):
        return ()
    times = column.dropna().astype("str").map(as_written).str.strip().value_counts()
    known = times[~times.index.str.lower().isin([*MISSING, *INFINITE])]
    words = known[~known.index.str.contains(r"\d")]
    if not 0 < len(words) <= MOST_WORDS or words.sum() >= HALF * known.sum():
        return ()
    return tuple(map(str, words.index))


def number_for_none(values: pd.Series) -> str | None:
    """A number that comes again and again, farther from all others than they are from each other; None without one.

    Of nines, or the only one below zero: that a machine is off may read 0, far from all others.

    >>> (
    ...     number_for_none(pd.Series([-9999.0] * 3 + [20.5, 21.5] * 10)),
    ...     number_for_none(pd.Series([0.0] * 3 + [40.0] * 20)),
    ... )
    ('-9999', None)
    """
    numbers = values[np.isfinite(values)]
    for extreme in (numbers.min(), numbers.max()):
        others = numbers[numbers != extreme]
        if len(others) < LEAST_OTHERS or len(numbers) - len(others) < LEAST_TIMES:
            continue
        written = np.format_float_positional(extreme, trim="-")
        is_code = re.fullmatch(NINES, written) is not None or extreme < 0 <= others.min()
        if is_code and (others - extreme).abs().min() > others.max() - others.min():
            return written
    return None


def without(column: pd.Series, words: tuple[str, ...]) -> pd.Series:
    """The values that are none of these words."""
    return column[~column.astype("str").str.strip().isin(words)] if words else column


def with_missing(choice: Choice, words: tuple[str, ...]) -> Choice:
    """A column of numbers among which words are missing readings; any other stays as it is."""
    if not words or choice.part != "numeric":
        return choice
    check = f"{', '.join(words)}: taken for a missing reading"
    return replace(_declared(choice, words), check="; ".join(filter(None, (choice.check, check))))


def with_missing_readings(choices: Sequence[Choice], frame: pd.DataFrame, read: pd.DataFrame) -> list[Choice]:
    """Sensors that come from one place: what stands for a missing reading of one will stand for one of another.

    - ``read``: the rows with numbers where ``frame`` has text in a form of its own.
    """
    choices = [_with_own(each, frame[each.column], read[each.column]) for each in choices]
    words = tuple(dict.fromkeys(word for each in choices if each.form is not None for word in each.form.missing))
    return [_declared(each, words) if words and each.part == "numeric" else each for each in choices]


def _with_own(choice: Choice, column: pd.Series, read: pd.Series) -> Choice:
    if choice.part != "numeric":
        return choice
    words, number = words_of(column), number_for_none(read_numbers(read)[0])
    if words and choice.form is None:
        choice = replace(choice, check="")  # no row goes to the quarantine for them any more
    declared = choice.form is not None and bool(choice.form.missing)
    return with_missing(choice, (*(() if declared else words), *(() if number is None else (number,))))


def _declared(choice: Choice, words: tuple[str, ...]) -> Choice:
    form = choice.form or FormatSection(missing=words)
    every = tuple(dict.fromkeys((*form.missing, *words)))
    return replace(choice, form=form.model_copy(update={"missing": every}))
