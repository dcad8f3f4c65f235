"""What is said of encoders: errors by kind, costs, and what they stand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_array
from sklearn.base import BaseEstimator
from sklearn.decomposition import PCA

from detector.encoders import DenseAutoencoder
from detector.errors import DataError, SettingError
from detector.lab.cost import fit_measured
from detector.lab.damage import contaminated, incomplete, noisy, take, unrelated
from detector.lab.errors import reconstruction_errors
from detector.lab.report import Levels, assess, compare, robustness
from tests.encoder_homes import BRIEF, HOMES, at_home, fresh

FEW = Levels(noise=(0.5,), missing=(0.3,), contamination=(0.3,))


class Linear(BaseEstimator):
    """An encoder without a network: principal components, gaps filled with the mean."""

    def __init__(self, code: int = 2) -> None:
        self.code = code

    def fit(self, X: np.ndarray, y: Any = None) -> Linear:  # noqa: D102
        self.pca_ = PCA(self.code).fit(X)
        self.graph_ = self.decoder_ = SimpleNamespace(content=b"12345")
        self.weights_ = {"0/axes": self.pca_.components_, "1/seed_generator_state": np.zeros(2)}
        self.parity_ = 0.0
        return self

    def reconstruct(self, X: np.ndarray) -> np.ndarray:  # noqa: D102
        filled = np.where(np.isnan(X), self.pca_.mean_, X)
        return self.pca_.inverse_transform(self.pca_.transform(filled))

    def score_samples(self, X: np.ndarray) -> np.ndarray:  # noqa: D102
        return -np.nanmean((X - self.reconstruct(X)) ** 2, axis=1)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags


def plane(seed: int, n: int = 300) -> np.ndarray:
    """Six columns that lie near a plane."""
    axes = np.random.default_rng(0).normal(size=(2, 6))
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 2)) @ axes + rng.normal(0, 0.1, (n, 6))


# Damage


def test_noise_is_measured_in_deviations() -> None:
    """Numbers by their column's own; a share of the codes of a category is exchanged."""
    rows = np.column_stack([np.random.default_rng(0).normal(0, 100, 4000), np.arange(4000) % 4])

    worse = noisy(rows, 0.5, categorical=(1,))

    assert (worse - rows)[:, 0].std() == pytest.approx(50, rel=0.1)
    assert set(np.unique(worse[:, 1])) == {0.0, 1.0, 2.0, 3.0}
    assert np.mean(worse[:, 1] != rows[:, 1]) == pytest.approx(0.5 * 0.75, abs=0.05)


def test_every_form_of_rows_can_be_damaged() -> None:
    """Arrays, CSR arrays, token lists and mappings keep their form; the rows given stay as they are."""
    sparse = csr_array(np.eye(50))
    rows = {"a": np.ones((50, 2)), "b": sparse, "c": [["x", "y"]] * 50}

    lost, noise = incomplete(rows, 0.5), noisy(rows, 0.5)

    assert np.isnan(lost["a"]).mean() == pytest.approx(0.5, abs=0.2)
    assert 10 < lost["b"].sum() < 40
    assert {len(row) for row in lost["c"]} == {0, 1, 2}
    assert 0 < np.abs(noise["b"].diagonal() - 1).mean() < 1
    assert any(row == ["y", "x"] for row in noise["c"])
    assert sparse.sum() == 50
    assert np.array_equal(incomplete(np.ones((2, 2)), 0.999, gap=0.0), np.zeros((2, 2)))


def test_unrelated_rows_keep_what_each_column_holds() -> None:
    """Only what columns have to do with each other is gone."""
    rows = np.column_stack([np.arange(200.0), np.arange(200.0)])
    sparse = csr_array(np.random.default_rng(0).random((200, 5)) < 0.3, dtype=float)

    strange = unrelated({"a": rows, "b": sparse, "c": [[1, 2], [3]] * 100})

    assert np.array_equal(np.sort(strange["a"], axis=0), rows)
    assert abs(np.corrcoef(strange["a"].T)[0, 1]) < 0.2
    assert np.array_equal(strange["b"].sum(axis=0), sparse.sum(axis=0))
    assert (strange["b"] != sparse).nnz > 0
    assert [len(row) for row in strange["c"]] == [2, 1] * 100


def test_contamination_replaces_a_share_of_the_rows() -> None:
    """In every form; at least one row, unless the share is 0."""
    rows = {"a": np.zeros((40, 1)), "b": csr_array((40, 2)), "c": [[0]] * 40}
    strange = {"a": np.ones((10, 1)), "b": csr_array(np.ones((10, 2))), "c": [[1]] * 10}

    mixed = contaminated(rows, strange, 0.1)

    assert mixed["a"].sum() == 4
    assert np.array_equal(mixed["a"][:, 0], mixed["b"].toarray()[:, 0])
    assert [row[0] for row in mixed["c"]] == mixed["a"][:, 0].tolist()
    assert contaminated(rows, strange, 0.001)["a"].sum() == 1
    assert contaminated(rows, strange, 0.0)["a"].sum() == 0
    with pytest.raises(DataError, match="Contaminating 50% of 40 rows needs 20 strange rows, received 10"):
        contaminated(rows, strange, 0.5)


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (lambda: noisy([[1]], -1.0), SettingError, "level must not be negative. Received: level=-1.0"),
        (lambda: incomplete([[1]], 1.0), SettingError, r"share must lie in \[0, 1\). Received: share=1.0"),
        (lambda: noisy(pd.DataFrame({"a": [1.0]}), 0.1), DataError, "a mapping of these, received DataFrame"),
    ],
)
def test_damage_refuses(damage: Any, error: type[Exception], message: str) -> None:
    """Levels without meaning, and rows no encoder takes."""
    with pytest.raises(error, match=message):
        damage()


# Errors


def test_error_of_numbers_is_the_variance_left() -> None:
    """Knowing nothing but the mean is 1, the rows themselves are 0; a gap is not judged."""
    rows = plane(0)
    mean, copy = (
        SimpleNamespace(reconstruct=lambda X, got=got: got) for got in (np.tile(rows.mean(0), (300, 1)), rows)
    )
    gaps = rows.copy()
    gaps[::3, 0] = np.nan

    assert reconstruction_errors(mean, rows)["error"] == pytest.approx(1.0)
    assert reconstruction_errors(copy, rows) == {"error": 0.0, "numbers": 0.0}
    assert reconstruction_errors(copy, gaps)["error"] == 0.0


def test_error_is_given_by_kind_of_column() -> None:
    """A wrong category is not a wrong number; the error is the mean of both."""
    rows = np.array([[1.0, 0.0], [2.0, 1.0], [2.0, 2.0], [1.0, np.nan]])
    got = np.array([[1.0, 0.0], [2.0, 1.0], [1.0, 2.0], [1.0, 5.0]])
    encoder = SimpleNamespace(categorical=(0,), reconstruct=lambda X: got)

    assert reconstruction_errors(encoder, rows) == {"error": 0.125, "numbers": 0.0, "categories": 0.25}


def test_error_of_tokens_counts_places() -> None:
    """A wrong token, one too few and one too many are each a place; of long rows the end counts."""
    answers = [[1, 9], [1], [1, 2, 3], [2, 3]]
    encoder = SimpleNamespace(vocabulary_=SimpleNamespace(length=2), reconstruct=lambda X: answers)

    assert reconstruction_errors(encoder, [[1, 2], [1, 2], [1, 2], [1, 2, 3]])["tokens"] == 3 / 9


@pytest.mark.slow
def test_error_is_given_by_branch() -> None:
    """Each branch of a multimodal encoder, by its own kinds."""
    errors = reconstruction_errors(at_home("multimodal"), fresh("multimodal"))

    assert list(errors) == ["error", "numbers numbers", "window numbers", "codes tokens"]
    assert all(0 <= error < 0.9 for error in errors.values())


# Costs and the report


def test_assessment_says_what_holds() -> None:
    """The gap is the difference of the errors; seeds of generators are no parameters."""
    train, held_out = plane(1), plane(2)

    facts = assess(Linear().fit(train), train, held_out)

    assert 0 < facts["error_train"] < 0.1
    assert 0 < facts["error_held_out"] < 0.1
    assert facts["generalisation_gap"] == facts["error_held_out"] - facts["error_train"]
    assert facts["rows_per_second"] > 0
    assert (facts["size_bytes"], facts["parameters"], facts["parity"]) == (10, 12, 0)


def test_peak_memory_is_that_of_the_fit() -> None:
    """An encoder that needs 200 MiB for a moment needs at least about that."""

    class Hungry(Linear):
        def fit(self, X: np.ndarray, y: Any = None) -> Hungry:
            self.size_ = np.ones(200 * 2**17).size
            return self

    fitted = fit_measured(Hungry(), plane(0))

    assert 150 < fitted.peak_memory_mb < 400
    assert fitted.training_seconds > 0
    assert fit_measured(Linear(), plane(0)).peak_memory_mb < 100


def test_robustness_falls_with_the_damage() -> None:
    """Without damage the ranking is itself; with noise, gaps or dirt it is less so, and strange rows hide."""
    train, held_out = plane(1), plane(2)
    steps: list[tuple[int, int, str]] = []

    found = robustness(
        Linear().fit(train), train, held_out, levels=FEW, on_step=lambda *step: steps.append(step)
    ).set_index(["damage", "level"])

    assert found.index.tolist() == [
        ("noise", 0.0),
        ("noise", 0.5),
        ("missing", 0.0),
        ("missing", 0.3),
        ("contamination", 0.0),
        ("contamination", 0.3),
    ]
    for damage, level in (("noise", 0.5), ("missing", 0.3), ("contamination", 0.3)):
        clean, damaged = found.loc[(damage, 0.0)], found.loc[(damage, level)]
        assert clean["rank_stability"] == pytest.approx(1.0)
        assert clean["error"] < damaged["error"]
        assert damaged["rank_stability"] < 0.95
        assert damaged["auroc"] <= clean["auroc"]
    assert steps == [(1, 3, "noise 0.5"), (2, 3, "missing 0.3"), (3, 3, "contamination 0.3")]


def test_known_anomalies_are_half_dirt_and_half_to_be_found() -> None:
    """None of those that contaminated the fit is among those judged."""
    train, held_out = plane(1, 100), plane(2, 100)
    far = np.full((40, 6), 9.0)
    far[20:] = -9.0
    seen: list[np.ndarray] = []

    class Watched(Linear):
        def score_samples(self, X: np.ndarray) -> np.ndarray:
            seen.append(X)
            return super().score_samples(X)

    found = robustness(Watched().fit(train), train, held_out, levels=Levels((), (), (0.1,)), strange=far)

    assert found["auroc"].iloc[0] == 1.0
    assert all((X > -9.0).all() or (X == -9.0).all() for X in seen)


@pytest.mark.slow
def test_encoders_are_compared_on_the_same_rows() -> None:
    """A table with a row an encoder and a long one of what each stands; the encoders given stay unfitted."""
    encoders = {"small": DenseAutoencoder(code=1, hidden=(), training=BRIEF), "linear": Linear(code=2)}

    found = compare(encoders, plane(1), plane(2), levels=Levels((0.3,), (), ()))

    assert found.table.index.tolist() == ["small", "linear"]
    assert found.table.loc["linear", "error_held_out"] < found.table.loc["small", "error_held_out"]
    assert (found.table[["training_seconds", "rows_per_second", "size_bytes", "parameters"]] > 0).all(axis=None)
    assert found.robustness.groupby("encoder").size().to_dict() == {"small": 4, "linear": 4}
    assert list(found.fitted) == ["small", "linear"]
    assert not hasattr(encoders["small"], "graph_")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sparse", "tokens", "mixed", "multimodal"])
def test_every_form_of_rows_can_be_reported(name: str) -> None:
    """CSR arrays, token lists, mixed columns and several kinds at once: noise and gaps do harm, and are survived."""
    train, held_out = HOMES[name].draw(0, 200), fresh(name, 100)

    facts = assess(at_home(name), train, held_out)
    found = robustness(at_home(name), train, held_out, levels=Levels((0.5,), (0.1,), ()))

    assert np.isfinite(list(facts.values())).all()
    damaged = found[found["level"] > 0]
    assert (damaged["error"] > found["error"].iloc[0]).all()
    assert damaged["rank_stability"].between(-0.5, 0.99).all()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda e, X: assess(e, X, X[:9]), DataError, "at least 10 held-out rows, received 9"),
        (lambda e, X: robustness(e, X, X, strange=X[:10]), DataError, "at least 10 strange rows, received 5"),
        (lambda e, X: robustness(e, X, X, levels=Levels((-1.0,))), SettingError, "Levels of noise must be positive"),
        (
            lambda e, X: robustness(e, X, X, levels=Levels((), (1.5,))),
            SettingError,
            "missing must be positive and below 1",
        ),
        (lambda e, X: compare({}, X, X), SettingError, "at least one encoder. Pass them by name"),
    ],
)
def test_report_refuses(call: Any, error: type[Exception], message: str) -> None:
    """Too few rows to judge by, and levels without meaning."""
    rows = plane(1, 30)

    with pytest.raises(error, match=message):
        call(Linear().fit(rows), rows)


def test_rows_are_taken_in_the_form_they_have() -> None:
    """For all forms at once, in the order asked for."""
    rows = {"a": np.arange(3)[:, None], "b": csr_array(np.diag([1.0, 2.0, 3.0])), "c": [[0], [1], [2]]}

    taken = take(rows, np.array([2, 2, 0]))

    assert taken["a"][:, 0].tolist() == [2, 2, 0]
    assert taken["b"].toarray().max(axis=1).tolist() == [3.0, 3.0, 1.0]
    assert taken["c"] == [[2], [2], [0]]
