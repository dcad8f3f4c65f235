"""Member scores → one risk."""

from __future__ import annotations

import numpy as np
import pytest

from detector.decide.fuse import Fusion
from detector.errors import ShapeError


@pytest.fixture
def fusion() -> Fusion:
    scores = np.random.default_rng(0).normal([3.0, -1.0, 10.0], [2.0, 0.5, 4.0], size=(5000, 3))
    return Fusion.fit(scores, ("a", "b", "new"), ("rarity", "rarity", "novelty"), novelty_weight=3.0)


def test_fusion_makes_members_comparable(fusion: Fusion) -> None:
    """A held-out row has a mean of 0 and a deviation of 1 in every member, whatever its unit."""
    z = fusion.standardise(np.array([[3.0, -1.0, 10.0], [5.0, -0.5, 14.0]]))

    assert np.allclose(z, [[0, 0, 0], [1, 1, 1]], atol=0.05)


def test_risk_counts_novelty_only_beyond_the_hinge(fusion: Fusion) -> None:
    """A row that training knows is ranked by rarity alone."""
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
    fusion = Fusion.fit(np.ones((10, 1)), ("a",), ("rarity",), novelty_weight=1.0)

    assert fusion.standardise(np.ones((2, 1))).tolist() == [[0.0], [0.0]]


def test_fusion_refuses_a_wrong_number_of_columns(fusion: Fusion) -> None:
    """One column a member."""
    with pytest.raises(ShapeError, match=r"one column for each of a, b, new, got an array of shape \(2, 2\)"):
        fusion.standardise(np.ones((2, 2)))


def test_fusion_state_survives_a_round_trip(fusion: Fusion) -> None:
    """A restored fusion gives the same risk."""
    z = np.random.default_rng(2).normal(size=(20, 3))

    assert np.array_equal(Fusion.from_state(fusion.state()).risk(z), fusion.risk(z))


def test_order_counts_only_far_beyond_what_histories_do() -> None:
    """What the events before a row lead to expect adds nothing until it is missed by far."""
    fusion = Fusion(("row", "sequence"), ("rarity", "order"), np.zeros(2), np.ones(2), 3.0)
    assert fusion.risk(np.array([[1.0, -4.0], [1.0, 3.0], [1.0, 3.5]])).tolist() == [1.0, 1.0, 2.0]
