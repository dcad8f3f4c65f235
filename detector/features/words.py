"""A feature in words: "5.2 times its 30-day mean" in place of "amount_ratio_30d_by_card_id 5.20"."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from detector.features.duration import spoken
from detector.features.feature import Feature

if TYPE_CHECKING:
    from detector.explain.reason import Reason

FLAGS = {"night": ("by day", "at night"), "weekend": ("on a working day", "on a weekend")}
STATISTICS = {"mean": "mean", "std": "deviation", "max": "largest", "sum": "sum"}


def in_own_words(
    reasons: Sequence[Reason], features: Iterable[Feature], *, calendar: Sequence[str] = (), time: str | None = None
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

    >>> from detector.explain.reason import Reason
    >>> (feature,) = Feature.parse("ratio of amount by card_id over 30d")
    >>> (reason,) = in_own_words([Reason(feature.name, "5.20", "about 1.1", 0.61)], [feature])
    >>> reason.text
    'amount 5.2 times its 30-day mean of card_id, expected about 1.1; 61 % of the risk'
    """
    known = {feature.name: feature for feature in features}
    return [
        _of_history(reason, known[reason.feature])
        if reason.feature in known
        else _of_calendar(reason, time)
        if reason.feature in calendar
        else reason
        for reason in reasons
    ]


def say(feature: Feature, value: float) -> tuple[str, str]:
    """What was measured, and its value, in words.

    >>> say(*Feature.parse("since by card_id over 90d"), 3.0)
    ('last event of this card_id', '3 minutes before')
    >>> say(*Feature.parse("new of device by card_id over 90d"), 1.0)
    ('device', 'not seen with this card_id in 90 days')
    """
    whose, of, span = " and ".join(feature.by), ", ".join(feature.of), spoken(feature.window)
    days = _plural(feature.window)
    past = f"in the {days.removeprefix('1 ')}"
    ending = f" that end {_plural(feature.delay)} before" if feature.delay else " before"
    number = _number(value)
    match feature.measure:
        case "ratio":
            return of, f"{number} times its {span} mean of {whose}"
        case "zscore":
            side = "above" if value >= 0 else "below"
            return of, f"{_number(abs(value))} deviations {side} its {span} mean of {whose}"
        case "count":
            return f"events of this {whose}", f"{number} {past}{ending}"
        case "distinct":
            return f"different {of} of this {whose}", f"{number} {past}{ending}"
        case "new":
            return of, f"not seen with this {whose} in {days}" if value else f"seen with this {whose} before"
        case "since":
            return f"last event of this {whose}", f"{_minutes(value)} before"
        case "last" | "gap" | "code":
            return _say_event(feature, value, of, whose)
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
            return f"ratio of {of} to its {spoken(feature.window)} mean of {whose}"
        case "zscore":
            return f"deviation of {of} from its {spoken(feature.window)} mean of {whose}"
        case "new":
            return f"whether {of} is new with this {whose}"
    return say(feature, 0.0)[0]


def _of_calendar(reason: Reason, time: str | None) -> Reason:
    reason = replace(reason, columns=(*reason.columns, *(() if time is None else (time,))))
    if reason.feature not in FLAGS:
        return reason
    no, yes = FLAGS[reason.feature]
    observed, other = (yes, no) if reason.observed == "1" else (no, yes)
    return replace(reason, feature="time", observed=observed, expected=other)


def _say_event(feature: Feature, value: float, of: str, whose: str) -> tuple[str, str]:
    if feature.measure == "gap":
        return f"time between events of this {whose} {_ago(feature.back - 1)}", _minutes(value)
    observed = "out of order" if feature.measure == "code" else _number(value)
    return f"{of} of this {whose} {_ago(feature.back)}", observed


def _of_history(reason: Reason, feature: Feature) -> Reason:
    reason = replace(reason, columns=(*feature.of, feature.name))
    expected = "" if feature.measure in ("new", "code") else reason.expected
    if expected and feature.measure in ("risk", "since"):
        expected = _in_unit(expected, feature.measure)
    try:
        value = float(reason.observed)
    except ValueError:
        return replace(reason, feature=title(feature), expected=expected)
    name, observed = say(feature, value)
    return replace(reason, feature=name, observed=observed, expected=expected, is_phrase=" " in observed)


def _in_unit(expected: str, measure: str) -> str:
    try:
        value = float(expected.removeprefix("about "))
    except ValueError:
        return expected
    return f"about {_number(100 * value)} %" if measure == "risk" else f"about {_minutes(value)}"


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
