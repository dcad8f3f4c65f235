"""Residuals become z-scores or a distance, against residuals of rows not learnt from."""

from __future__ import annotations

import numpy as np
import pytest

from detector.members.residuals import ResidualRule

EVERY = np.full((500, 2), True)
KNOWN = np.full(2, True)


def test_z_scores_are_those_of_the_sensor() -> None:
    """A residual as large as usual adds nothing; one so many deviations larger adds as many, shared by the sensors."""
    errors = np.random.default_rng(0).normal(5.0, 1.0, (500, 2)) * [1, 10]
    rule = ResidualRule.fit(errors, EVERY, kind="z", known=KNOWN, floor=0.05, cap=100.0)

    parts = rule.parts(np.array([[5.0, 50.0], [8.0, 50.0]]), EVERY[:2])

    assert parts == pytest.approx(np.array([[0.0, 0.0], [1.5, 0.0]]), abs=0.1)


def test_one_sensor_cannot_drown_the_others() -> None:
    """A z-score is cut, and never divides by almost nothing."""
    rule = ResidualRule.fit(np.zeros((500, 2)), EVERY, kind="z", known=KNOWN, floor=0.1, cap=50.0)

    parts = rule.parts(np.array([[1e9, 0.02]]), EVERY[:1])

    assert parts == pytest.approx(np.array([[25.0, 1.0]]))


@pytest.mark.parametrize("kind", ["z", "mahalanobis"])
def test_what_was_not_read_is_not_scored(kind: str) -> None:
    """Nor is a sensor that is not known."""
    errors = np.random.default_rng(0).normal(size=(500, 2))
    rule = ResidualRule.fit(errors, EVERY, kind=kind, known=np.array([True, False]), floor=0.05, cap=100.0)  # type: ignore[arg-type]

    parts = rule.parts(np.array([[9.0, 9.0], [9.0, 9.0]]), np.array([[True, True], [False, True]]))

    assert parts[0, 0] > 1
    assert not parts[1].any()
    assert not parts[:, 1].any()


def test_the_distance_finds_sensors_that_no_longer_go_together() -> None:
    """Residuals that go together in training are no news together, and great news apart."""
    rng = np.random.default_rng(0)
    shared = rng.normal(size=(500, 1))
    errors = shared + 0.1 * rng.normal(size=(500, 2))
    rule = ResidualRule.fit(errors, EVERY, kind="mahalanobis", known=KNOWN, floor=0.05, cap=1e6)

    together, apart = rule.parts(np.array([[1.5, 1.5], [1.5, -1.5]]), EVERY[:2]).sum(axis=1)

    assert apart > 20 * together
    assert rule.parts(errors, EVERY).sum(axis=1).mean() == pytest.approx(1, abs=0.2)


def test_the_distance_of_a_row_is_cut() -> None:
    """And what each sensor has to do with it is cut alike."""
    errors = np.random.default_rng(0).normal(size=(500, 2))
    rule = ResidualRule.fit(errors, EVERY, kind="mahalanobis", known=KNOWN, floor=0.05, cap=10.0)

    parts = rule.parts(np.array([[1e5, 1.0]]), EVERY[:1])

    assert parts.sum() == pytest.approx(10)
    assert parts[0, 0] > 9.9


def test_rules_survive_a_round_trip() -> None:
    """With and without a precision."""
    errors = np.random.default_rng(0).normal(size=(500, 2))
    for kind in ("z", "mahalanobis"):
        rule = ResidualRule.fit(errors, EVERY, kind=kind, known=KNOWN, floor=0.05, cap=10.0)  # type: ignore[arg-type]

        assert (ResidualRule.from_state(rule.state()).parts(errors, EVERY) == rule.parts(errors, EVERY)).all()
