"""Segments: nothing is carried, smoothed or joined over their ends."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detector.series.segments import bounds, carry_on, near, runs, smooth, smooth_at
from tests.series_examples import one


def test_smoothing_keeps_the_sum_inside() -> None:
    """A spike is spread, not shrunk; without smoothing nothing is touched."""
    values = np.zeros((100, 1))
    values[50] = 1.0

    result = smooth(values, one(100), 3.0)

    assert result.sum() == pytest.approx(1)
    assert result[47, 0] == pytest.approx(result[53, 0])
    assert smooth(values, one(100), 0.0) is values


@pytest.mark.parametrize("trailing", [False, True])
def test_smoothing_of_some_rows_is_that_of_all(trailing: bool) -> None:
    """Whichever rows, over no end of a segment; what a neighbour counts at most bounds quiet rows alone."""
    values = np.random.default_rng(0).exponential(size=(60, 2))
    values[30] = 1_000.0
    segment, wanted = np.repeat([0, 1, 2], [25, 20, 15]), np.array([0, 24, 25, 29, 30, 59])
    whole = smooth(values, segment, 2.5, trailing=trailing)

    found = smooth_at(wanted, values, segment, 2.5, trailing=trailing)
    bounded = smooth_at(wanted, values, segment, 2.5, trailing=trailing, ceiling=np.array([4.0, np.inf]))

    np.testing.assert_allclose(found, whole[wanted], rtol=1e-12)
    np.testing.assert_allclose(bounded[:, 1], whole[wanted, 1], rtol=1e-12)
    assert bounded[4, 0] == pytest.approx(whole[30, 0])  # it is that large itself
    assert (bounded[[0, 1, 2, 3, 5], 0] <= 4.0).all()
    assert trailing or whole[29, 0] > 50


def test_smoothing_stays_in_its_segment_and_trails_if_asked() -> None:
    """Neither the other segment nor the past knows of a spike."""
    values = np.zeros((10, 1))
    values[4] = 1.0

    apart = smooth(values, np.repeat([0, 1], 5), 2.0)
    trailing = smooth(values, one(10), 2.0, trailing=True)

    assert not apart[5:].any()
    assert not trailing[:4].any()
    assert trailing[5] > 0


def test_values_are_carried_within_a_segment_only() -> None:
    """At its beginning the alternative stands in."""
    values = np.array([[1.0], [np.nan], [np.nan], [2.0]])

    carried = carry_on(values, np.array([0, 0, 1, 1]), np.array([7.0]))

    assert carried.ravel().tolist() == [1.0, 1.0, 7.0, 2.0]


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 2)), min_size=1, max_size=20), st.integers(0, 3))
def test_runs_and_neighbours_are_what_loops_find(rows: list[tuple[bool, int]], far: int) -> None:
    """Any flags, any segments."""
    flagged = np.array([flag for flag, _ in rows])
    segment = np.array(sorted(place for _, place in rows))

    wide = near(flagged, segment, far)
    found = runs(flagged, segment, far)

    pairs = [(i, j) for i in range(len(rows)) for j in range(len(rows)) if segment[i] == segment[j] and flagged[j]]
    assert wide.tolist() == [any(i == a and abs(i - j) <= far for a, j in pairs) for i in range(len(rows))]
    covered = {row for first, last in found for row in range(first, last + 1)}
    assert set(np.flatnonzero(flagged).tolist()) <= covered
    assert all(flagged[first] and flagged[last] and segment[first] == segment[last] for first, last in found)
    for (_, before), (after, _) in pairwise(found):
        assert after - before > far + 1 or segment[after] != segment[before]
    assert bounds(segment)[-1][1] == len(rows)
