"""The null: p-values that keep their promise, a tail beyond calibration rows, contamination taken out on evidence."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from scipy.stats import kstest

from detector.decide.calibrate import Calibrator
from detector.decide.contamination import find_contamination
from detector.decide.fdr import Totals, discoveries
from detector.decide.numbers import level
from detector.decide.policy import Budget, Policy
from detector.decide.support import Support
from detector.decide.tails import BeyondLargest
from detector.detectors.table.detector import TabularDetector

SEEDS = range(50)
Draw = Callable[[np.random.Generator, int], np.ndarray]
LAWS: dict[str, Draw] = {
    "normal": lambda rng, n: rng.normal(size=n),
    "heavy": lambda rng, n: rng.standard_t(2, size=n),
    "log of heavy": lambda rng, n: np.log(np.abs(rng.standard_cauchy(n)) + 1e-3),
    "bounded": lambda rng, n: rng.uniform(size=n),
    "two groups": lambda rng, n: rng.normal(size=n) + 6 * (rng.uniform(size=n) < 0.01),
}


def learn(risk: np.ndarray) -> Calibrator:
    """As a detector for tables does."""
    return Calibrator.learn(risk, resolution=1e-5)


@pytest.mark.parametrize("law", LAWS)
def test_p_values_of_exchangeable_rows_are_uniform(law: str) -> None:
    """Kolmogorov and Smirnov find nothing over 50 seeds, whatever the distribution."""
    draw, found = LAWS[law], []
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        found.append(learn(draw(rng, 1000)).p_value(draw(rng, 20)))

    assert kstest(np.concatenate(found), "uniform").pvalue > 0.01


def test_p_values_of_a_detector_are_uniform() -> None:
    """The same for new rows of a fitted detector, from their values to their p-values."""
    found = []
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        rows = pd.DataFrame(rng.standard_t(3, size=(330, 3)), columns=list("abc"))
        detector = TabularDetector(members=("neighbours",), trees=10, random_state=seed, calibration_share=0.5)
        found.append(detector.fit(rows[:300]).p_value(rows[300:]))

    assert kstest(np.concatenate(found), "uniform").pvalue > 0.01


@pytest.mark.parametrize("levels", [2, 10])
def test_ties_never_make_a_row_look_rarer_than_it_is(levels: int) -> None:
    """Of discrete risks no more than a share t has a p-value of at most t."""
    found = []
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        found.append(learn(rng.integers(levels, size=500).astype(float)).p_value(rng.integers(levels, size=200)))
    p_value = np.concatenate(found)

    for share in (0.01, 0.1, 0.3, 0.5):
        assert (p_value <= share).mean() <= share + 0.01


@pytest.mark.parametrize("law", LAWS)
def test_tail_beyond_the_largest_is_not_too_light(law: str) -> None:
    """Of the normal rows that lie beyond all calibration rows, about a tenth or less get a tenth of 1 / (n + 1)."""
    draw, beyond, far = LAWS[law], 0, 0
    for seed in range(400):
        rng = np.random.default_rng(seed)
        calibrator = Calibrator(draw(rng, 200), tail="extrapolated")
        p_value = calibrator.p_value(draw(rng, 200)) * (calibrator.size + 1)
        beyond += int((p_value < 1).sum())
        far += int((p_value <= 0.1).sum())

    assert beyond == pytest.approx(400, rel=0.25)
    assert far <= 0.13 * beyond


def test_tail_goes_on_where_the_calibration_rows_end() -> None:
    """Up to the riskiest row p-values are conformal; beyond it they fall with the risk, to a hundredth at most."""
    calibrator = Calibrator(np.random.default_rng(0).exponential(size=999), tail="extrapolated")
    largest = calibrator.risk[-1]

    inside = np.linspace(0, largest, 500)
    assert np.array_equal(calibrator.p_value(inside), calibrator.p_value(inside, tail="empirical"))
    outside = calibrator.p_value(largest + np.array([1e-9, 1.0, 10.0, 1e9, np.inf]))
    assert outside[0] == pytest.approx(1e-3)
    assert (np.diff(outside) <= 0).all()
    assert outside[1] < 1e-3
    assert outside[-1] == calibrator.smallest == pytest.approx(1e-5)


@pytest.mark.parametrize("quantile", [0.9, 0.9995, 0.9999])
def test_threshold_is_where_the_p_value_is_that_of_the_quantile(quantile: float) -> None:
    """Also beyond the calibration rows."""
    calibrator = Calibrator(np.random.default_rng(0).exponential(size=999), tail="extrapolated")

    edge = calibrator.threshold(quantile)

    below, above = calibrator.p_value([edge - 1e-6, edge + 1e-6])
    assert above <= level(quantile) < below


@pytest.mark.parametrize("risk", [np.zeros(100), np.r_[np.zeros(99), 1.0], np.array([1.0]), np.array([1.0, 2.0])])
def test_tail_needs_risks_that_differ(risk: np.ndarray) -> None:
    """Where the bulk has no width, nothing says what far is: the least p-value stays 1 / (n + 1)."""
    calibrator = learn(risk)

    assert BeyondLargest.fit(calibrator.risk) is None
    assert calibrator.p_value([1e9]).item() == calibrator.smallest == 1 / (len(risk) + 1)


@pytest.mark.parametrize("law", ["normal", "heavy", "log of heavy", "bounded"])
def test_honest_tails_are_not_cut(law: str) -> None:
    """Without a group apart no row is taken out, however heavy the tail."""
    for seed in SEEDS:
        assert not find_contamination(LAWS[law](np.random.default_rng(seed), 3000)).apart.any()


@pytest.mark.parametrize("levels", [3, 30])
def test_steps_between_levels_are_no_gaps(levels: int) -> None:
    """A risk that takes few values has gaps between all of them."""
    for seed in SEEDS:
        risk = np.random.default_rng(seed).geometric(0.5, size=3000).clip(max=levels).astype(float)
        assert not find_contamination(risk).apart.any()


def planted(rows: int = 9900, outliers: int = 100, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Risks, of which the last are far out."""
    rng = np.random.default_rng(seed)
    return np.r_[rng.normal(size=rows), rng.normal(30, 3, outliers)], np.arange(rows + outliers) >= rows


def test_blatant_outliers_among_the_calibration_rows_do_not_hide_each_other() -> None:
    """Hundred among ten thousand: all are flagged, and no more than a tenth of the flags is wrong."""
    risk, outlier = planted()

    calibrator = learn(risk)
    flagged = Policy(fdr=0.1).decide(calibrator.p_value(risk), risk, support=calibrator.support)

    assert calibrator.trimmed == 100
    assert flagged[outlier].sum() >= 95
    assert flagged[~outlier].sum() <= 12


def test_group_apart_in_another_view_is_taken_out_too() -> None:
    """Outliers that resemble each other are no news to each other, but far from the bulk."""
    risk, outlier = planted()
    mixed = np.random.default_rng(1).normal(size=len(risk)) + outlier

    assert not find_contamination(mixed).apart.any()
    assert np.array_equal(find_contamination(mixed, [risk]).apart, outlier)


def test_few_rows_apart_are_flagged_without_a_promise() -> None:
    """Ten in a thousand are too few to be taken out; a rate flags none of them, and the fallback says what it is."""
    risk, outlier = planted(990, 10)
    calibrator = learn(risk)

    decision = Policy(fdr=0.001).decision(calibrator.p_value(risk), risk, support=calibrator.support)

    assert calibrator.trimmed == 0
    assert np.array_equal(decision.flagged, outlier)
    assert not decision.promised
    assert "Flagged without a promise: rows as far from all others as a small group" in str(decision.note)


def test_twice_the_rate_is_flagged_without_a_promise_where_the_rate_flags_nothing() -> None:
    """As risky as forty rows are four that calibrate: a tenth of the forty may be wrong, not a twentieth."""
    calibrator = learn(np.r_[np.random.default_rng(0).normal(size=4996), np.linspace(6, 6.3, 4)])
    risk = np.r_[np.random.default_rng(1).normal(size=4960), np.full(40, 6.1)]
    p_value = calibrator.p_value(risk)

    decision = Policy(fdr=0.05).decision(p_value, risk, support=calibrator.support)

    assert not discoveries(p_value, 0.05).any()
    assert np.array_equal(np.flatnonzero(decision.flagged), np.arange(4960, 5000))
    assert not decision.promised
    assert str(decision.note) == (
        "A false discovery rate of 5 % flags nothing. Flagged without a promise: rows that a rate of 10 % flags."
    )
    assert Policy(fdr=0.05).candidates(p_value, risk, support=calibrator.support)[4960:].all()


def test_trimmed_rows_make_a_rate_conditional() -> None:
    """That the rows taken out are anomalies is not known, and is said."""
    calibrator = learn(planted()[0])
    assert calibrator.support is not None

    why = calibrator.support.why_not(0.1)

    assert "100 lie apart from all others and count as anomalies" in str(why)
    assert calibrator.support.facts()["calibration_trimmed"] == 100


@pytest.mark.parametrize(("learnt", "promised"), [(0.0, True), (0.4, True), (0.6, False)])
def test_no_rate_is_promised_for_rows_that_were_learnt_from(learnt: float, promised: bool) -> None:
    """Anomalies among them are part of what counts as normal."""
    calibrator = learn(np.random.default_rng(0).normal(size=500))
    risk = np.r_[calibrator.risk, np.full(50, 99.0)]

    decision = Policy(fdr=0.1).decision(calibrator.p_value(risk), risk, support=calibrator.support, learnt=learnt)

    assert decision.flagged[-50:].all()
    assert decision.promised is promised is (decision.note is None)


def test_planted_anomalies_are_found_at_the_rate() -> None:
    """Over 50 seeds all but a few are flagged, and at most a tenth of the flags is wrong on average."""
    proportions, found = [], []
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        calibrator, risk = learn(rng.normal(size=500)), np.r_[rng.normal(size=450), rng.normal(5, 1, 50)]
        flagged = Policy(fdr=0.1).decide(calibrator.p_value(risk), risk, support=calibrator.support)
        proportions.append(flagged[:450].sum() / max(1, flagged.sum()))
        found.append(flagged[450:].mean())

    assert np.mean(proportions) <= 0.1
    assert np.mean(found) > 0.9


def test_rate_is_of_the_rows_that_can_be_normal() -> None:
    """Where half of the rows are anomalies, twice as many may be let through as if all were normal."""
    rng = np.random.default_rng(0)
    calibrator, risk = learn(rng.normal(size=2000)), np.r_[rng.normal(size=500), rng.normal(2.5, 1, 500)]
    p_value = calibrator.p_value(risk)

    assert Totals.of(p_value).share_of_normal_rows == pytest.approx(0.5, abs=0.06)
    plain, adaptive = (Policy(fdr=0.1).decide(p_value, risk, support=each) for each in (None, calibrator.support))
    assert adaptive.sum() > 1.1 * plain.sum()
    assert adaptive[:500].sum() / adaptive.sum() < 0.13


@pytest.mark.parametrize("policy", [Policy(fdr=0.01), Policy(fdr=0.01, budget=Budget(3))])
def test_candidates_hold_whatever_a_fallback_flags(policy: Policy) -> None:
    """Rows of a part of a batch are kept for their reasons if anything may flag them."""
    support = Support(rows=20, smallest=1 / 21, stands_out=5.0)
    risk = np.r_[np.zeros(30), np.full(4, 9.0)]
    p_value = np.r_[np.ones(30), np.full(4, 1 / 21)]

    decision = policy.decision(p_value, risk, support=support)

    assert decision.flagged.any()
    assert not decision.promised
    assert not (decision.flagged & ~policy.candidates(p_value, risk, support=support)).any()


def test_calibration_survives_saving() -> None:
    """What was taken out, and what stands out, is known after loading; the p-values are the same."""
    for risk in (planted()[0], planted(990, 10)[0]):
        calibrator = learn(risk)
        again = Calibrator.from_state(calibrator.state())

        assert again.support == calibrator.support
        assert np.array_equal(again.p_value([0.0, 5.0, 50.0]), calibrator.p_value([0.0, 5.0, 50.0]))


def test_other_tails_take_nothing_out() -> None:
    """Whoever asks for empirical p-values gets those of all rows, and no fallback."""
    calibrator = Calibrator.learn(planted()[0], tail="empirical")

    assert (calibrator.size, calibrator.trimmed, calibrator.support) == (10_000, 0, None)
