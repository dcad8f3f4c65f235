"""Rounding is no anomaly: exact, quantised and flickering signals, exact dependencies in tables, equal rows.

None of these may hang on the last bits: ``make kernels`` runs them with the kernels of other processors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from detector.decide.calibrate import RISK_RESOLUTION, Calibrator, ParetoTail
from detector.decide.fuse import Fusion
from detector.decide.policy import Policy
from detector.detectors.series.detector import SequenceDetector
from detector.detectors.series.recipe import MEMBERS
from detector.detectors.table.detector import TabularDetector
from detector.encoders.scaling import Scaling
from detector.encoders.table import TableAutoencoder
from detector.encoding.statistics import location_and_scale, useless
from detector.members.event_sequence import Channel, EventWindow, Steps
from detector.members.neighbours import References
from detector.members.novelty import KnownRows
from detector.members.novelty_graph import graph_of
from detector.members.window_pca import WindowPCA
from detector.onnx.graph import joined
from detector.resolution import beyond, float_resolution, smallest_step
from detector.series.scaling import SeriesScaling
from detector.series.segmented_windows import LaidWindows
from detector.training.settings import Training

Signal = Callable[[], NDArray[np.float64]]

STEPS, LEARNT = 1500, 1000
TIME = np.arange(float(STEPS))
BIT = float(np.spacing(np.float32(20.0)))


def exact() -> NDArray[np.float64]:
    """Three waves without noise."""
    return np.column_stack([np.sin(TIME / 5), np.cos(TIME / 7), np.sin(TIME / 5 + 1)])


def noisy() -> NDArray[np.float64]:
    """The same with noise."""
    return exact() + 0.02 * np.random.default_rng(0).normal(size=(STEPS, 3))


def single() -> NDArray[np.float64]:
    """As a source of float32 would send them."""
    return exact().astype(np.float32).astype(np.float64)


def hundredths() -> NDArray[np.float64]:
    """As a sensor of two digits would show them."""
    return exact().round(2)


def tenths() -> NDArray[np.float64]:
    """As a sensor of one digit would show them, but for a few values."""
    rows = exact().round(1)
    rows[[50, 700], 0] += 0.0123
    return rows


def lifted() -> NDArray[np.float64]:
    """Small changes of large float32 numbers."""
    return (exact() + 1e4).astype(np.float32).astype(np.float64)


def summed() -> NDArray[np.float64]:
    """With a sensor that is the sum of two others, and one that is twice the first."""
    rows = exact()
    return np.column_stack([rows, rows[:, 0] + rows[:, 1], 2 * rows[:, 0]])


def last_bit() -> NDArray[np.float64]:
    """With a sensor that is constant in training, and off by one float32 number now and then afterwards."""
    constant = np.full(STEPS, 20.0)
    constant[LEARNT::7] += BIT
    return np.column_stack([exact(), constant])


def flicker(share: float = 0.002) -> NDArray[np.float64]:
    """With a constant sensor whose last digit flickers."""
    constant = np.where(np.random.default_rng(1).random(STEPS) < share, 20.1, 20.0)
    constant[[500, LEARNT + 100, LEARNT + 300]] = 20.1
    return np.column_stack([exact(), constant])


def constant() -> NDArray[np.float64]:
    """Nothing but a constant sensor, and its last bits."""
    return last_bit()[:, 3:]


@pytest.mark.parametrize("residuals", ["z", "mahalanobis"])
@pytest.mark.parametrize(
    "signal", [exact, single, hundredths, tenths, lifted, summed, last_bit, flicker, constant], ids=lambda f: f.__name__
)
def test_rounding_is_no_event(signal: Signal, residuals: Any) -> None:
    """New rows of the same signal are as normal as can be; a sensor that sticks is found."""
    rows = signal()
    detector = SequenceDetector(window=16, residuals=residuals).fit(rows[:LEARNT])

    scores = detector.judge(rows[LEARNT:])

    assert len(scores.events) == 0
    assert np.isfinite(scores.frame["risk"]).all()
    assert scores.frame["p_value"].min() > 0.1
    assert not detector.judge(rows[LEARNT:], policy=Policy(quantile=0.99)).frame["flagged"].any()
    broken = rows[LEARNT:].copy()
    broken[200:220, 0] += 0.5 * max(1.0, np.ptp(rows[:, 0]))
    events = detector.judge(broken).events
    assert len(events) == 1
    assert events["sensors"][0].split(", ")[0] == "x0"
    assert 195 <= events["peak"][0] < 225


@pytest.mark.parametrize("signal", [exact, single, hundredths, lifted, last_bit], ids=lambda f: f.__name__)
def test_rounding_is_no_event_for_all_members(signal: Signal) -> None:
    """Nor for forest and forecast beside the reconstruction."""
    rows = signal()
    detector = SequenceDetector(window=16, members=MEMBERS, trees=20).fit(rows[:LEARNT])

    scores = detector.judge(rows[LEARNT:])

    assert np.isfinite(scores.frame["risk"]).all()
    assert scores.frame["flagged"].mean() < 0.03


def test_a_wrong_state_is_found() -> None:
    """A valve has two states: a step is all its range, and no digit."""
    valve = (np.sin(TIME / 5) > 0).astype(np.float64)
    rows = np.column_stack([noisy(), valve])
    detector = SequenceDetector(window=16).fit(rows[:LEARNT])
    broken = rows[LEARNT:].copy()
    broken[200:220, 3] = 1 - broken[200:220, 3]

    events = detector.judge(broken).events

    found = events.loc[events["risk"].idxmax()]
    assert "x3" in found["sensors"].split(", ")
    assert 195 <= found["peak"] < 225
    assert found["risk"] > 100 * detector.threshold_


def test_noise_is_its_own_measure() -> None:
    """Where there is noise, the resolution is nothing beside it."""
    scaling = SeriesScaling.fit(noisy(), range_floor=0.1, reach=10.0)

    assert scaling.resolution.max() < 1e-4


def test_a_sensor_that_varies_by_its_last_bits_is_constant() -> None:
    """It would be stretched to a range of 1."""
    rows = np.column_stack([exact()[:, 0], 20.0 + BIT * (TIME % 2)])

    scaling = SeriesScaling.fit(rows, range_floor=0.1, reach=10.0)

    assert scaling.moving.tolist() == [True, False]


def test_scaling_of_an_earlier_bundle_knows_no_resolution() -> None:
    """Its residuals count as they did."""
    state = SeriesScaling.fit(exact(), range_floor=0.1, reach=10.0).state()
    del state["resolution"]
    errors = np.random.default_rng(0).normal(size=(5, 3))

    resolution = SeriesScaling.from_state(state).resolution

    assert resolution.tolist() == [0.0, 0.0, 0.0]
    assert (beyond(errors, resolution, signed=True) == errors).all()


def test_resolution_of_numbers() -> None:
    """Of float32 or float64, at the size that is usual; counts are exact; what is missing is passed over."""
    numbers = np.array([0.1, 0.2, 0.3, np.nan])

    assert float_resolution(numbers) == pytest.approx(4 * np.spacing(0.2))
    assert float_resolution(numbers.astype(np.float32).astype(np.float64)) == pytest.approx(4 * 2.0**-26)
    assert float_resolution(np.append(numbers, 1e30)) < 1e-15
    assert float_resolution(np.arange(9.0)) == 0.0
    assert float_resolution(np.array([np.nan])) == 0.0


def test_few_odd_values_do_not_hide_the_step() -> None:
    """As of a source that fills a gap with a mean; where hardly a value comes twice, all count."""
    digits = np.random.default_rng(0).normal(size=1000).round(1)

    assert smallest_step(np.append(digits, [0.1234, 0.777]), 1e-9) == pytest.approx(0.1)
    assert smallest_step(np.random.default_rng(0).random(1000), 1e-9) < 1e-4
    assert smallest_step(np.array([5.0, 5.0, np.nan]), 1e-9) == 0.0


def test_what_is_missing_stays_missing() -> None:
    """A residual that is not known has nothing beyond the resolution, nor below."""
    errors = np.array([[np.nan, 1.0]])

    for signed in (True, False):
        assert np.isnan(beyond(errors, np.array([0.1, 0.1]), signed=signed)).tolist() == [[True, False]]


def test_components_that_are_rounding_are_left_out() -> None:
    """However much of the variance is to be kept; few windows or many."""
    for n in (60, 600):
        rows = (np.array([1.0, 2.0]) + TIME[:n, None] % 2).astype(np.float32)
        laid = LaidWindows.lay(rows, np.zeros(n), 32)

        pca = WindowPCA.fit(laid, laid.whole, variance=1.0)

        assert pca.code == 1
        assert np.linalg.norm(pca.directions, axis=0) == pytest.approx(1.0, abs=1e-5)


def test_risks_that_differ_by_rounding_are_ties() -> None:
    """Equal rows have equal p-values on any processor; threshold and p-value agree."""
    held_out = np.repeat([1.0, 2.0], [95, 5])
    calibrator = Calibrator(held_out, resolution=1e-5)
    risk = np.array([2.0 - 1e-7, 2.0, 2.0 + 1e-7, 2.1])

    p_value = calibrator.p_value(risk)

    assert p_value[:3].tolist() == [6 / 101] * 3
    assert p_value[3] == 1 / 101
    for quantile in (0.9, 0.95, 0.98):
        above = risk > calibrator.threshold(quantile)
        assert above.tolist() == (p_value <= round(1 - quantile, 12)).tolist()
    assert Calibrator.from_state(calibrator.state()).resolution == 1e-5
    assert Calibrator.from_state({"risk": held_out, "tail": np.array("empirical")}).resolution == 0.0


def test_rounding_has_no_tail() -> None:
    """Nothing is extrapolated from what lies above the threshold by its last bits."""
    top = 1.0 + 1e-9 * np.random.default_rng(0).random(1000)

    assert ParetoTail.fit(np.sort(top)) is not None
    assert ParetoTail.fit(np.sort(top), least=RISK_RESOLUTION) is None


def test_a_spread_of_scores_that_is_rounding_is_not_divided_by() -> None:
    """The next row would be a million deviations off."""
    scores = np.float32(3.0) + np.spacing(np.float32(3.0)) * (np.arange(100.0)[:, None] % 2)

    fusion = Fusion.fit(scores, ("a",))

    assert np.abs(fusion.standardise(scores + 1e-6)).max() < 1e-5


@pytest.mark.parametrize("k", [1, 3])
def test_equal_rows_lie_on_each_other(k: int) -> None:
    """The difference of large products is no distance; rows apart keep theirs."""
    rows = np.repeat(np.random.default_rng(0).normal(size=(50, 6)).astype(np.float32) * 30, 3, axis=0)
    references = References.fit(rows, k=k)
    apart = rows + np.float32(1.0)

    assert not references.score(rows).any()
    assert references.score(apart) == pytest.approx(np.sqrt(6.0), rel=0.01)


def test_known_rows_that_are_equal_lie_on_each_other() -> None:
    """All score alike, in the graph too; rows apart from them higher."""
    rows = np.repeat(np.random.default_rng(0).normal(size=(50, 6)).astype(np.float32) * 30, 3, axis=0)
    known = KnownRows.fit(rows, rows, np.arange(len(rows)), contracted=100)
    graph = joined({"known": graph_of(known)})

    on, off = (graph.run({"far": each, "space": each})["neighbours"] for each in (rows, rows + np.float32(1.0)))

    assert np.ptp(on) == 0
    assert known.score(rows, rows)[:, 0] == pytest.approx(on[:, 0], abs=1e-6)
    assert (off > on.max()).all()


def test_a_column_that_varies_by_its_last_bits_is_always_the_same() -> None:
    """With gaps it is of use for these alone, and its values count as equal."""
    column = pd.Series(np.where(TIME % 3 == 0, 20.0 + BIT, 20.0))
    gaps = column.mask(TIME % 5 == 0)
    ramp = np.linspace(0.0, 1.0, STEPS)

    found = location_and_scale(np.column_stack([gaps, np.append(ramp[1:], 1e30)]), np.full(STEPS, True))[1]

    assert useless(column) == "always 20"
    assert useless(column + 1e-3 * (TIME % 2)) is None
    assert useless(gaps) is None
    assert found[0] == 1.0
    assert 0.1 < found[1] < 1.0


def test_a_channel_of_events_that_never_varies_keeps_its_unit() -> None:
    """The mean of equal logarithms is off by their last bits."""
    frame = pd.DataFrame({"before": np.full(997, 1.7), "now": np.full(997, 1.7)})

    window = EventWindow.fit(frame, Steps((Channel(("before", "now")),)))

    assert window.scale == (1.0,)


def test_an_encoders_constant_column_keeps_its_unit() -> None:
    """In float32 too."""
    values = (20.0 + BIT * (TIME % 2)).astype(np.float32)[:, None]

    assert Scaling.fit(values, 1).scale.tolist() == [1.0]


def table(kind: str) -> pd.DataFrame:
    """Columns that follow from each other exactly, and one more."""
    rng = np.random.default_rng(0)
    a, d = rng.normal(size=STEPS), rng.normal(size=STEPS)
    if kind == "integers":
        a = rng.integers(0, 4, STEPS).astype(np.float64)
        d = rng.integers(0, 3, STEPS).astype(np.float64)
    rows = pd.DataFrame({"a": a, "b": 2 * a, "c": a + d, "d": d})
    if kind == "last bits":
        rows["bit"] = 20.0
        rows.loc[[5, *range(LEARNT, STEPS, 3)], "bit"] += BIT
    if kind == "last digit":
        rows["bit"] = np.where(rng.random(STEPS) < 0.02, 20.1, 20.0)
    return rows


@pytest.mark.parametrize("members", [("forest", "neighbours"), ("autoencoder", "forest", "neighbours")])
@pytest.mark.parametrize("kind", ["numbers", "integers", "last bits", "last digit"])
def test_exact_dependencies_of_a_table_are_no_flood(kind: str, members: tuple[str, ...]) -> None:
    """Held-out rows are flagged about as often as declared; a row that breaks the dependency is found."""
    rows = table(kind)
    training = TableAutoencoder(training=Training(epochs=10))
    detector = TabularDetector(members=members, trees=50, autoencoder=training).fit(rows[:LEARNT])
    fresh, broken = rows[LEARNT:], rows[LEARNT : LEARNT + 20].copy()
    broken["b"] += 5.0

    p_value, found = detector.p_value(fresh), detector.p_value(broken)

    assert np.isfinite(detector.risk(fresh)).all()
    assert (p_value <= 0.01).mean() < 0.04
    assert (found <= 0.01).mean() > 0.8
