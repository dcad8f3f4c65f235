"""Columns of text as Arrow has them: what takes several passes of pandas is one there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from detector.arrays import Flags, Integers

TEXT = pd.StringDtype(na_value=np.nan)


def as_arrow(text: pd.Series) -> pa.ChunkedArray:
    """A column of text, in Arrow's form."""
    return pa.chunked_array(text.array.__arrow_array__())


def from_arrow(text: pa.ChunkedArray, like: pd.Series) -> pd.Series:
    """The inverse, under the index and the name of another column."""
    return pd.Series(TEXT.__from_arrow__(text), index=like.index, name=like.name, copy=False)


def trimmed(text: pd.Series) -> pd.Series:
    """Text without space around it; empty text is missing."""
    values = pc.utf8_trim_whitespace(as_arrow(text))
    return from_arrow(pc.if_else(pc.equal(values, ""), None, values), text)


def are_longer(text: pd.Series, most: int) -> Flags:
    """Which texts have more characters; none that is missing."""
    return np.asarray(pc.greater(pc.utf8_length(as_arrow(text).fill_null("")), most))


def hold(text: pd.Series, part: str) -> Flags:
    """Which texts hold a part; none that is missing."""
    return np.asarray(pc.match_substring(as_arrow(text).fill_null(""), part))


def listed(text: pd.Series) -> list[Any]:
    """The texts; None where one is missing.

    >>> listed(pd.Series(["a", None], dtype="str"))
    ['a', None]
    """
    found: list[Any] = as_arrow(text).to_pylist()
    return found


def ranks(text: pd.Series) -> Integers:
    """Numbers from 1 that stand in the order of the texts, none of which is missing.

    >>> ranks(pd.Series(["b", "a", "b"]))
    array([2, 1, 2])
    """
    return np.asarray(pc.rank(as_arrow(text), tiebreaker="dense"), dtype=np.int64)


def places_in(text: pd.Series, known: Sequence[str]) -> Integers:
    """Where each text is among known ones: -1 if it is none of them, -2 if it is missing.

    >>> places_in(pd.Series(["b", None, "x"], dtype="str"), ["a", "b"])
    array([ 1, -2, -1])
    """
    values = as_arrow(text)
    places = pc.index_in(values, pa.array(known, values.type)).fill_null(-1)
    return np.asarray(pc.if_else(values.is_valid(), places, -2), dtype=np.int64)


def repeated(text: str, times: int) -> Any:
    """The same text so many times, as the values of a column.

    >>> repeated("a", 2).tolist()
    ['a', 'a']
    """
    return TEXT.__from_arrow__(pa.repeat(text, times))
