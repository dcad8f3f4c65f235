"""Features in words."""

import json

import pytest

from detector.explain.reason import Reason, about, number
from detector.features import ColumnWords, Feature, Wording, in_own_words
from detector.features.words import say


@pytest.mark.parametrize(
    ("line", "value", "text"),
    [
        ("ratio of amount by card over 30d", 5.2, "amount 5.2 times its 30-day mean of card"),
        (
            "ratio of due by card over 45d delay 342d",
            0.4,
            "due 0.4 times its 45-day mean of card that ends 342 days before",
        ),
        (
            "zscore of due by card over 7d delay 1d",
            3,
            "due 3 deviations above its 7-day mean of card that ends 1 day before",
        ),
        ("zscore of amount by card over 30d", -4.1, "amount 4.1 deviations below its 30-day mean of card"),
        ("count by card over 1h", 12, "events of this card 12 in the hour before"),
        ("count by card over 7d delay 7d", 3, "events of this card 3 in the 7 days that end 7 days before"),
        ("distinct of shop by card over 1d", 9, "different shop of this card 9 in the day before"),
        ("new of device by card over 90d", 0, "device seen with this card before"),
        ("since by card over 90d", 0.5, "last event of this card less than a minute before"),
        ("since by card over 90d", 600, "last event of this card 10 hours before"),
        ("since by card over 90d", 9000, "last event of this card 6 days before"),
        ("speed of lat, lon by card over 1d", 950, "travel of this card 950 km/h since the last place"),
        ("distance of lat, lon by card over 1d", 12.3, "place of this card 12.3 km from the last"),
        ("risk by shop over 28d delay 7d", 0.12, "known fraud of this shop 12 % in the 28 days that end 7 days before"),
        ("risk by shop over 1d delay 7d", 0.5, "known fraud of this shop 50 % in the day that ends 7 days before"),
        ("sum of amount by card over 7d", 20, "sum of amount of this card 20 in the 7 days before"),
        ("frauds by shop over 28d", 2, "known fraud of this shop 2 in the 28 days before"),
        ("last 1 of amount by card over 7d", 12.5, "amount of this card 1 event before 12.5"),
        ("gap 1 by card over 7d", 3, "time between events of this card now 3 minutes"),
        ("max of amount by card over 7d", 1234.5, "largest amount of this card 1,234 in the 7 days before"),
    ],
)
def test_every_measure_can_say_itself(line, value, text):
    """What was measured and its value read as a sentence."""
    assert " ".join(say(*Feature.parse(line), value)) == text


def test_reasons_keep_what_is_no_feature():
    """Other columns speak for themselves; a missing value stays missing; a share is said in per cent."""
    lines = ("ratio of amount by card over 30d", "risk by shop over 28d", "since by card over 90d")
    features = [feature for line in lines for feature in Feature.parse(line)]
    reasons = [
        Reason("country", "BR", "DE", 0.5),
        Reason(features[0].name, "missing", "about 1", 0.3),
        Reason(features[1].name, "0.12", "about 0.01", 0.2),
        Reason(features[2].name, "3", "about 1440", 0.1),
    ]

    said = in_own_words(reasons, features)

    assert said[0] == reasons[0]
    assert said[1].text == "ratio of amount to its 30-day mean of card missing, expected about 1; 30 % of the risk"
    assert said[2].text == "known fraud of this shop 12 % in the 28 days before, expected about 1 %; 20 % of the risk"
    assert said[3].text == "last event of this card 3 minutes before, expected about 24 hours; 10 % of the risk"


@pytest.mark.parametrize(
    ("line", "value", "typical", "text"),
    [
        ("since by card over 90d", 4320.5, 12345.0, "last event of this card 3 days before, expected about 9 days"),
        ("since by card over 90d", 86400.0, 1500.0, "last event of this card 60 days before, expected about 25 hours"),
        ("speed of lat, lon by card over 1d", 3661.6, 40.0, "travel of this card 3,662 km/h since the last place"),
        ("max of amount by card over 1d", 2950.25, 1200.0, "largest amount of this card 2,950 in the day before"),
    ],
)
def test_large_values_keep_their_words(line: str, value: float, typical: float, text: str) -> None:
    """Reasons arrive with their thousands apart, and are read as the numbers they are."""
    (feature,) = Feature.parse(line)

    (said,) = in_own_words([Reason(feature.name, number(value, 2), about(typical, 2), 0.5)], [feature])

    assert said.text.startswith(text)


def test_flags_of_the_calendar_are_said_as_times():
    """Nobody reads "night 1"; a column of that name that is no calendar feature stays what it is."""
    reasons = [Reason("night", "1", "about 0", 0.6), Reason("weekend", "0", "about 1", 0.4)]

    said = in_own_words(reasons, [], calendar=["night", "weekend", "hour"])

    assert said[0].text == "time at night, expected by day; 60 % of the risk"
    assert said[1].text == "time on a working day, expected on a weekend; 40 % of the risk"
    assert in_own_words(reasons, []) == reasons


NAMES = {"amount": ColumnWords("payment", "EUR"), "card_id": ColumnWords("card"), "birth": ColumnWords("date of birth")}


@pytest.mark.parametrize(
    ("reason", "text"),
    [
        (Reason("amount", "950.00", "about 42", 0.5), "payment 950.00 EUR, expected about 42 EUR"),
        (Reason("amount", "missing", "about 42", 0.5), "payment missing, expected about 42 EUR"),
        (Reason("birth weekday", "Monday", "", 0.5, columns=("birth",)), "date of birth weekday Monday"),
        (Reason("amount", "1.67 at worst", "about 4", 0.5), "payment 1.67 EUR at worst, expected about 4 EUR"),
        (Reason("amount", "no reading", "", 0.5), "payment no reading"),
        (Reason("shop", "fuel", "books", 0.5), "shop fuel, expected books"),
        (Reason("births", "3", "", 0.5), "births 3"),
        (
            Reason("amount_mean_1d_by_card_id", "120.50", "about 30", 0.5),
            "mean payment of this card 120 EUR in the day before, expected about 30 EUR",
        ),
        (
            Reason("amount_ratio_30d_by_card_id", "5.2", "about 1.1", 0.5),
            "payment 5.2 times its 30-day mean of card, expected about 1.1",
        ),
    ],
)
def test_columns_go_by_the_names_that_people_have_for_them(reason: Reason, text: str) -> None:
    """A name and a unit stand in the place of the column's, also inside features; what may be masked stays known."""
    features = Feature.parse("mean of amount by card_id over 1d") + Feature.parse("ratio of amount by card_id over 30d")

    (said,) = in_own_words([reason], features, names=NAMES)

    assert said.text == f"{text}; 50 % of the risk"
    assert set(reason.columns) <= set(said.columns) | {reason.feature}
    assert {"payment", "card"}.isdisjoint(said.columns)


def test_wording_survives_json() -> None:
    """The logged model words reasons as the configuration did."""
    wording = Wording(tuple(Feature.parse("risk by shop over 7d delay 7d")), ("night",), "at", NAMES)

    assert Wording.from_dict(json.loads(json.dumps(wording.to_dict()))) == wording
