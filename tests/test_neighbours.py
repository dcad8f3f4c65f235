"""Distances to reference rows."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from detector.errors import SettingError
from detector.members.neighbours import References


@pytest.mark.parametrize("k", [1, 5])
@pytest.mark.parametrize("n_references", [3, 40, 1003])
def test_score_is_the_mean_distance_to_the_nearest(k: int, n_references: int) -> None:
    """As scikit-learn measures it, with fewer references than neighbours too; a reference is left out of its own."""
    rng = np.random.default_rng(1)
    references = References.fit(rng.normal(size=(n_references, 4)).astype(np.float32), references=5_000, k=k)
    rows = rng.normal(size=(3_000, 4)).astype(np.float32)
    others = min(k, n_references - 1)

    found = references.score(rows)
    own = references.score(references.rows, np.arange(n_references))

    nearest = NearestNeighbors(n_neighbors=min(k, n_references)).fit(references.rows)
    assert np.allclose(found, nearest.kneighbors(rows)[0].mean(axis=1), atol=2e-4)
    assert np.allclose(own, nearest.kneighbors(None, n_neighbors=others)[0].mean(axis=1), atol=2e-4)


def test_references_keep_a_bounded_sample() -> None:
    """Of many rows, so many are kept, the same for the same seed."""
    rows = np.arange(1000, dtype=np.float32)[:, None]

    first = References.fit(rows, references=50, random_state=3)

    assert len(first.rows) == 50
    assert np.array_equal(first.rows, References.fit(rows, references=50, random_state=3).rows)
    assert not np.array_equal(first.rows, References.fit(rows, references=50, random_state=4).rows)


@pytest.mark.parametrize(("references", "k"), [(0, 5), (5, 0)])
def test_references_refuse_none(references: int, k: int) -> None:
    """No reference or no neighbour means nothing."""
    with pytest.raises(SettingError, match="must be at least 1"):
        References.fit(np.zeros((3, 1), dtype=np.float32), references=references, k=k)


@pytest.mark.parametrize("k", [1, 5])
def test_differences_are_from_the_nearest(k: int) -> None:
    """Row by row, whatever the number of rows: the mean of the k nearest references, found the obvious way."""
    rng = np.random.default_rng(1)
    references = References.fit(rng.normal(size=(400, 7)).astype(np.float32), k=k)
    rows = rng.normal(size=(600, 7)).astype(np.float32)

    found = references.differences(rows)

    nearest = np.argsort(references.squared_distances(rows), axis=1)[:, :k]
    assert np.allclose(found, (rows - references.rows[nearest].mean(axis=1)) ** 2, atol=1e-5)
    assert references.differences(rows[:0]).shape == (0, 7)
