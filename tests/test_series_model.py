"""A model of series: what stands out, who is blamed, what is usual, with each member."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from detector.detectors.series.model import SeriesModel
from detector.detectors.series.recipe import MEMBERS, SeriesRecipe
from detector.errors import DataError, SettingError
from tests.series_examples import fit, recipe, seen, waves

ALL = {"members": MEMBERS}


@pytest.fixture(scope="module")
def model() -> SeriesModel:
    """Window-PCA alone."""
    return fit(waves(400), recipe(members=("reconstruction",)))


@pytest.fixture(scope="module")
def fused() -> SeriesModel:
    """All members."""
    return fit(waves(400), recipe(**ALL))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"residuals": "mahalanobis"},
        {"members": ("forest",)},
        {"members": ("forecast",)},
        ALL,
        ALL | {"trailing": True},
    ],
    ids=["reconstruction", "mahalanobis", "forest", "forecast", "all", "all trailing"],
)
def test_an_anomaly_stands_out_and_its_sensor_is_named(settings: dict[str, Any]) -> None:
    """The risk peaks where a sensor sticks, most of it is that sensor's, and the parts are the whole."""
    model = fit(waves(400), recipe(**settings))
    rows = waves(200, seed=1)
    rows[100:110, 1] = 50.0

    judged = seen(model, rows)

    parts = judged.contributions()
    np.testing.assert_allclose(parts.sum(axis=1), judged.risk, rtol=1e-4, atol=1e-4)
    assert 95 <= judged.risk.argmax() < 118
    assert parts[100:110].sum(axis=0).argmax() == 1
    assert judged.risk[20:80].max() < judged.risk.max() / 2
    assert judged.risk.max() > model.threshold


def test_contributions_of_some_steps_are_those_of_all(fused: SeriesModel) -> None:
    """Only the windows that bear on them are taken apart."""
    judged, wanted = seen(fused, waves(200, seed=1)), np.zeros(200, dtype=bool)
    wanted[[40, 41, 150]] = True

    some, every = judged.contributions(wanted), judged.contributions()

    np.testing.assert_allclose(some[wanted], every[wanted])
    assert not np.allclose(some, every)


def test_risks_of_training_rows_are_those_of_new_rows() -> None:
    """They come from members that did not learn from them, so new normal rows exceed their 90 % about as often."""
    model = fit(waves(600), recipe(**ALL))

    risk = seen(model, waves(600, seed=1)).risk

    assert 0.03 < (risk > np.quantile(model.calibrator.risk, 0.9)).mean() < 0.2


def test_in_sample_residuals_would_be_too_small() -> None:
    """What cross-fitting is for: rows the components saw look more normal than they are."""
    rows = np.random.default_rng(0).normal(size=(120, 4))
    model = fit(rows, recipe(smoothing=0.0))

    assert seen(model, rows).risk.mean() < model.calibrator.risk.mean() - 0.1
    assert model.facts["generalisation_gap"] > 0


def test_the_unit_of_a_sensor_changes_nothing() -> None:
    """Scaling is by the sensor's own range, as long as all change alike."""
    rows = waves(300)
    first, second = seen(fit(rows), rows).risk, seen(fit(1000 * rows + 5), 1000 * rows + 5).risk

    np.testing.assert_allclose(first, second, atol=0.02)


@pytest.mark.parametrize("units", [[1e-4, 1, 1e4], [1e4, 1e-4, 1]])
def test_units_of_single_sensors_change_nothing(units: list[float]) -> None:
    """Nor do those of the others, where rows are enough to tell what range a sensor has."""
    rows, later = waves(1_000), waves(200, seed=1)
    later[100:110, 0] += 1.0
    settings = recipe(**ALL)

    first, second = seen(fit(rows, settings), later).risk, seen(fit(rows * units, settings), later * units).risk

    np.testing.assert_allclose(second, first, rtol=0.02, atol=0.1)
    assert second[100:110].min() > np.delete(second, slice(80, 130)).max()


@pytest.mark.parametrize(("constant", "unit"), [(0.0, 1.0), (0.0, 1e5), (0.002, 1e5), (7.0, 1e-3), (3e4, 1.0)])
def test_a_constant_sensor_speaks_whatever_the_units_of_others(constant: float, unit: float) -> None:
    """A flag that was never set in training, and is, is seen beside pressures in Pa."""
    model = fit(np.column_stack([unit * waves(400), np.full(400, constant)]), recipe(**ALL))
    rows = np.column_stack([unit * waves(100, seed=1), np.full(100, constant)])
    rows[50:, 3] = 1.5 * constant or 1.0

    contributions = seen(model, rows).contributions()

    assert contributions[:40, 3] == pytest.approx(0)
    assert contributions[60:, 3].min() > model.threshold


def test_members_are_standardised_on_rows_they_did_not_learn_from(fused: SeriesModel) -> None:
    """Their z-scores join by weight, and each has a threshold of its own among the facts."""
    judged = seen(fused, waves(200, seed=1))

    np.testing.assert_allclose(judged.risk, judged.scores @ fused.shares)
    assert np.abs(judged.scores.mean(axis=0)).max() < 1
    assert {f"threshold_{name}" for name in MEMBERS} <= set(fused.facts)


def test_a_member_that_does_not_count_changes_nothing() -> None:
    """Its score is still reported."""
    alone = seen(fit(waves(300), recipe(members=MEMBERS[:1])), waves(100, 1))
    both = seen(fit(waves(300), recipe(members=MEMBERS[:2], weights={"forest": 0.0})), waves(100, 1))

    np.testing.assert_allclose(both.risk, alone.risk)
    assert both.scores.shape == (100, 2)


def test_a_constant_sensor_is_expected_to_stay() -> None:
    """It adds nothing as long as it does, and stands out when it does not."""
    model = fit(np.column_stack([waves(400), np.full(400, 7.0)]), recipe(**ALL))
    rows = np.column_stack([waves(100, seed=1), np.full(100, 7.0)])
    rows[50:, 3] = 20.0

    judged = seen(model, rows)

    assert not model.scaling.moving[3]
    assert judged.contributions()[:40, 3] == pytest.approx(0)
    assert judged.contributions()[60:, 3].min() > model.threshold
    assert judged.expected[:, 3] == pytest.approx(7)


@pytest.mark.parametrize("settings", [{}, ALL])
def test_constant_sensors_alone_still_work(settings: dict[str, Any]) -> None:
    """Nothing moves in training; a change later is found."""
    model = fit(np.full((50, 2), 3.0), recipe(**settings))

    judged = seen(model, np.array([[3.0, 3.0], [3.0, 9.0]]))

    assert model.pca is None
    assert judged.risk[1] > model.calibrator.risk.max()
    assert judged.expected[:, 0].tolist() == [3.0, 3.0]
    np.testing.assert_allclose(judged.contributions().sum(axis=1), judged.risk)


def test_a_sensor_without_values_is_passed_over() -> None:
    """It is no part of the risk, and has no expected value."""
    dead = np.full((400, 1), np.nan)
    model = fit(np.hstack([waves(400), dead]))
    judged, alone = seen(model, np.hstack([waves(400), dead + 1])), seen(fit(waves(400)), waves(400))

    np.testing.assert_allclose(judged.contributions()[:, :3], alone.contributions(), rtol=1e-4, atol=1e-4)
    assert not judged.contributions()[:, 3].any()
    assert np.isnan(judged.expected[:, 3]).all()


def test_a_missing_value_adds_nothing_and_a_silent_sensor_an_alarm(model: SeriesModel) -> None:
    """Once it is silent for longer than usual, it is to blame, not those that move with it."""
    rows = waves(100, seed=1)
    rows[[0, 50], 2] = np.nan
    rows[70:, 1] = np.nan

    judged = seen(model, rows)
    parts = judged.contributions()

    assert np.isfinite(judged.risk).all()
    assert np.abs(parts[[0, 50], 2]).max() < model.threshold
    assert judged.overdue[:, 1].nonzero()[0].tolist() == list(range(73, 100))
    assert (parts[73:].argmax(axis=1) == 1).all()
    assert parts[80:, [0, 2]].max() < model.threshold
    assert judged.expected[80:, 1] == pytest.approx(waves(100, 1)[80:, 1], abs=1.5)


def test_rows_known_to_be_anomalous_are_not_learnt_from() -> None:
    """Neither range nor calibration nor components remember them."""
    dirty = waves(400)
    dirty[200:220] = 1000.0
    usable = np.ones(400, dtype=bool)
    usable[200:220] = False

    model = fit(dirty, recipe(**ALL), usable=usable)

    assert model.scaling.span.max() < 30
    assert model.facts["rows_calibration"] <= 380
    assert model.threshold == pytest.approx(fit(waves(400), recipe(**ALL)).threshold, rel=0.5)


def test_trailing_risk_knows_no_future() -> None:
    """What comes later changes nothing, and what came first is no alarm for being first."""
    model = fit(waves(400), recipe(trailing=True, **ALL))
    rows = waves(100, seed=1)
    rows[50:] += 100

    whole, begun = seen(model, rows).risk, seen(model, rows[:50]).risk

    np.testing.assert_allclose(whole[:50], begun, rtol=1e-4, atol=1e-4)
    assert whole[:45].max() < 2 * model.threshold
    assert model.memory == (4 * 8 - 1) + 8 + 3


def test_segments_do_not_know_each_other(model: SeriesModel) -> None:
    """Neither windows nor smoothing reach over a gap."""
    first, second = waves(60, seed=1), waves(5, seed=2) + 50

    both = seen(model, np.vstack([first, second]), segment=np.repeat([0, 1], [60, 5])).risk

    np.testing.assert_allclose(both[:60], seen(model, first).risk, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(both[60:], seen(model, second).risk, rtol=1e-4, atol=1e-5)


def test_fitting_twice_is_the_same() -> None:
    """What is random is seeded."""
    first, second = (fit(waves(200), recipe(**ALL)).calibrator.risk for _ in range(2))

    assert (first == second).all()


@pytest.mark.parametrize(("n", "length"), [(8, 2), (80, 10), (400, 32)])
def test_the_window_is_an_eighth_of_the_rows_at_most(n: int, length: int) -> None:
    """Few rows, short windows."""
    assert fit(waves(n), SeriesRecipe()).length == length


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"window": 1}, "window must be at least 2. Received: window=1"),
        ({"folds": 1}, "folds must be at least 2. Received: folds=1"),
        ({"trees": 0}, "trees must be at least 1. Received: trees=0"),
        ({"lags": 0}, "lags must be at least 1. Received: lags=0"),
        ({"variance": 1.5}, "variance must lie in"),
        ({"range_floor": -0.1}, "range_floor must be at least 0"),
        ({"reach": -1.0}, "reach must be above 0"),
        ({"deviation_floor": 0.0}, "deviation_floor must be above 0"),
        ({"z_cap": 0.0}, "z_cap must be above 0"),
        ({"smoothing": -1.0}, "smoothing must be at least 0"),
        ({"quantile": 1.0}, "quantile must lie between 0 and 1. Received: quantile=1.0"),
        ({"residuals": "zz"}, "Residuals are not judged by 'zz'. Did you mean 'z'"),
        (
            {"members": ()},
            r"members must be some of reconstruction, forest, forecast, long, spectrum, each once\. Received: members=",
        ),
        ({"members": ("forest", "forest")}, "each once"),
        ({"members": ("trees",)}, "members must be some of"),
        ({"weights": {"forst": 1.0}}, "weights names no member by 'forst'. Did you mean 'forest'"),
        ({"weights": {"forest": -1.0}}, "A weight must not be negative. Received: weights={'forest': -1.0}"),
        ({"members": ("forest",), "weights": {"forest": 0.0}}, "One of forest must count"),
    ],
)
def test_recipe_refuses_what_has_no_meaning(settings: dict[str, Any], match: str) -> None:
    """The setting and its value are named."""
    with pytest.raises(SettingError, match=match):
        SeriesRecipe(**settings)


def test_fit_refuses_what_cannot_be_learnt_from() -> None:
    """One row is no series, gaps everywhere, nothing reads, labels that leave nothing."""
    with pytest.raises(DataError, match="at least 8 training rows in order of time; received n_samples = 7. Give more"):
        fit(waves(7))
    with pytest.raises(DataError, match="n_samples = 7 of 'a'. Give more rows, or let entities share a model"):
        fit(waves(7), name="'a'")
    with pytest.raises(DataError, match="A window has 8 rows, but the longest unbroken stretch of the training rows 5"):
        fit(waves(100), segment=np.arange(100) // 5)
    with pytest.raises(DataError, match="No sensor has a value"):
        fit(np.full((20, 2), np.nan))
    with pytest.raises(DataError, match="Too few windows of 8 usable rows are left"):
        fit(waves(100), usable=np.arange(100) % 4 > 0)
