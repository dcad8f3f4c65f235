"""Words that stand among a sensor's numbers where it had no reading, as historians write them: Bad, No Data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from detector.cleaning.values import INFINITE
from detector.schema import MISSING
from pipelines.config.formats import FormatSection
from pipelines.doctor.choice import Choice
from pipelines.sources.formats import as_written

MOST_WORDS = 8
HALF = 0.5


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


def without(column: pd.Series, words: tuple[str, ...]) -> pd.Series:
    """The values that are none of these words."""
    return column[~column.astype("str").str.strip().isin(words)] if words else column


def with_missing(choice: Choice, words: tuple[str, ...]) -> Choice:
    """A column of numbers among which words are missing readings; any other stays as it is."""
    if not words or choice.part != "numeric":
        return choice
    check = f"{', '.join(words)}: taken for a missing reading"
    return replace(_declared(choice, words), check="; ".join(filter(None, (choice.check, check))))


def with_missing_readings(choices: Sequence[Choice], frame: pd.DataFrame) -> list[Choice]:
    """Sensors that come from one place: what stands for a missing reading of one will stand for one of another."""
    choices = [each if _declares(each) else _with_own_words(each, frame[each.column]) for each in choices]
    words = tuple(dict.fromkeys(word for each in choices if each.form is not None for word in each.form.missing))
    return [_declared(each, words) if words and each.part == "numeric" else each for each in choices]


def _declares(choice: Choice) -> bool:
    return choice.part != "numeric" or (choice.form is not None and bool(choice.form.missing))


def _with_own_words(choice: Choice, column: pd.Series) -> Choice:
    words = words_of(column)
    return with_missing(replace(choice, check=""), words) if words else choice


def _declared(choice: Choice, words: tuple[str, ...]) -> Choice:
    form = (choice.form or FormatSection(missing=words)).model_copy(update={"missing": words})
    return replace(choice, form=form)
