from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from detector.decide.calibrate import BLOCK, Calibrator, ParetoTail
from detector.errors import BundleError, DataError, SettingError, ShapeError

RISKS = st.floats(-50, 50).map(lambda value: round(value, 1))


@settings(max_examples=100, deadline=None)
@given(
    held_out=arrays(np.float64, st.integers(1, 40), elements=RISKS),
    risk=arrays(np.float64, st.integers(0, 20), elements=RISKS),
)
def test_p_value_counts_held_out_rows(held_out: np.ndarray, risk: np.ndarray) -> None:
    """A p-value is (1 + held-out risks at least as large) / (n + 1), ties included."""
    p_value = Calibrator(held_out).p_value(risk)

    assert p_value.tolist() == [(1 + sum(held_out >= r)) / (len(held_out) + 1) for r in risk]


def test_p_value_is_valid_for_new_normal_rows() -> None:
    """Over many draws, a normal row's p-value is below t at most a share t of the times."""
    rng = np.random.default_rng(0)
    n, draws = 99, 4000
    p_value = np.array([Calibrator(rng.gumbel(size=n)).p_value(rng.gumbel(size=1))[0] for _ in range(draws)])

    for level in (0.01, 0.05, 0.1, 0.5):
        # With n + 1 = 100 the share is exactly the level; allow four standard errors.
        assert abs((p_value <= level).mean() - level) < 4 * np.sqrt(level * (1 - level) / draws)


def test_p_value_is_conservative_under_ties() -> None:
    """A detector that gives every row one risk calls none of them unusual."""
    assert Calibrator(np.zeros(99)).p_value([0.0, 1.0]).tolist() == [1.0, 0.01]


def test_p_value_is_the_same_in_a_long_batch() -> None:
    """Rows are searched in blocks; where a block ends makes no difference."""
    rng = np.random.default_rng(0)
    calibrator, risk = Calibrator(rng.normal(size=500)), rng.normal(size=BLOCK + 2)

    p_value = calibrator.p_value(risk)

    assert p_value[:5].tolist() == calibrator.p_value(risk[:5]).tolist()
    assert p_value[-5:].tolist() == calibrator.p_value(risk[-5:]).tolist()


def test_p_value_takes_any_reach_of_risk() -> None:
    """Infinite risks have their place; no rows give no p-values."""
    calibrator = Calibrator([1.0, 2.0, 3.0])

    assert calibrator.p_value([np.inf, -np.inf]).tolist() == [0.25, 1.0]
    assert calibrator.p_value([]).tolist() == []
    assert calibrator.smallest == 0.25
    assert repr(calibrator) == "Calibrator(3 rows, tail='empirical')"


@settings(max_examples=100, deadline=None)
@given(
    held_out=arrays(np.float64, st.integers(1, 40), elements=RISKS),
    risk=arrays(np.float64, 20, elements=RISKS),
    quantile=st.sampled_from([0.5, 0.71, 0.9, 0.93, 0.95, 0.975, 0.99]),
)
def test_threshold_and_p_value_agree(held_out: np.ndarray, risk: np.ndarray, quantile: float) -> None:
    """A risk lies above the threshold exactly where its p-value is small enough."""
    calibrator = Calibrator(held_out)

    above = risk > calibrator.threshold(quantile)

    assert above.tolist() == (calibrator.p_value(risk) <= round(1 - quantile, 12)).tolist()


def test_threshold_is_infinite_where_rows_are_too_few() -> None:
    """With nine held-out rows no row can be among the riskiest hundredth."""
    assert Calibrator(np.arange(9.0)).threshold(0.99) == np.inf
    assert Calibrator(np.arange(9.0)).threshold(0.9) == 8.0


def test_calibrator_samples_down_what_is_too_much() -> None:
    """A sample is remembered, drawn from the rows and the same each time."""
    risk = np.arange(1000.0)

    calibrator = Calibrator(risk, max_rows=100, random_state=1)

    assert calibrator.size == 100
    assert set(calibrator.risk) <= set(risk)
    assert calibrator.risk.tolist() == Calibrator(risk, max_rows=100, random_state=1).risk.tolist()
    assert calibrator.risk.tolist() != Calibrator(risk, max_rows=100, random_state=2).risk.tolist()


@pytest.mark.parametrize(("shape", "tolerance"), [(0.0, 0.05), (0.3, 0.1)])
def test_pareto_tail_finds_the_tail_it_was_drawn_from(shape: float, tolerance: float) -> None:
    """On generalised Pareto draws the fitted shape and the far p-values are near the true ones."""
    risk = stats.genpareto.rvs(shape, scale=2.0, size=200_000, random_state=0)
    calibrator = Calibrator(risk, tail="pareto")
    far = stats.genpareto.isf([1e-4, 1e-6], shape, scale=2.0)

    assert calibrator.pareto is not None
    assert calibrator.pareto.shape == pytest.approx(shape, abs=tolerance)
    assert np.abs(np.log10(calibrator.p_value(far)) - [-4, -6]).max() < 0.5


def test_pareto_survival_is_the_distribution_of_scipy() -> None:
    """The formula is the one of the textbooks, for light and heavy tails."""
    risk = np.array([3.0, 4.0, 9.0])

    for shape in (0.0, 0.5):
        tail = ParetoTail(threshold=3.0, share=0.02, scale=2.0, shape=shape)
        expected = 0.02 * stats.genpareto.sf(risk, shape, loc=3.0, scale=2.0)
        np.testing.assert_allclose(tail.survival(risk), expected, rtol=1e-12)
        np.testing.assert_allclose([tail.risk_at(p) for p in expected], risk, rtol=1e-12)


def test_pareto_p_value_tells_far_rows_apart() -> None:
    """Beyond all held-out rows the empirical p-value stands still, the Pareto one falls; below they agree."""
    calibrator = Calibrator(np.random.default_rng(0).exponential(size=1000))
    risk = np.linspace(0.0, 40.0, 200)

    empirical, pareto = calibrator.p_value(risk), calibrator.p_value(risk, tail="pareto")

    assert calibrator.pareto is not None
    body = risk <= calibrator.pareto.threshold
    assert np.array_equal(empirical[body], pareto[body])
    assert len(set(empirical[-20:])) == 1
    assert (np.diff(pareto) <= 0).all()
    assert len(set(pareto[-100:-80])) == 20
    assert calibrator.p_value([1e300, np.inf], tail="pareto").tolist() == [1e-12, 1e-12]


@pytest.mark.parametrize("quantile", [0.5, 0.95, 0.99, 0.9999, 1 - 1e-9])
def test_pareto_threshold_and_p_value_agree(quantile: float) -> None:
    """The threshold is where the p-value passes the level, in the body as in the tail."""
    calibrator = Calibrator(np.random.default_rng(0).exponential(size=1000), tail="pareto")

    threshold = calibrator.threshold(quantile)

    assert calibrator.smallest == 1e-12
    assert calibrator.p_value([threshold + 1e-6])[0] <= 1 - quantile + 1e-12
    assert calibrator.p_value([threshold - 1e-6])[0] > 1 - quantile


def test_pareto_threshold_ends_where_p_values_end() -> None:
    """No risk has a p-value below the smallest."""
    calibrator = Calibrator(np.random.default_rng(0).exponential(size=1000), tail="pareto")

    assert calibrator.threshold(np.nextafter(1.0, 0.0)) == np.inf


@pytest.mark.parametrize(
    "top", [np.ones(50), np.r_[np.zeros(49), 1.0], np.r_[np.zeros(49), 1e300], np.full(50, 5e-324)]
)
def test_pareto_tail_survives_odd_tops(top: np.ndarray) -> None:
    """Ties or a single giant among the largest risks still give p-values between 0 and 1."""
    calibrator = Calibrator(np.r_[np.full(450, -1e-9), top], tail="pareto")

    p_value = calibrator.p_value([-1.0, 0.5, 2.0, 1e308, np.inf])

    assert ((p_value > 0) & (p_value <= 1)).all()
    assert (np.diff(p_value) <= 0).all()


@pytest.mark.parametrize("tail", ["empirical", "pareto"])
def test_state_brings_back_the_same_p_values(tail: Any, tmp_path: Any) -> None:
    """A calibrator survives an npz file that holds no pickle."""
    rng = np.random.default_rng(0)
    calibrator = Calibrator(rng.normal(size=1000), tail=tail, max_rows=800)
    state: dict[str, Any] = calibrator.state()
    np.savez(tmp_path / "calibration.npz", **state)

    with np.load(tmp_path / "calibration.npz", allow_pickle=False) as stored:
        loaded = Calibrator.from_state(stored)

    risk = rng.normal(size=100) * 3
    assert repr(loaded) == repr(calibrator)
    assert loaded.p_value(risk).tolist() == calibrator.p_value(risk).tolist()


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"risk": np.array([1.0])},
        {"risk": np.array([]), "tail": np.array("empirical")},
        {"risk": np.array([np.nan]), "tail": np.array("empirical")},
        {"risk": np.array([1.0]), "tail": np.array("pareto")},
        {"risk": np.array([1.0]), "tail": np.array("normal")},
    ],
)
def test_from_state_refuses_a_changed_bundle(state: dict[str, Any]) -> None:
    """Whatever is wrong with a saved calibration, it is the bundle's error."""
    with pytest.raises(BundleError, match="saved calibration cannot be used.*Train the detector again"):
        Calibrator.from_state(state)


@pytest.mark.parametrize(
    ("risk", "settings_", "error", "message"),
    [
        ([], {}, DataError, "at least one held-out row, got none"),
        ([1.0, np.nan], {}, DataError, "must be finite, got nan"),
        ([1.0, np.inf], {}, DataError, "must be finite, got inf"),
        ([[1.0]], {}, ShapeError, r"risk must have one number per row, got an array of shape \(1, 1\)"),
        (["a"], {}, ShapeError, "risk must be an array of numbers"),
        ([1.0], {"tail": "normal"}, SettingError, "tail must be one of empirical, pareto.*'normal'"),
        ([1.0], {"tail": "pareto"}, DataError, "Pareto tail needs 500 held-out rows.*got 1"),
        (np.zeros(600), {"tail": "pareto"}, DataError, "whose largest risks differ, got 600"),
        ([1.0], {"max_rows": 0}, SettingError, "max_rows must be at least 1. Received: max_rows=0"),
    ],
)
def test_calibrator_refuses(risk: Any, settings_: dict[str, Any], error: type[Exception], message: str) -> None:
    """What cannot be calibrated on is named."""
    with pytest.raises(error, match=message):
        Calibrator(risk, **settings_)


def test_p_value_refuses_nan() -> None:
    """A row without a risk has no p-value, and is not called normal."""
    with pytest.raises(DataError, match="2 risks are NaN. Send such rows to quarantine"):
        Calibrator([1.0]).p_value([np.nan, 1.0, np.nan])


def test_p_value_refuses_a_tail_it_has_not() -> None:
    """The Pareto tail can be asked for only where there were rows to fit it."""
    with pytest.raises(DataError, match="Pareto tail needs"):
        Calibrator([1.0]).p_value([1.0], tail="pareto")


@pytest.mark.parametrize("quantile", [0.0, 1.0, -1.0, np.nan, 95, "0.9", True])
def test_threshold_refuses_what_is_no_quantile(quantile: Any) -> None:
    """A quantile is a share, not a percentage."""
    with pytest.raises(SettingError, match="quantile must lie between 0 and 1, both excluded. Received"):
        Calibrator([1.0]).threshold(quantile)
