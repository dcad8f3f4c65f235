"""The isolation forest as arrays and as an ONNX tree ensemble."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.ensemble import IsolationForest

from detector.members.isolation_forest import Trees
from detector.onnx.graph import Graph
from detector.onnx.text import join


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(2000, 6)).astype(np.float32)


@pytest.fixture(scope="module", params=[1.0, 0.5], ids=["all columns", "half the columns"])
def forest(request: pytest.FixtureRequest, rows: np.ndarray) -> IsolationForest:
    return IsolationForest(n_estimators=60, max_features=request.param, random_state=0).fit(rows)


def test_tree_ensemble_scores_like_scikit_learn(forest: IsolationForest, rows: np.ndarray) -> None:
    """-2 ** forest is scikit-learn's score_samples, also on rows that lie exactly on a threshold."""
    trees = Trees.from_forest(forest)
    at_threshold = np.repeat(trees.threshold[0, :50, None], 6, axis=1)
    both = np.vstack([rows, at_threshold])

    scores = Graph(join({"forest": trees.to_onnx()}, ["forest"])).run({"table": both})["forest"][:, 0]

    assert np.abs(-(2.0 ** scores.astype(float)) - forest.score_samples(both)).max() < 1e-6


def test_contributions_add_up_to_the_score(forest: IsolationForest, rows: np.ndarray) -> None:
    """Over the columns, contributions sum to how much shorter than usual the row's paths are."""
    trees = Trees.from_forest(forest)
    scores = Graph(join({"forest": trees.to_onnx()}, ["forest"])).run({"table": rows[:100]})["forest"][:, 0]
    usual = trees.depth[:, 0].mean() / trees.normaliser

    total = trees.contributions(rows[:100]).sum(axis=1)

    assert np.allclose(total, usual + scores, atol=1e-5)


def test_contributions_name_the_column_that_isolates(forest: IsolationForest) -> None:
    """A row that is odd in one column is isolated by that column."""
    odd = np.zeros((1, 6), dtype=np.float32)
    odd[0, 4] = 9.0

    assert Trees.from_forest(forest).contributions(odd)[0].argmax() == 4


def test_trees_state_survives_a_round_trip(forest: IsolationForest, rows: np.ndarray) -> None:
    """Restored trees explain alike."""
    trees = Trees.from_forest(forest)

    restored = Trees.from_state(trees.state())

    assert np.array_equal(restored.contributions(rows[:10]), trees.contributions(rows[:10]))
