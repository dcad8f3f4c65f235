"""Windows laid over series, rebuilt from principal components, and completed where readings are missing."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from detector.errors import DataError
from detector.members.window_pca import MOST_INPUTS, WindowPCA, expected_values, squared_errors
from detector.series.segmented_windows import LaidWindows, cross_fit, fold_of_rows, thinned
from tests.series_examples import one, waves


def lay(values: NDArray[np.float64], length: int = 8, **more: bool) -> LaidWindows:
    return LaidWindows.lay(values.astype(np.float32), one(len(values)), length, **more)


def test_every_row_is_covered() -> None:
    """Also those of a segment that is shorter than a window; what stands in for its beginning is no true row."""
    values = np.arange(6.0)[:, None].astype(np.float32)
    laid = LaidWindows.lay(values, np.array([0, 0, 0, 0, 1, 1]), 3)

    rows = laid.to_rows([(slice(0, len(laid.windows)), np.ones(len(laid.windows)))], how="overlap")

    assert rows.ravel().tolist() == [1.0] * 6
    assert laid.windows.cut(laid.values).tolist() == [[0, 1, 2], [1, 2, 3], [4, 4, 5]]
    assert laid.whole.tolist() == [True, True, False]
    assert laid.stands_in.sum() == 1


def test_a_leading_window_ends_at_the_first_row() -> None:
    """As if that had lasted longer; the stand-ins are not to be believed."""
    laid = lay(np.arange(3.0)[:, None], 3, lead=True)

    assert laid.windows.cut(laid.values).tolist() == [[0, 0, 0], [0, 0, 1], [0, 1, 2]]
    assert next(laid.doubtful_blocks()) is not None
    assert laid.learnable(np.full(3, True)).tolist() == [False, False, True]


def test_windows_that_touch_a_row_are_reported() -> None:
    """Clear of a row is a window that does not hold it."""
    laid = lay(np.zeros((5, 1)), 2)

    clear = laid.clear_of(np.array([False, False, True, False, False]))

    assert clear.tolist() == [True, False, False, True]
    assert len(laid.some(clear)) == 2


def test_rows_that_no_chosen_window_covers_are_unknown() -> None:
    """NaN, and no error, even if none is chosen at all."""
    laid = lay(waves(30))
    model = WindowPCA.fit(laid, laid.whole, variance=0.9)
    few = np.arange(len(laid.windows)) < 2

    errors = squared_errors(model, laid, how="overlap", pca=model, chosen=few)

    assert np.isfinite(errors[:9]).all()
    assert np.isnan(errors[9:]).all()
    assert np.isnan(squared_errors(model, laid, how="overlap", pca=model, chosen=few & False)).all()


def test_folds_are_contiguous_and_scored_by_the_others() -> None:
    """Each fold's model learns from no window that touches the fold."""
    laid, learnt = lay(waves(40), 4), []

    def fit(_: LaidWindows, chosen: NDArray[np.bool_]) -> int:
        learnt.append(chosen)
        return len(learnt)

    fold = fold_of_rows(40, 4)
    (found, twice), last = cross_fit(
        laid,
        np.full(40, True),
        fold,
        fit=fit,
        errors=[lambda number, _: np.full((40, 1), float(number)), lambda number, _: np.full((40, 1), 2.0 * number)],
    )

    assert (twice == 2 * found).all()
    assert found.ravel().tolist() == [1.0 + fold for fold in fold_of_rows(40, 4)]
    assert last == 5
    assert learnt[4].all()
    assert all(laid.clear_of(fold_of_rows(40, 4) == fold)[learnt[fold]].all() for fold in range(4))


def test_windows_of_rows_that_cannot_be_used_are_neither_learnt_from_nor_scored() -> None:
    """The rows around them are judged by the windows that are left, those in them by none."""
    usable = np.ones(60, dtype=bool)
    usable[30:33] = False
    laid = lay(waves(60), 4)

    (found,), _ = cross_fit(
        laid,
        usable,
        fold_of_rows(60, 3),
        fit=lambda laid, chosen: WindowPCA.fit(laid, chosen, variance=0.9),
        errors=[lambda model, chosen: squared_errors(model, laid, how="overlap", pca=model, chosen=chosen)],
    )

    assert np.flatnonzero(np.isnan(found[:, 0])).tolist() == [30, 31, 32]


def test_components_keep_the_share_of_variance() -> None:
    """A wave takes two, whatever the noise; all of the variance takes many more."""
    laid = lay(waves(300))

    few, many = (WindowPCA.fit(laid, laid.whole, variance=share) for share in (0.95, 0.9999))

    assert few.code == 2
    assert many.code > 10
    assert few.noise > 0


@pytest.mark.parametrize("still", [0, 1])
def test_noise_is_not_rebuilt_whole(still: int) -> None:
    """With as many components as readings that vary, every fault was rebuilt, and nothing was ever found."""
    noise = np.random.default_rng(0).normal(size=(500, 1))
    laid = lay(np.column_stack([noise, np.ones((500, still))]))
    faults = np.eye(8 * (1 + still), dtype=np.float32)[:: 1 + still] * 30

    model = WindowPCA.fit(laid, laid.whole, variance=1.0)

    assert model.code == 7
    assert np.abs(model.rebuild(faults) - faults).max() > 1


@pytest.mark.parametrize("n", [12, 60])
def test_few_and_many_windows_give_the_same_components(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The small matrix of products between windows has the same spectrum as the large one."""
    laid = lay(waves(n), 4)  # twelve inputs
    found = WindowPCA.fit(laid, laid.whole, variance=0.9)
    windows = laid.windows.cut(laid.values).astype(float)

    _, spread, directions = np.linalg.svd(windows - windows.mean(axis=0), full_matrices=False)

    assert found.variances == pytest.approx(spread[: found.code] ** 2 / len(windows), rel=1e-3)
    assert np.abs(found.directions.T @ directions[: found.code].T) == pytest.approx(np.eye(found.code), abs=1e-3)


def test_long_windows_of_many_sensors_are_thinned() -> None:
    """So that no matrix of their products is larger than memory allows."""
    chosen = np.full(3 * MOST_INPUTS, True)

    assert thinned(chosen, MOST_INPUTS).sum() == MOST_INPUTS
    assert thinned(chosen[:5], MOST_INPUTS).all()


def test_what_is_expected_is_near_what_was_read() -> None:
    """Normal rows are expected as they are, to within the noise."""
    values = waves(400) / [1, 10, 5]
    laid = lay(values)
    model = WindowPCA.fit(laid, laid.whole, variance=0.95)

    assert np.abs(expected_values(model, laid, how="overlap", pca=model) - values).mean() < 0.02


def test_a_missing_sensor_is_completed_from_the_others() -> None:
    """Not by its last value: a wave whose sensor is silent is told from the sensors that go with it."""
    values = waves(400) / [1, 10, 5]
    laid = lay(values)
    model = WindowPCA.fit(laid, laid.whole, variance=0.95)
    window = laid.windows.cut(laid.values)[:1]
    doubtful = np.tile([False, True, False], 8)[None]

    completed = model.complete(np.where(doubtful, 99.0, window).astype(np.float32), doubtful)

    assert completed == pytest.approx(window, abs=0.15)
    assert (completed[~doubtful] == window[~doubtful]).all()


@pytest.mark.parametrize("n_hidden", [1, 3, 9])
def test_hidden_values_are_the_mean_given_the_rest(n_hidden: int) -> None:
    """As of a normal distribution with the covariance of components and noise, for fewer and more than components."""
    rng = np.random.default_rng(0)
    directions = np.linalg.qr(rng.normal(size=(12, 4)))[0]
    variances, noise, centre = np.array([9.0, 4.0, 2.0, 1.0]), 0.3, rng.normal(size=12)
    model = WindowPCA(centre.astype(np.float32), directions.astype(np.float32), variances, noise)
    windows = rng.normal(size=(5, 12)).astype(np.float32)
    hidden = rng.permutation(12)[:n_hidden]
    seen = np.setdiff1d(np.arange(12), hidden)
    covariance = directions * variances @ directions.T + noise * np.eye(12)
    rest = np.linalg.solve(covariance[np.ix_(seen, seen)], (windows[:, seen] - centre[seen]).T)
    expected = (covariance[np.ix_(hidden, seen)] @ rest).T + centre[hidden]
    spoilt = windows.copy()
    spoilt[:, hidden] = np.nan

    completed = model.complete(spoilt, np.isin(np.arange(12), hidden)[None, :].repeat(5, axis=0))

    np.testing.assert_allclose(completed[:, hidden], expected, atol=1e-5)
    np.testing.assert_array_equal(completed[:, seen], windows[:, seen])


def test_too_few_windows_are_refused() -> None:
    """With what could be changed."""
    laid = lay(waves(20))

    with pytest.raises(DataError, match="Too few windows of 8 usable rows are left to learn from: 1. Give more normal"):
        WindowPCA.fit(laid, np.arange(len(laid.windows)) < 1, variance=0.9)


def test_components_survive_a_round_trip() -> None:
    """As arrays."""
    laid = lay(waves(100))
    model = WindowPCA.fit(laid, laid.whole, variance=0.9)
    block = laid.windows.cut(laid.values)

    assert (WindowPCA.from_state(model.state()).rebuild(block) == model.rebuild(block)).all()
