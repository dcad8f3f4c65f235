"""Risk → ranked reasons: which feature, what was observed, what was expected, and its share of the risk."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from detector.errors import SettingError

LEAST_SHARE = 0.02
RULE = "rule "
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
LEAST_POWER = 1e21
"""From here on numbers are written in powers of ten: nobody reads so many digits."""
GROUPED_FROM, WHOLE_GROUPED_FROM = 1_000, 10_000
"""From here on numbers have their thousands apart; whole ones later, as years and short codes are whole numbers."""
LEAST_GROUPED_READING, MOST_GROUPED_READING = 999.5, 1e12
"""Readings of sensors between these are said by all their whole digits."""


@dataclass(frozen=True)
class Reason:
    """One feature's part in a row's risk. It travels as data; ``text`` is for people and is never read back.

    Parameters
    ----------
    feature : str
        Its name.
    observed, expected : str
        As a person would write them.
    share : float
        Part of the risk, between 0 and 1.
    columns : tuple of str
        The columns of the rows whose values ``observed`` and ``expected`` may show, so that whoever masks one of them
        knows; the feature itself if none is given.
    is_phrase : bool
        Whether ``observed`` says by itself what was measured, such as "12 in the hour before".

    >>> Reason("amount", "950.00", "about 42", 0.61).text
    'amount 950.00, expected about 42; 61 % of the risk'
    >>> Reason("birth weekday", "Monday", "", 0.1, columns=("birth",)).columns
    ('birth',)
    """

    feature: str
    observed: str
    expected: str
    share: float
    columns: tuple[str, ...] = field(default=(), repr=False)
    is_phrase: bool = field(default=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "columns", tuple(self.columns) or (self.feature,))

    @classmethod
    def of_rule(cls, name: str, said: str) -> Self:
        """What a rule that people wrote says of a row: no part of the risk is its.

        >>> Reason.of_rule("abroad", "large and far from home").text
        'rule abroad: large and far from home'
        """
        return cls(f"{RULE}{name}", said, "", 0.0)

    @property
    def is_rule(self) -> bool:
        """Whether a rule says it, and not the model."""
        return self.share == 0.0 and self.feature.startswith(RULE)

    @cached_property
    def telling(self) -> bool:
        """Whether what was observed differs, as written, from what was expected.

        >>> Reason("hour", "03:00", "16:20", 0.3).telling, Reason("payments", "0", "about 0", 0.3).telling
        (True, False)
        >>> Reason("amount", "1,168.20", "about 1,170", 0.3).telling
        False
        """
        if self.observed == self.expected:  # a code such as "0413" is no number
            return False
        decimals = len(self.observed.partition(".")[2])
        try:
            rounded = about(float(self.observed.replace(",", "")), decimals)
        except ValueError:
            rounded = self.observed
        return rounded != self.expected

    @property
    def lacks_value(self) -> bool:
        """Whether the row has no value there, or one that training never had."""
        return self.observed in ("missing", "unseen")

    @property
    def text(self) -> str:
        """The reason in words."""
        if self.is_rule:
            return f"{self.feature}: {self.observed}"
        expected = f", expected {self.expected}" if self.expected else ""
        return f"{self.feature} {self.observed}{expected}; {100 * self.share:.0f} % of the risk"

    def to_dict(self) -> dict[str, Any]:
        """Plain values that JSON can hold."""
        return {
            "feature": self.feature,
            "observed": self.observed,
            "expected": self.expected,
            "share": float(self.share),
            "columns": list(self.columns),
            "is_phrase": self.is_phrase,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of ``to_dict``.

        >>> reason = Reason("amount", "950.00", "about 42", 0.61)
        >>> Reason.from_dict(reason.to_dict()) == reason
        True
        """
        return cls(**values)


def risk_shares(
    attributions: Mapping[str, NDArray[np.floating[Any]]], excess: Mapping[str, NDArray[np.floating[Any]]]
) -> NDArray[np.float64]:
    """Join what each member says about the features into one share a feature.

    Parameters
    ----------
    attributions : mapping of str to array of shape (n_rows, n_features)
        How much each feature adds to a member's score; negative parts count as nothing.
    excess : mapping of str to array of shape (n_rows,)
        How much each member adds to the risk; negative parts count as nothing.

    Returns
    -------
    array of shape (n_rows, n_features)
        Shares that sum to 1 in each row.

    >>> risk_shares({"forest": np.array([[3.0, 1.0, -2.0]])}, {"forest": np.array([2.0])})
    array([[0.75, 0.25, 0.  ]])
    """
    joined = sum(_normalised(attributions[name]) * np.maximum(excess[name], 1e-9)[:, None] for name in attributions)
    return _normalised(np.asarray(joined))


def top_features(shares: NDArray[np.float64], top: int) -> list[list[int]]:
    """The features with the largest shares of each row, largest first, at least one.

    Raises
    ------
    SettingError
        If ``top`` is below 1.

    >>> top_features(np.array([[0.1, 0.89, 0.01]]), top=3)
    [[1, 0]]
    """
    if top < 1:
        raise SettingError(f"top must be at least 1. Received: top={top}.")
    order = np.argsort(-shares, axis=1, kind="stable")[:, :top]
    kept = np.take_along_axis(shares, order, axis=1) >= LEAST_SHARE
    kept[:, 0] = True
    return [[int(i) for i in row[keep]] for row, keep in zip(order, kept, strict=True)]


def most_telling(reasons: Sequence[Reason], top: int) -> list[Reason]:
    """The first ``top`` reasons that say something; the first of all if none does."""
    return [reason for reason in reasons if reason.telling][:top] or list(reasons[:1])


def number(value: float, decimals: int) -> str:
    """An observed number with the digits its column is written with, and large ones with their thousands apart.

    >>> number(2950.0, 2), number(2024, 0), number(12024, 0), number(1e300, 2), number(float("nan"), 2)
    ('2,950.00', '2024', '12,024', '1e+300', 'missing')
    """
    return "missing" if math.isnan(value) else _grouped(value, decimals, whole=not decimals)


def reading(value: float) -> str:
    """What a sensor reads, in four digits, and in all whole ones of a larger number; its thousands apart.

    >>> reading(0.012345), reading(42.0), reading(1756.3), reading(24512.6)
    ('0.01235', '42', '1,756', '24,513')
    """
    return f"{value:,.0f}" if LEAST_GROUPED_READING <= abs(value) < MOST_GROUPED_READING else f"{value:.4g}"


def about(value: float, decimals: int) -> str:
    """An expected number, no more exact than the model that expects it.

    >>> about(41.87, 2), about(0.0312, 3), about(123456.0, 0), about(1168.2, 2), about(1168.2, 0)
    ('about 42', 'about 0.031', 'about 123,000', 'about 1,170', 'about 1170')
    """
    if not math.isfinite(value):
        return "a value"
    if value == 0 or round(value, decimals) == 0:
        return "about 0"
    magnitude = math.floor(math.log10(abs(value)))
    digits = 2 if magnitude < 2 else 3
    rounded = round(value, digits - 1 - magnitude)
    return f"about {_grouped(rounded, max(0, min(digits - 1 - magnitude, decimals)), whole=not decimals)}"


def _grouped(value: float, decimals: int, *, whole: bool) -> str:
    if abs(value) >= LEAST_POWER:
        return f"{value:.4g}"
    large = abs(value) >= (WHOLE_GROUPED_FROM if whole else GROUPED_FROM)
    return f"{value:,.{decimals}f}" if large else f"{value:.{decimals}f}"


def clock(hours: float) -> str:
    """An hour of the day.

    >>> clock(3.25)
    '03:15'
    """
    if np.isnan(hours):
        return "missing"
    minutes = round(hours * 60) % (24 * 60)
    return f"{minutes // 60:02d}:{minutes % 60:02d}"


def weekday(days: float) -> str:
    """A day of the week, Monday first.

    >>> weekday(5.9)
    'Saturday'
    """
    return "missing" if np.isnan(days) else WEEKDAYS[int(days) % 7]


def in_words(reasons: Sequence[Reason]) -> str:
    """Reasons as one line."""
    return " | ".join(reason.text for reason in reasons)


def no_reasons(n_rows: int) -> NDArray[np.object_]:
    """Nothing for each row, which is neither text nor missing."""
    found = np.empty(n_rows, dtype=object)
    found.fill(())
    return found


def reasons_in_words(scores: pd.DataFrame) -> pd.DataFrame:
    """Scores as people read them: the lists in the column ``reasons`` as text."""
    return scores.assign(reasons=as_text(scores["reasons"], in_words))


def with_reasons(reasons: pd.Series) -> NDArray[np.intp]:
    """The places of the rows whose list is not empty, which are few."""
    return np.flatnonzero(reasons.to_numpy().astype(bool))


def as_text(reasons: pd.Series, say: Callable[[Sequence[Reason]], str]) -> pd.Series:
    """A column of lists as text, empty where a list is empty.

    >>> as_text(pd.Series([[Reason("amount", "950.00", "about 42", 0.61)], ()]), in_words).tolist()
    ['amount 950.00, expected about 42; 61 % of the risk', '']
    """
    places = with_reasons(reasons)
    texts = pd.array(["", *(say(each) for each in reasons.iloc[places])], dtype="str")
    number = np.zeros(len(reasons), dtype=np.intp)
    number[places] = np.arange(1, len(texts))
    return pd.Series(texts.take(number), index=reasons.index)


def _normalised(parts: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    positive = np.maximum(np.asarray(parts, dtype=np.float64), 0.0)
    total = positive.sum(axis=1, keepdims=True)
    return np.where(total > 0, positive / np.where(total > 0, total, 1.0), 1.0 / positive.shape[1])
