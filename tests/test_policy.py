import datetime as dt
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from detector.decide.calibrate import Calibrator
from detector.decide.fdr import Totals, discoveries
from detector.decide.numbers import row_of_numbers
from detector.decide.policy import Budget, Policy
from detector.decide.severity import severity
from detector.decide.support import Support
from detector.errors import DataError, SettingError, ShapeError

P_VALUES = arrays(np.float64, st.integers(0, 30), elements=st.sampled_from([0.001, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0]))


def _step_up(p_value: np.ndarray, fdr: float) -> list[bool]:
    """Benjamini and Hochberg as in the paper: the largest k whose k-th p-value is at most k / m times fdr."""
    m, best = len(p_value), -1.0
    for k, p in enumerate(sorted(p_value), start=1):
        if p * m <= fdr * k:
            best = p
    return [p <= best for p in p_value]


@settings(max_examples=200, deadline=None)
@given(p_value=P_VALUES, fdr=st.sampled_from([0.01, 0.05, 0.1, 0.2, 0.5]))
def test_discoveries_follow_the_paper(p_value: np.ndarray, fdr: float) -> None:
    """The fast rule flags what the obvious one does."""
    assert discoveries(p_value, fdr).tolist() == _step_up(p_value, fdr)


@pytest.mark.parametrize("seed", range(5))
def test_discoveries_agree_with_scipy(seed: int) -> None:
    """So does SciPy."""
    p_value = np.random.default_rng(seed).beta(0.4, 1.0, size=500)

    expected = stats.false_discovery_control(p_value) <= 0.1

    assert expected.any()
    assert np.array_equal(discoveries(p_value, 0.1), expected)


def test_fdr_flags_next_to_nothing_on_normal_batches() -> None:
    """Where nothing is wrong, at most one batch in ten has a flag at a rate of 10 %."""
    rng = np.random.default_rng(0)
    flags = []
    for _ in range(300):
        calibrator = Calibrator(rng.normal(size=1000))
        risk = rng.normal(size=500)
        flags.append(Policy(fdr=0.1).decide(calibrator.p_value(risk), risk).sum())

    assert np.mean(np.array(flags) > 0) < 0.1 + 3 * np.sqrt(0.1 * 0.9 / 300)
    assert np.mean(flags) < 1.0


def test_fdr_keeps_its_promise_with_anomalies() -> None:
    """Of what is flagged, at most a tenth is normal on average, and most anomalies are found."""
    rng = np.random.default_rng(0)
    false_share, found = [], []
    for _ in range(100):
        calibrator = Calibrator(rng.normal(size=2000))
        risk = np.r_[rng.normal(size=950), rng.normal(5.0, size=50)]
        flagged = Policy(fdr=0.1).decide(calibrator.p_value(risk), risk)
        false_share.append(flagged[:950].sum() / max(1, flagged.sum()))
        found.append(flagged[950:].mean())

    assert np.mean(false_share) < 0.1 + 3 * np.std(false_share) / 10
    assert np.mean(found) > 0.8


def test_quantile_flags_its_share_exactly() -> None:
    """0.9 flags p-values up to and including a tenth, although 1 - 0.9 is less than that in floats."""
    p_value = np.array([0.05, 0.1, 0.11])

    assert Policy(quantile=0.9).decide(p_value, -p_value).tolist() == [True, True, False]


def test_budget_takes_the_riskiest() -> None:
    """Without another rule a budget is spent in full, the earlier of equals first."""
    risk = np.array([1.0, 3.0, 2.0, 3.0, 2.0])

    flags = [Policy(budget=Budget(rows=n)).decide(np.ones(5), risk).nonzero()[0].tolist() for n in (1, 2, 3, 9)]

    assert flags == [[1], [1, 3], [1, 2, 3], [0, 1, 2, 3, 4]]


DAYS = pd.to_datetime(["2024-01-02 23:59", "2024-01-01 00:00", "2024-01-02 00:00", "2024-01-01 12:00", None, None])


@pytest.mark.parametrize(
    "day",
    [
        DAYS,
        DAYS.to_series(index=range(6, 12)),
        DAYS.to_numpy(),
        DAYS.tz_localize("UTC"),
        pd.Series(DAYS.tz_localize("Europe/Berlin")),
        DAYS.normalize(),
        ["b", "a", "b", "a", None, None],
        np.array([2.0, 1.0, 2.0, 1.0, np.nan, np.nan]),
        [dt.date(2024, 1, 2), dt.date(2024, 1, 1), dt.date(2024, 1, 2), dt.date(2024, 1, 1), None, None],
    ],
)
def test_budget_is_spent_each_day(day: Any) -> None:
    """Each day has its own budget, whatever a day is given as; rows without a day share one."""
    risk = np.array([1.0, 5.0, 2.0, 6.0, 0.0, 0.1])

    flagged = Policy(budget=Budget(rows=1, per="day")).decide(np.ones(6), risk, day=day)

    assert flagged.tolist() == [False, False, True, True, False, True]


@settings(max_examples=200, deadline=None)
@given(data=st.data(), p_value=P_VALUES, rows=st.integers(1, 5))
def test_policy_flags_what_every_rule_allows(data: st.DataObject, p_value: np.ndarray, rows: int) -> None:
    """Floors first, then the cap: never more than the budget a day, and no riskier candidate left out."""
    risk = data.draw(arrays(np.float64, len(p_value), elements=st.sampled_from([0.0, 1.0, 2.0, 3.0])))
    day = data.draw(arrays(np.int64, len(p_value), elements=st.integers(0, 2)))

    flagged = Policy(quantile=0.95, fdr=0.2, budget=Budget(rows, "day")).decide(p_value, risk, day=day)

    passing = (p_value <= 0.05) & np.array(_step_up(p_value, 0.2), dtype=bool)
    assert not (flagged & ~passing).any()
    for today in set(day):
        chosen, left = flagged & (day == today), passing & ~flagged & (day == today)
        assert chosen.sum() == min(rows, (passing & (day == today)).sum())
        for i in left.nonzero()[0]:
            assert all(risk[j] > risk[i] or (risk[j] == risk[i] and j < i) for j in chosen.nonzero()[0])


RULES = [
    Policy(quantile=0.9),
    Policy(budget=Budget(rows=3)),
    Policy(budget=Budget(rows=2, per="day")),
    Policy(quantile=0.95, budget=Budget(rows=1, per="day")),
    Policy(fdr=0.1),
    Policy(fdr=0.3, budget=Budget(rows=2)),
    Policy(quantile=0.99, fdr=0.2),
    Policy(quantile=0.98, fdr=0.4, budget=Budget(rows=1, per="day")),
]
SUPPORTS = [
    None,
    Support(rows=5, smallest=1 / 6),
    Support(rows=300, smallest=1 / 301),
    Support(rows=99, smallest=1 / 100, stands_out=0.6),
]


@pytest.mark.parametrize("policy", RULES, ids=repr)
@settings(max_examples=60, deadline=None)
@given(data=st.data(), p_value=P_VALUES, cut=st.integers(1, 9), support=st.sampled_from(SUPPORTS))
def test_parts_and_totals_decide_as_the_whole_batch(
    data: st.DataObject, policy: Policy, p_value: np.ndarray, cut: int, support: Support | None
) -> None:
    """What ``deciding`` keeps of each part, and two numbers of the whole, flag the rows that all rows would.

    The same notes, too; and whatever is flagged was a candidate of its part.
    """
    n_rows = len(p_value)
    risk = np.array(data.draw(st.lists(st.sampled_from([0.0, 0.5, 1.0, 2.0]), min_size=n_rows, max_size=n_rows)))
    day = np.datetime64("2026-03-01") + np.array(
        data.draw(st.lists(st.integers(0, 2), min_size=n_rows, max_size=n_rows)), dtype=int
    )
    parts = np.split(np.arange(n_rows), range(cut, n_rows, cut))

    whole = policy.decision(p_value, risk, day=day, support=support)

    needed = [part[policy.deciding(p_value[part], risk[part], day=day[part], support=support)] for part in parts]
    possible = [part[policy.candidates(p_value[part], risk[part], day=day[part], support=support)] for part in parts]
    kept = np.concatenate(needed)
    decided = policy.decision(p_value[kept], risk[kept], day=day[kept], support=support, totals=Totals.of(p_value))
    assert kept[decided.flagged].tolist() == np.flatnonzero(whole.flagged).tolist()
    assert (decided.note, decided.promised) == (whole.note, whole.promised)
    assert set(np.flatnonzero(whole.flagged)) <= set(np.concatenate(possible))


def test_policy_can_leave_a_quiet_day_alone() -> None:
    """A budget is a cap, not a quota, where a floor is given as well."""
    p_value = np.array([0.3, 0.7])

    assert not Policy(fdr=0.1, budget=Budget(50)).decide(p_value, -p_value).any()


def test_decide_takes_an_empty_batch() -> None:
    """No rows, no flags."""
    policy = Policy(quantile=0.9, fdr=0.1, budget=Budget(1, "day"))

    assert policy.decide([], [], day=[]).tolist() == []


@pytest.mark.parametrize(
    ("policy", "needs"),
    [(Policy(fdr=0.1), False), (Policy(budget=Budget(1)), False), (Policy(budget=Budget(1, "day")), True)],
)
def test_policy_knows_whether_it_needs_days(policy: Policy, needs: bool) -> None:
    """Only a budget per day does."""
    assert policy.needs_day is needs


def test_describe_says_every_rule() -> None:
    """The words name each number."""
    policy = Policy(quantile=0.999, budget=Budget(rows=1000), fdr=0.05)

    assert policy.describe() == (
        "rows riskier than 99.9 % of held-out normal rows; "
        "on average at most 5 % of the flagged rows normal; "
        "at most 1,000 a batch, the riskiest first"
    )


@pytest.mark.parametrize(
    ("policy", "n_batch", "n_calibration", "note"),
    [
        (Policy(fdr=0.1), 10_000, 4_000, "unless at least 25 of 10,000 rows are riskier than all of them."),
        (Policy(fdr=0.1), 100, 1_000, None),
        (Policy(fdr=0.1), 10, 8, "can flag nothing. Calibrate on at least 9 rows."),
        (Policy(quantile=0.99), 10, 98, "no row can pass the quantile 0.99. Calibrate on at least 99 rows."),
        (Policy(quantile=0.99), 10, 99, None),
        (Policy(budget=Budget(5)), 10_000, 1, None),
    ],
)
def test_power_note_tells_when_nothing_can_be_flagged(
    policy: Policy, n_batch: int, n_calibration: int, note: str | None
) -> None:
    """A rule without power is announced; one with power is not."""
    said = policy.power_note(n_batch, n_calibration)

    assert said is None if note is None else said is not None and said.endswith(note)


@pytest.mark.parametrize(("n_batch", "n_calibration", "fdr"), [(1000, 99, 0.1), (500, 49, 0.3), (40, 200, 0.05)])
def test_power_note_counts_rightly(n_batch: int, n_calibration: int, fdr: float) -> None:
    """With as many rows as the note says all are flagged, with one fewer none."""
    policy, calibrator = Policy(fdr=fdr), Calibrator(np.zeros(n_calibration))
    said = policy.power_note(n_batch, n_calibration)
    assert said is not None
    together = int(said.split("at least ")[1].split(" of")[0])

    for extreme, flags in ((together, together), (together - 1, 0)):
        risk = np.r_[np.ones(extreme), np.full(n_batch - extreme, -1.0)]
        assert policy.decide(calibrator.p_value(risk), risk).sum() == flags


def test_power_note_needs_as_many_rows_as_it_says() -> None:
    """The number of rows the quantile asks for is enough, and one fewer is not."""
    assert Calibrator(np.arange(99.0)).threshold(0.99) < np.inf
    assert Calibrator(np.arange(98.0)).threshold(0.99) == np.inf


@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        ((1e-3, 1e-4, 1e-5), ["low", "low", "medium", "high", "critical", ""]),
        ((0.5, 0.01, 0.001), ["medium", "high", "critical", "critical", "critical", ""]),
    ],
)
def test_severity_follows_the_p_value(levels: Any, expected: list[str]) -> None:
    """Each level is reached at its p-value; a row that is not flagged has none."""
    p_value = np.array([0.2, 0.01, 1e-3, 1e-4, 1e-6, 1e-6])
    flagged = np.array([True] * 5 + [False])

    assert severity(p_value, flagged, levels=levels).tolist() == expected


@pytest.mark.parametrize("levels", [(1e-4, 1e-3, 1e-5), (1e-3, 1e-4), (1.0, 0.1, 0.01), (0.1, 0.01, 0.0)])
def test_severity_refuses_levels_out_of_order(levels: Any) -> None:
    """Worse must be rarer."""
    with pytest.raises(SettingError, match="levels must be three falling numbers between 1 and 0"):
        severity(np.array([0.1]), np.array([True]), levels=levels)


def test_severity_refuses_arrays_that_do_not_match() -> None:
    """One flag belongs to each p-value."""
    with pytest.raises(ShapeError, match="expected one flag per p-value"):
        severity(np.array([0.1, 0.2]), np.array([True]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "A policy needs a rule. Give quantile, budget or fdr"),
        ({"quantile": 99}, "quantile must lie between 0 and 1"),
        ({"quantile": 0.0}, "quantile must lie between 0 and 1"),
        ({"fdr": 1.0}, "fdr must lie between 0 and 1"),
        ({"fdr": "0.1"}, "fdr must lie between 0 and 1.*Received: fdr='0.1'"),
        ({"budget": 50}, r"budget must be a Budget, such as Budget\(rows=50\). Received: 50"),
    ],
)
def test_policy_refuses_settings_without_meaning(arguments: dict[str, Any], message: str) -> None:
    """A rule that could never or always flag is a mistake."""
    with pytest.raises(SettingError, match=message):
        Policy(**arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rows": 0}, "budget.rows must be a positive integer. Received: rows=0"),
        ({"rows": 1.5}, "budget.rows must be a positive integer"),
        ({"rows": True}, "budget.rows must be a positive integer"),
        ({"rows": 5, "per": "week"}, "budget.per must be 'batch' or 'day'. Received: per='week'"),
    ],
)
def test_budget_refuses_settings_without_meaning(arguments: dict[str, Any], message: str) -> None:
    """A budget is a number of rows in a batch or a day."""
    with pytest.raises(SettingError, match=message):
        Budget(**arguments)


@pytest.mark.parametrize(
    ("p_value", "risk", "day", "error", "message"),
    [
        ([0.1], [1.0, 2.0], None, ShapeError, "expected one risk per p-value, got 2 for 1"),
        ([[0.1]], [1.0], None, ShapeError, "p_value must have one number per row"),
        (["x"], [1.0], None, ShapeError, "p_value must be an array of numbers"),
        ([np.nan], [1.0], None, DataError, "decide got NaN"),
        ([0.1], [np.nan], None, DataError, "decide got NaN"),
        ([0.1], [1.0], None, SettingError, "budget per day needs each row's day"),
        ([0.1], [1.0], ["a", "b"], ShapeError, r"one day for each of 1 rows, got shape \(2,\)"),
    ],
)
def test_decide_refuses(p_value: Any, risk: Any, day: Any, error: type[Exception], message: str) -> None:
    """Arrays that do not belong together are named."""
    with pytest.raises(error, match=message):
        Policy(budget=Budget(1, "day")).decide(p_value, risk, day=day)


def test_row_of_numbers_takes_a_series() -> None:
    """A column of a frame is as good as an array."""
    assert row_of_numbers(pd.Series([1, 2]), "risk").tolist() == [1.0, 2.0]
