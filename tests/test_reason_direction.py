"""Reasons speak of what raises suspicion, and of what was measured."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest

from detector.detectors.table.detector import TabularDetector
from detector.explain.reason import Reason
from detector.features import Feature, in_own_words
from detector.features.feature import RISING, is_rising

RISK, SPEED = "risk_28d_by_shop_delay_7d", "latitude_longitude_speed_90d_by_card"
MEMBERS = (("forest", "neighbours"), ("autoencoder", "forest", "neighbours"))


@pytest.fixture(scope="module", params=MEMBERS, ids=len)
def detector(request: pytest.FixtureRequest) -> TabularDetector:
    """Has seen shops of 5 % known fraud and journeys of 80 km/h, and amounts of 40."""
    members: Sequence[str] = request.param
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "amount": rng.normal(40, 5, 600).round(2),
            RISK: rng.normal(0.05, 0.002, 600).round(4),
            SPEED: rng.normal(80, 2, 600).round(1),
        }
    )
    return TabularDetector(members=members, trees=50, random_state=0).fit(table)


def named(detector: TabularDetector, amount: float, risk: float, speed: float) -> list[str]:
    """What the reasons for one row name."""
    (reasons,) = detector.explain(pd.DataFrame({"amount": [amount], RISK: [risk], SPEED: [speed]}))
    assert sum(reason.share for reason in reasons) <= 1 + 1e-9
    return [reason.feature for reason in reasons]


def test_less_fraud_and_a_slower_journey_are_no_reasons(detector: TabularDetector) -> None:
    """Though both are unusual: the amount is, too, and that is why somebody should look."""
    assert named(detector, 70.0, 0.0, 3.0) == ["amount"]
    assert set(named(detector, 40.0, 0.2, 3.0)) <= {RISK, "amount"}
    assert named(detector, 40.0, 0.05, 700.0)[0] == SPEED


def test_row_that_deviates_only_downwards_still_has_a_reason(detector: TabularDetector) -> None:
    """Whatever else there is, or the largest of those."""
    assert named(detector, 40.0, 0.0, 3.0)


def test_rising_features_are_known_by_their_name() -> None:
    """Of every feature a line can make, however its columns are called; of no column that only sounds alike."""
    lines = {
        "count by card_id over 1h": True,
        "distinct of terminal by card over 7d": True,
        "new of device by card_id over 90d": True,
        "speed of lat, lon by card over 90d": True,
        "distance of lat, lon by card over 90d": True,
        "frauds by shop, country over 28d delay 7d": True,
        "risk by shop over 28d delay 7d": True,
        "mean of amount by card over 30d": False,
        "zscore of risk by card over 30d": False,
        "since by card over 90d": False,
        "code 2 of channel by card over 90d": False,
        "mean of count_1h_by_card by shop over 30d": False,
    }
    features = {line: Feature.parse(line)[0] for line in lines}

    assert {line: is_rising(feature.name) for line, feature in features.items()} == lines
    assert all((feature.measure in RISING) == lines[line] for line, feature in features.items())
    assert not any(is_rising(name) for name in ("count", "risk", "speed_by_card", "risk_score", "count_1h"))


@pytest.mark.parametrize(
    ("line", "title"),
    [
        ("zscore of amount by card_id over 30d", "deviation of amount from its 30-day mean of card_id"),
        ("ratio of amount by card_id over 30d", "ratio of amount to its 30-day mean of card_id"),
        ("new of device by card_id over 30d", "whether device is new with this card_id"),
        ("since by card_id over 30d", "last event of this card_id"),
    ],
)
def test_missing_feature_is_not_reported_as_a_missing_column(line: str, title: str) -> None:
    """The amount is there, 3,016; what is missing is how it compares with the card's past."""
    (feature,) = Feature.parse(line)

    (reason,) = in_own_words([Reason(feature.name, "missing", "about 5", 0.5)], [feature])

    assert (reason.feature, reason.observed) == (title, "missing")
    assert feature.name in reason.columns


def test_missing_share_of_fraud_is_expected_in_its_unit() -> None:
    """As where it is there."""
    (feature,) = Feature.parse("risk by shop over 28d delay 7d")

    (reason,) = in_own_words([Reason(feature.name, "missing", "about 0.05", 0.5)], [feature])

    assert reason.expected == "about 5 %"
