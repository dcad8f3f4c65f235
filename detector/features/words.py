"""A feature in words: "5.2 times its 30-day mean" in place of "amount_ratio_30d_by_card_id 5.20"."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from detector.features.duration import spoken
from detector.features.feature import Feature

if TYPE_CHECKING:
    from detector.explain.reason import Reason

FLAGS = {"night": ("by day", "at night"), "weekend": ("on a working day", "on a weekend")}
STATISTICS = {"mean": "mean", "std": "deviation of", "max": "largest", "sum": "sum of"}
IN_UNIT = (*STATISTICS, "last")
"""The measures whose numbers are in the unit of the column they measure."""


_NUMBER = re.compile(r"((?:about )?[-+]?[\d.,]+(?:e[-+]?\d+)?)( at worst| \(learnt range .*\))?")


@dataclass(frozen=True)
class ColumnWords:
    """What people call a column, and what its numbers are in; empty where it goes by its own name, or has no unit."""

    name: str = ""
    unit: str = ""


NO_WORDS = ColumnWords()


def in_own_words(
    reasons: Sequence[Reason],
    features: Iterable[Feature],
    *,
    calendar: Sequence[str] = (),
    time: str | None = None,
    names: Mapping[str, ColumnWords] | None = None,
) -> list[Reason]:
    """The same reasons, those of features as people speak of an entity's history.

    Each says in ``columns`` which values it may show: of a feature the columns it measures, never those of its entity,
    which it only names.

    Parameters
    ----------
    reasons : sequence of Reason
        As ``TabularScorer.explain`` returns them for one row.
    features : iterable of Feature
        Those among the columns.
    calendar : sequence of str
        Calendar features among the columns; night and weekend have words of their own.
    time : str, optional
        The column that calendar features are made of.
    names : mapping of str to ColumnWords, optional
        What people call columns, and their units; what a reason may show of which column stays as it was.

    >>> from detector.explain.reason import Reason
    >>> (feature,) = Feature.parse("ratio of amount by card_id over 30d")
    >>> (reason,) = in_own_words([Reason(feature.name, "5.20", "about 1.1", 0.61)], [feature])
    >>> reason.text
    'amount 5.2 times its 30-day mean of card_id, expected about 1.1; 61 % of the risk'
    >>> names = {"amount": ColumnWords("payment", "EUR"), "card_id": ColumnWords("card")}
    >>> in_own_words([Reason("amount", "950.00", "about 42", 0.61)], [], names=names)[0].text
    'payment 950.00 EUR, expected about 42 EUR; 61 % of the risk'
    """
    known, names = {feature.name: feature for feature in features}, names or {}
    return [
        _of_history(reason, known[reason.feature], names)
        if reason.feature in known
        else _of_calendar(reason, time, names)
        if reason.feature in calendar
        else _of_column(reason, names)
        for reason in reasons
    ]


def renamed(feature: Feature, names: Mapping[str, ColumnWords]) -> Feature:
    """A feature whose columns go by the names that people have for them."""

    def called(columns: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(names.get(each, NO_WORDS).name or each for each in columns)

    return replace(feature, of=called(feature.of), by=called(feature.by))


def say(feature: Feature, value: float, *, unit: str = "") -> tuple[str, str]:
    """What was measured, and its value, in words; ``unit`` is that of the column measured.

    >>> say(*Feature.parse("since by card_id over 90d"), 3.0)
    ('last event of this card_id', '3 minutes before')
    >>> say(*Feature.parse("new of device by card_id over 90d"), 1.0)
    ('device', 'not seen with this card_id in 90 days')
    """
    whose, of = " and ".join(feature.by), ", ".join(feature.of)
    days = _plural(feature.window)
    past = f"in the {days.removeprefix('1 ')}"
    ending = f" {_that_ends(feature)}" if feature.delay else " before"
    number = f"{_number(value)} {unit}".strip() if feature.measure in IN_UNIT else _number(value)
    match feature.measure:
        case "ratio":
            return of, f"{number} times its {_mean(feature)}"
        case "zscore":
            side = "above" if value >= 0 else "below"
            return of, f"{_number(abs(value))} deviations {side} its {_mean(feature)}"
        case "count":
            return f"events of this {whose}", f"{number} {past}{ending}"
        case "distinct":
            return f"different {of} of this {whose}", f"{number} {past}{ending}"
        case "new":
            return of, f"not seen with this {whose} in {days}" if value else f"seen with this {whose} before"
        case "since":
            return f"last event of this {whose}", f"{_minutes(value)} before"
        case "last" | "gap" | "code":
            return _say_event(feature, value, number, of, whose)
        case "distance":
            return f"place of this {whose}", f"{number} km from the last"
        case "speed":
            return f"travel of this {whose}", f"{number} km/h since the last place"
        case "risk":
            return f"known fraud of this {whose}", f"{_number(100 * value)} % {past}{ending}"
        case "frauds":
            return f"known fraud of this {whose}", f"{number} {past}{ending}"
    return f"{STATISTICS[feature.measure]} {of} of this {whose}", f"{number} {past}{ending}"


def title(feature: Feature) -> str:
    """What is measured, where no value says it: a ratio of the amount is missing, and the amount itself is there.

    >>> title(*Feature.parse("zscore of amount by card_id over 30d"))
    'deviation of amount from its 30-day mean of card_id'
    """
    whose, of = " and ".join(feature.by), ", ".join(feature.of)
    match feature.measure:
        case "ratio":
            return f"ratio of {of} to its {_mean(feature)}"
        case "zscore":
            return f"deviation of {of} from its {_mean(feature)}"
        case "new":
            return f"whether {of} is new with this {whose}"
    return say(feature, 0.0)[0]


def title_with_window(feature: Feature) -> str:
    """What is measured and over how long, so that no two features of a table are called the same.

    >>> title_with_window(*Feature.parse("risk by shop over 7d delay 7d"))
    'known fraud of this shop, 7 days that end 7 days before'
    >>> title_with_window(*Feature.parse("ratio of amount by card over 30d"))
    'ratio of amount to its 30-day mean of card'
    """
    if feature.measure in ("ratio", "zscore"):
        return title(feature)
    ending = f" {_that_ends(feature)}" if feature.delay else ""
    return f"{title(feature)}, {_plural(feature.window)}{ending}"


def _mean(feature: Feature) -> str:
    """The mean that an amount is compared with, and when it ends if that is not just before.

    >>> _mean(*Feature.parse("ratio of due by customer over 45d delay 342d"))
    '45-day mean of customer that ends 342 days before'
    """
    ending = f" that ends {_plural(feature.delay)} before" if feature.delay else ""
    return f"{spoken(feature.window)} mean of {' and '.join(feature.by)}{ending}"


def _that_ends(feature: Feature) -> str:
    is_one = _plural(feature.window).startswith("1 ")
    return f"that {'ends' if is_one else 'end'} {_plural(feature.delay)} before"


def _of_column(reason: Reason, names: Mapping[str, ColumnWords]) -> Reason:
    """A column's own value; of a date "birth weekday" goes by the name of "birth"."""
    column = next((each for each in (reason.feature, *reason.columns) if each in names), None)
    if column is None or not (reason.feature == column or reason.feature.startswith(f"{column} ")):
        return reason
    words = names[column]
    name = f"{words.name or column}{reason.feature.removeprefix(column)}"
    is_value = bool(words.unit) and reason.feature == column
    observed, expected = (
        _with_unit(each, words.unit if is_value else "") for each in (reason.observed, reason.expected)
    )
    return replace(reason, feature=name, observed=observed, expected=expected)


def _with_unit(text: str, unit: str) -> str:
    """A number with its unit; what is no number, such as "missing", as it is."""
    number = _NUMBER.fullmatch(text) if unit else None
    return text if number is None else f"{number[1]} {unit}{number[2] or ''}"


def _of_calendar(reason: Reason, time: str | None, names: Mapping[str, ColumnWords]) -> Reason:
    reason = replace(reason, columns=(*reason.columns, *(() if time is None else (time,))))
    if reason.feature not in FLAGS:
        return reason
    no, yes = FLAGS[reason.feature]
    observed, other = (yes, no) if reason.observed == "1" else (no, yes)
    name = names.get(str(time), NO_WORDS).name or "time"
    return replace(reason, feature=name, observed=observed, expected=other)


def _say_event(feature: Feature, value: float, number: str, of: str, whose: str) -> tuple[str, str]:
    if feature.measure == "gap":
        return f"time between events of this {whose} {_ago(feature.back - 1)}", _minutes(value)
    observed = "out of order" if feature.measure == "code" else number
    return f"{of} of this {whose} {_ago(feature.back)}", observed


def _of_history(reason: Reason, feature: Feature, names: Mapping[str, ColumnWords]) -> Reason:
    reason = replace(reason, columns=(*feature.of, feature.name))
    unit = names.get(feature.of[0], NO_WORDS).unit if feature.measure in IN_UNIT else ""
    expected = "" if feature.measure in ("new", "code") else _with_unit(reason.expected, unit)
    if expected and feature.measure in ("risk", "since"):
        expected = _in_unit(expected, feature.measure)
    feature = renamed(feature, names)
    try:
        value = _read(reason.observed)
    except ValueError:
        return replace(reason, feature=title(feature), expected=expected)
    name, observed = say(feature, value, unit=unit)
    return replace(reason, feature=name, observed=observed, expected=expected, is_phrase=" " in observed)


def _in_unit(expected: str, measure: str) -> str:
    try:
        value = _read(expected.removeprefix("about "))
    except ValueError:
        return expected
    return f"about {_number(100 * value)} %" if measure == "risk" else f"about {_minutes(value)}"


def _read(text: str) -> float:
    """A number as reasons write it, its thousands apart.

    >>> _read("12,950.25")
    12950.25
    """
    return float(text.replace(",", ""))


def _number(value: float) -> str:
    if abs(value) >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 1 else f"{value:.2g}"


def _ago(back: int) -> str:
    return "now" if back == 0 else "1 event before" if back == 1 else f"{back} events before"


def _plural(length: int) -> str:
    number, _, unit = spoken(length).partition("-")
    return f"{number} {unit}" if number == "1" else f"{number} {unit}s"


def _minutes(value: float) -> str:
    if value >= 2 * 24 * 60:
        return f"{value / 24 / 60:.0f} days"
    if value >= 120:
        return f"{value / 60:.0f} hours"
    return "less than a minute" if value < 1 else f"{value:.0f} minute{'' if round(value) == 1 else 's'}"
