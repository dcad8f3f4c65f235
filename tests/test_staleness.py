import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from detector.errors import SettingError, ShapeError
from detector.series.staleness import StalenessRule, measure_staleness

OBSERVED = hnp.arrays(bool, st.tuples(st.integers(1, 30), st.integers(1, 3)))


def _codes(observed: np.ndarray, where: float) -> np.ndarray:
    """Two series, the second from about ``where`` on."""
    return (np.arange(len(observed)) >= where * len(observed)).astype(np.int64)


@given(OBSERVED, st.floats(0, 1))
def test_silence_counts_as_one_would(observed: np.ndarray, where: float) -> None:
    """Row by row: back to nought at a reading, one more without, from the start for each series."""
    codes = _codes(observed, where)
    expected = np.zeros(observed.shape, dtype=np.int64)
    for row in range(len(observed)):
        for sensor in range(observed.shape[1]):
            before = expected[row - 1, sensor] if row and codes[row] == codes[row - 1] else 0
            expected[row, sensor] = 0 if observed[row, sensor] else before + 1

    np.testing.assert_array_equal(measure_staleness(observed, codes), expected)


@given(OBSERVED, st.floats(0, 1))
def test_limit_is_the_longest_silence_between_readings(observed: np.ndarray, where: float) -> None:
    """At quantile 1 and factor 1 the limit can be read off: the longest run of zeros between ones, in any series."""
    codes = _codes(observed, where)
    expected: list[int | None] = []
    for sensor in range(observed.shape[1]):
        text = ["".join("01"[int(read)] for read in observed[codes == code, sensor]) for code in (0, 1)]
        runs = [len(run) for own in text for run in re.findall("(?<=1)0+(?=1)", own)]
        expected.append(max([1, *runs]) if any("1" in own for own in text) else None)

    rule = StalenessRule.learn(observed, codes, quantile=1.0, factor=1.0, least=1)

    assert list(rule.limits) == expected


def test_sensor_that_dies_is_flagged_and_its_rhythm_is_not() -> None:
    """A sensor that reads every tenth step may be silent for nine; one that reads at each step may not."""
    training = np.ones((100, 2), dtype=bool)
    training[:, 1] = np.arange(100) % 10 == 0
    rule = StalenessRule.learn(training, np.zeros(100, dtype=np.int64))
    fresh = training.copy()
    fresh[50:, 0] = False

    flags = rule.beyond(measure_staleness(fresh, np.zeros(100, dtype=np.int64)))

    assert rule.limits == (3, 18)
    assert np.flatnonzero(flags[:, 0])[0] == 53
    assert not flags[:, 1].any()


def test_sensor_that_died_in_training_does_not_teach_it() -> None:
    """A silence without an end is no rhythm."""
    observed = np.ones((100, 1), dtype=bool)
    observed[20:] = False

    assert StalenessRule.learn(observed, np.zeros(100, dtype=np.int64)).limits == (3,)


def test_never_read_is_not_beyond() -> None:
    """NaN stands for a sensor that never read; what is known of it is nothing."""
    assert StalenessRule((3,)).beyond(np.array([[np.nan], [9.0]])).tolist() == [[False], [True]]


def test_silence_refuses_arrays_that_do_not_fit() -> None:
    """One code for each step."""
    with pytest.raises(ShapeError, match=r"shapes \(3, 1\) and \(2,\). Pass series.observed"):
        measure_staleness(np.ones((3, 1), dtype=bool), np.zeros(2, dtype=np.int64))


def test_rule_refuses_other_sensors() -> None:
    """A limit belongs to one sensor."""
    with pytest.raises(ShapeError, match=r"limits for 1 sensors, got an array of shape \(5, 2\)"):
        StalenessRule((3,)).beyond(np.zeros((5, 2)))


@pytest.mark.parametrize("setting", [{"quantile": 1.5}, {"factor": 0.5}, {"least": -1}])
def test_rule_refuses_settings_without_meaning(setting: dict[str, float]) -> None:
    """The message shows what was received."""
    with pytest.raises(SettingError, match=f"{next(iter(setting))}={next(iter(setting.values()))}"):
        StalenessRule.learn(np.ones((3, 1), dtype=bool), np.zeros(3, dtype=np.int64), **setting)  # type: ignore[arg-type]


def test_steps_in_which_nothing_can_come_are_no_silence() -> None:
    """A sensor that was silent before them is still silent, and no longer for them."""
    observed = np.array([[True, True], [True, False], [False, False], [False, False], [True, False]])
    excused = np.array([False, False, True, True, False])

    silent = measure_staleness(observed, np.zeros(5, dtype=np.int64), excused)

    assert silent.T.tolist() == [[0, 0, 0, 0, 0], [0, 1, 1, 1, 2]]
