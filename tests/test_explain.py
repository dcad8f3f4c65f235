"""Risk → reasons, and reasons in words."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from detector.errors import SettingError
from detector.explain.reason import (
    Reason,
    about,
    clock,
    in_words,
    most_telling,
    number,
    risk_shares,
    top_features,
    weekday,
)

PARTS = arrays(np.float64, (4, 3), elements=st.floats(-1e6, 1e6))
EXCESS = arrays(np.float64, 4, elements=st.floats(-10, 1e4))


@pytest.mark.parametrize(
    ("reason", "text"),
    [
        (Reason("amount", "950.00", "about 42", 0.61), "amount 950.00, expected about 42; 61 % of the risk"),
        (Reason("country", "unseen", "de", 1.0), "country unseen, expected de; 100 % of the risk"),
        (Reason("note", "missing", "", 0.024), "note missing; 2 % of the risk"),
    ],
)
def test_reason_reads_as_a_sentence(reason: Reason, text: str) -> None:
    """Feature, observed, expected if known, share in whole per cent."""
    assert reason.text == text


def test_reasons_stand_on_one_line() -> None:
    """One cell of a table or one line of a log."""
    reasons = [Reason("a", "1", "about 2", 0.7), Reason("b", "x", "y", 0.3)]

    assert in_words(reasons) == "a 1, expected about 2; 70 % of the risk | b x, expected y; 30 % of the risk"
    assert in_words([]) == ""


@given(forest=PARTS, density=PARTS, excess=EXCESS)
def test_shares_of_the_risk_sum_to_one(forest: np.ndarray, density: np.ndarray, excess: np.ndarray) -> None:
    """Whatever the members say, no share is negative and together they are the whole."""
    shares = risk_shares({"forest": forest, "density": density}, {"forest": excess, "density": excess[::-1]})

    assert (shares >= 0).all()
    assert np.allclose(shares.sum(axis=1), 1.0)


def test_member_speaks_as_loud_as_it_adds_to_the_risk() -> None:
    """Of two members that blame different features, the one that adds three times the risk has three times the say."""
    blame = {"forest": np.array([[1e-3, 0.0]]), "density": np.array([[0.0, 500.0]])}

    shares = risk_shares(blame, {"forest": np.array([3.0]), "density": np.array([1.0])})

    assert np.allclose(shares, [[0.75, 0.25]])


def test_member_that_lowers_the_risk_has_no_say() -> None:
    """It found the row usual, so what it says about features is noise."""
    blame = {"forest": np.array([[1.0, 0.0]]), "density": np.array([[0.0, 1.0]])}

    shares = risk_shares(blame, {"forest": np.array([2.0]), "density": np.array([-5.0])})

    assert np.allclose(shares, [[1.0, 0.0]], atol=1e-8)


def test_attribution_is_shared_alike_where_nobody_names_a_feature() -> None:
    """No feature adds anything: all are equally little to blame, and nothing is divided by zero."""
    shares = risk_shares({"forest": np.array([[-1.0, 0.0]])}, {"forest": np.array([0.0])})

    assert shares.tolist() == [[0.5, 0.5]]


def test_a_reason_that_says_nothing_is_not_given() -> None:
    """Friday where Friday was expected explains nothing; but a row always has one reason."""
    empty = [Reason("weekday", "Friday", "Friday", 0.5), Reason("payments", "0.00", "about 0", 0.3)]
    large = Reason("amount", "950.00", "about 42", 0.2)

    assert most_telling([*empty, large, large], 1) == [large]
    assert most_telling(empty, 3) == empty[:1]


@pytest.mark.parametrize("code", ["5411", "00000413", "1e5", "-0.50"])
def test_a_code_that_is_as_expected_is_no_reason(code: str) -> None:
    """An account of digits was told as "00000413, expected 00000413", before what was odd about the row."""
    large = Reason("amount", "950.00", "about 42", 0.2)

    assert most_telling([Reason("account", code, code, 0.5), large], 2) == [large]


def test_top_features_come_largest_first() -> None:
    """At most ``top``, none below the least share, and the earlier of equals first."""
    shares = np.array([[0.1, 0.6, 0.3], [0.01, 0.98, 0.01], [0.4, 0.2, 0.4]])

    assert top_features(shares, 2) == [[1, 2], [1], [0, 2]]
    assert top_features(shares, 5) == [[1, 2, 0], [1], [0, 2, 1]]


def test_top_features_name_at_least_one() -> None:
    """A row whose risk is spread over a hundred features still gets a reason."""
    assert top_features(np.full((1, 100), 0.01), 3) == [[0]]


@pytest.mark.parametrize("top", [0, -1])
def test_top_features_refuse_to_name_none(top: int) -> None:
    """No reasons is said by not asking."""
    with pytest.raises(SettingError, match=f"top must be at least 1. Received: top={top}"):
        top_features(np.ones((1, 2)), top)


@pytest.mark.parametrize(
    ("value", "decimals", "text"),
    [
        (950.0, 2, "950.00"),
        (3.0, 0, "3"),
        (-0.125, 3, "-0.125"),
        (1e9 + 0.25, 2, "1,000,000,000.25"),
        (np.nan, 2, "missing"),
    ],
)
def test_observed_number_has_the_digits_of_its_column(value: float, decimals: int, text: str) -> None:
    """As the table writes it; a missing one says so."""
    assert number(value, decimals) == text


@pytest.mark.parametrize(
    ("value", "decimals", "text"),
    [
        (41.87, 2, "about 42"),
        (4.187, 2, "about 4.2"),
        (0.0312, 3, "about 0.031"),
        (187.4, 2, "about 187"),
        (123456.0, 0, "about 123,000"),
        (-41.87, 2, "about -42"),
        (9.96, 1, "about 10.0"),
        (0.4, 0, "about 0"),
        (-0.004, 2, "about 0"),
        (0.0, 3, "about 0"),
        (np.nan, 2, "a value"),
        (np.inf, 2, "a value"),
    ],
)
def test_expected_number_is_no_more_exact_than_the_model(value: float, decimals: int, text: str) -> None:
    """Two or three digits, never more than the column has."""
    assert about(value, decimals) == text


@pytest.mark.parametrize(
    ("hours", "text"), [(0.0, "00:00"), (3.25, "03:15"), (23.999, "00:00"), (13.5, "13:30"), (np.nan, "missing")]
)
def test_hours_read_as_a_clock(hours: float, text: str) -> None:
    """A day has 24 hours, and the last half minute belongs to the next."""
    assert clock(hours) == text


@pytest.mark.parametrize(("days", "text"), [(0.0, "Monday"), (5.9, "Saturday"), (6.99, "Sunday"), (np.nan, "missing")])
def test_days_read_as_weekdays(days: float, text: str) -> None:
    """Monday first; the part of the day behind the point counts as nothing."""
    assert weekday(days) == text
