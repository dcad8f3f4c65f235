"""What each member counts, learnt from spoilt normal rows."""

from __future__ import annotations

import numpy as np
import pytest

from detector.arrays import Floats
from detector.detectors.table.weighing import learn_weights, prior_weights, spoil
from detector.encoding.encoded import Encoded


def rows(n: int = 400, seed: int = 0) -> Encoded:
    """Two numbers that go together, and a category that goes with them."""
    rng = np.random.default_rng(seed)
    a = rng.normal(size=n)
    codes = np.where(a > 0, 2, 3)[:, None].astype(np.int64)
    return Encoded(np.column_stack([a, a + 0.1 * rng.normal(size=n)]), codes)


def sees(given: Encoded) -> Floats:
    """One member that knows how the columns go together, and one that knows nothing."""
    broken = np.abs(given.numeric[:, 1] - given.numeric[:, 0]) + (
        given.codes[:, 0] != np.where(given.numeric[:, 0] > 0, 2, 3)
    )
    nothing = np.sin(1e6 * given.numeric[:, 0])
    return np.column_stack([broken, nothing])


def test_a_member_that_sees_counts_more_than_one_that_does_not() -> None:
    """From equal priors; the evidence and its spread are kept."""
    found = learn_weights(rows(), sees, ("neighbours", "contraction"), random_state=0)

    assert found.weights["neighbours"] > 0.55
    assert sum(found.weights.values()) == pytest.approx(1)
    assert found.power["neighbours"]["shuffled"] > 0.9
    assert found.power["contraction"]["shuffled"] == pytest.approx(0.5, abs=0.1)
    assert 0 < found.spread["neighbours"] < 0.1
    assert {"weight_neighbours", "weight_spread_neighbours", "power_neighbours_shuffled"} <= set(found.facts())


def test_weights_hold_still_over_seeds() -> None:
    """Other spoilt rows, the same weights up to their spread."""
    found = [learn_weights(rows(), sees, ("neighbours", "contraction"), random_state=seed).weights for seed in range(4)]

    assert np.std([each["neighbours"] for each in found]) < 0.05


@pytest.mark.parametrize(("n", "members"), [(10, ("neighbours", "contraction")), (400, ("forest",))])
def test_too_little_evidence_leaves_the_prior(n: int, members: tuple[str, ...]) -> None:
    """Ten rows say nothing; of one member there is nothing to say."""
    found = learn_weights(rows(n), lambda given: sees(given)[:, : len(members)], members, random_state=0)

    assert found.weights == prior_weights(members)
    assert found.power == {}


def test_spoilt_rows_are_as_many_and_of_the_same_columns() -> None:
    """A shuffled column keeps its values, a scaled row its categories, and every row is spoilt somewhere."""
    normal = rows()

    made = spoil(normal, np.random.default_rng(0))

    assert set(made) == {"shuffled", "many_cells", "few_cells", "rare", "jitter", "tails", "scaled"}
    assert all(each.numeric.shape == (400, 2) and each.codes.shape == (400, 1) for each in made.values())
    assert np.array_equal(np.sort(made["shuffled"].numeric, axis=0), np.sort(normal.numeric, axis=0))
    assert np.array_equal(made["scaled"].codes, normal.codes)
    assert (made["tails"].numeric != normal.numeric).any(axis=1).all()


def test_rows_without_numbers_are_spoilt_in_their_categories_alone() -> None:
    """There is no jitter of a colour."""
    made = spoil(Encoded(np.zeros((30, 0)), np.random.default_rng(0).integers(2, 5, (30, 3))), np.random.default_rng(0))

    assert set(made) == {"shuffled", "many_cells", "few_cells", "rare"}


@pytest.mark.parametrize("missing", [50, 400])
def test_missing_numbers_stay_missing(missing: int) -> None:
    """Nothing is invented where there was no value, and nothing printed where there is none at all."""
    normal = rows()
    normal.numeric[:missing, 0] = np.nan

    made = spoil(normal, np.random.default_rng(0))

    assert np.isnan(made["jitter"].numeric[:missing, 0]).all()
    assert np.isnan(made["tails"].numeric[:missing, 0]).all()


@pytest.mark.parametrize(("agreement", "forest"), [(0.5, 0.02 / 1.12), (0.7, 0.26 / 1.56), (0.9, 0.25)])
def test_forest_and_autoencoder_count_where_the_forest_agrees_with_neighbours(agreement: float, forest: float) -> None:
    """From next to nothing to as much as each of the others, and nothing jumps between."""
    members = ("autoencoder", "forest", "neighbours", "contraction")

    assert prior_weights(members, agreement=agreement)["forest"] == pytest.approx(forest)


def test_agreement_is_that_of_the_ranks_of_normal_rows() -> None:
    """By hand: a forest that ranks rows as the neighbours do, and one that ranks them by chance."""
    members = ("forest", "neighbours", "contraction")

    def score(given: Encoded, *, alike: bool) -> Floats:
        far = np.abs(given.numeric).sum(axis=1)
        return np.column_stack([np.exp(far) if alike else np.sin(1e6 * far), far, far])

    found = [learn_weights(rows(), lambda given, a=a: score(given, alike=a), members, random_state=0) for a in (1, 0)]

    assert found[0].agreement == pytest.approx(1)
    assert abs(found[1].agreement) < 0.2
    assert found[0].weights["forest"] > 5 * found[1].weights["forest"]
    assert found[0].facts()["agreement_forest_neighbours"] == found[0].agreement
