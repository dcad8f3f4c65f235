"""Member scores → one risk."""

from __future__ import annotations

import numpy as np
import pytest

from detector.decide.fuse import Fusion
from detector.errors import ShapeError


@pytest.fixture
def fusion() -> Fusion:
    scores = np.random.default_rng(0).normal([3.0, -1.0, 10.0], [2.0, 0.5, 4.0], size=(5000, 3))
    return Fusion.fit(scores, ("a", "b", "new")).weighted({"a": 0.5, "b": 0.5, "new": 3.0}, {"new": 0.5})


def test_fusion_makes_members_comparable(fusion: Fusion) -> None:
    """A held-out row has a mean of 0 and a deviation of 1 in every member, whatever its unit."""
    z = fusion.standardise(np.array([[3.0, -1.0, 10.0], [5.0, -0.5, 14.0]]))

    assert np.allclose(z, [[0, 0, 0], [1, 1, 1]], atol=0.05)


def test_risk_counts_a_member_only_beyond_its_hinge(fusion: Fusion) -> None:
    """Below it, a row is ranked by the others alone."""
    known = fusion.risk(np.array([[1.0, 3.0, -5.0], [1.0, 3.0, 0.5]]))
    new = fusion.risk(np.array([[1.0, 3.0, 2.5]]))

    assert known.tolist() == [2.0, 2.0]
    assert new.tolist() == [8.0]


def test_contributions_add_up_to_the_risk(fusion: Fusion) -> None:
    """Each member's part; together the risk."""
    z = np.random.default_rng(1).normal(size=(50, 3))

    assert np.allclose(fusion.contributions(z).sum(axis=1), fusion.risk(z))


def test_fusion_survives_a_member_that_never_varies() -> None:
    """A constant score becomes z = 0, not infinity."""
    fusion = Fusion.fit(np.ones((10, 1)), ("a",))

    assert fusion.standardise(np.ones((2, 1))).tolist() == [[0.0], [0.0]]


def test_fusion_refuses_a_wrong_number_of_columns(fusion: Fusion) -> None:
    """One column a member."""
    with pytest.raises(ShapeError, match=r"one column for each of a, b, new, got an array of shape \(2, 2\)"):
        fusion.standardise(np.ones((2, 2)))


def test_fusion_state_survives_a_round_trip(fusion: Fusion) -> None:
    """A restored fusion gives the same risk."""
    z = np.random.default_rng(2).normal(size=(20, 3))

    assert np.array_equal(Fusion.from_state(fusion.state()).risk(z), fusion.risk(z))


def test_members_without_a_weight_count_alike() -> None:
    """Together 1, so that the risk of one member is its z-score."""
    fusion = Fusion.fit(np.random.default_rng(0).normal(size=(100, 4)), ("a", "b", "c", "d"))

    assert fusion.weights.tolist() == [0.25] * 4


def test_fusion_reads_the_kinds_of_version_0_1() -> None:
    """Rarity was averaged, novelty counted beyond half a deviation, order twice and far out."""
    fusion = Fusion.from_state(
        {
            "members": ["forest", "neighbours", "novelty", "sequence"],
            "kinds": ["rarity", "rarity", "novelty", "order"],
            "novelty_weight": 3.0,
            "hinge": 0.5,
            "location": [0.0] * 4,
            "scale": [1.0] * 4,
        }
    )

    assert fusion.risk(np.array([[1.0, 3.0, -5.0, 3.0], [1.0, 3.0, 2.5, 3.5]])).tolist() == [2.0, 9.0]
