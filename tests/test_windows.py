import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detector.errors import DataError, SettingError, ShapeError
from detector.series.windows import Short, Windows

SIZES = st.lists(st.integers(1, 12), min_size=1, max_size=5)


def _rows(n: int) -> np.ndarray:
    """Two sensors; each value tells its row and sensor."""
    return np.arange(n)[:, None] * 10.0 + np.arange(2)


@given(SIZES, st.integers(1, 8), st.integers(1, 9), st.booleans())
def test_windows_lie_as_one_would_lay_them(sizes: list[int], length: int, stride: int, tail: bool) -> None:
    """Segment by segment, from its first row on, as long as one fits; then one at the end, or one with padding."""
    expected: list[tuple[int, int, int]] = []
    begin = 0
    for size in sizes:
        places = [(start, start + length, 0) for start in range(begin, begin + size - length + 1, stride)]
        if size < length:
            places = [(begin, begin + size, length - size)]
        elif tail and places[-1][1] < begin + size:
            places.append((begin + size - length, begin + size, 0))
        expected += places
        begin += size

    windows = Windows.plan(
        np.repeat(np.arange(len(sizes)), sizes), length=length, stride=stride, short="pad", tail=tail
    )

    assert list(zip(windows.starts, windows.stops, windows.padding, strict=True)) == expected


@given(SIZES, st.integers(1, 8), st.integers(1, 9), st.integers(1, 5))
def test_cut_holds_each_windows_rows(sizes: list[int], length: int, stride: int, size: int) -> None:
    """A window is its rows side by side, after NaN for padding; blocks are the same in parts."""
    values = _rows(sum(sizes))
    windows = Windows.plan(np.repeat(np.arange(len(sizes)), sizes), length=length, stride=stride, short="pad")

    cut = windows.cut(values)

    for line, start, stop, padding in zip(cut, windows.starts, windows.stops, windows.padding, strict=True):
        assert np.isnan(line[: 2 * padding]).all()
        np.testing.assert_array_equal(line[2 * padding :], values[start:stop].ravel())
    blocks = list(windows.blocks(values, size=size))
    np.testing.assert_array_equal(np.concatenate([block for _, block in blocks]), cut)
    assert all(len(block) == part.stop - part.start <= size for part, block in blocks)


def test_cut_of_flags_pads_with_false() -> None:
    """A mask is cut like the values; padding was not observed."""
    windows = Windows.plan(np.zeros(2), length=3, short="pad")

    assert windows.cut(np.ones((2, 1), dtype=bool)).tolist() == [[False, True, True]]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_cut_keeps_type_and_source(dtype: type) -> None:
    """Nothing is converted, a view that is not contiguous is read right, and a change of the cut stays there."""
    values = np.asfortranarray(_rows(4).astype(dtype))

    cut = Windows.plan(np.zeros(4), length=2).cut(values)

    assert cut.dtype == dtype
    assert cut.tolist() == [[0, 1, 10, 11], [10, 11, 20, 21], [20, 21, 30, 31]]
    cut[:] = -1
    np.testing.assert_array_equal(values, _rows(4))


def test_short_segment_is_left_and_its_rows_with_it() -> None:
    """``leave`` makes windows where they fit."""
    windows = Windows.plan(np.array([0, 0, 1, 1, 1]), length=3, short="leave")

    assert windows.starts.tolist() == [2]


def test_table_names_entity_and_rows() -> None:
    """The last row is the one named as end."""
    table = Windows.plan(np.array([0, 0, 1, 1]), length=2).table(np.array(["a", "a", "b", "b"]))

    assert table.to_numpy().tolist() == [["a", 0, 1], ["b", 2, 3]]


def test_short_segment_is_an_error_that_says_where() -> None:
    """By default nothing is padded or left."""
    with pytest.raises(DataError, match=r"Segment 7 \(rows 3 to 4\) has 2 rows, a window 3.*'pad' or 'leave'"):
        Windows.plan(np.array([5, 5, 5, 7, 7]), length=3)


def test_no_window_at_all_is_an_error() -> None:
    """One row, or only short segments: there is nothing to work on."""
    with pytest.raises(DataError, match="No window of 3 rows fits: the longest segment has 2 rows.*'pad'"):
        Windows.plan(np.array([0, 1, 1]), length=3, short="leave")


def test_no_rows_are_an_error() -> None:
    """Nothing can be cut from nothing."""
    with pytest.raises(DataError, match="expected at least one row, got none"):
        Windows.plan(np.array([]), length=3)


def test_torn_segment_is_an_error() -> None:
    """Rows of two entities in turn would make windows of one row each."""
    with pytest.raises(DataError, match="Segment a begins again at row 2. Sort the rows"):
        Windows.plan(np.array(["a", "b", "a"]), length=1)


@pytest.mark.parametrize("setting", ["length", "stride"])
def test_sizes_below_one_are_errors(setting: str) -> None:
    """A window has a row and moves on."""
    with pytest.raises(SettingError, match=f"a {setting} of at least 1. Received: {setting}=0"):
        Windows.plan(np.zeros(3), **({"length": 2, "stride": 1} | {setting: 0}))


def test_unknown_policy_is_an_error() -> None:
    """The nearest known one is named."""
    wrong: Short = "padd"  # type: ignore[assignment]

    with pytest.raises(SettingError, match="no short='padd'. Did you mean 'pad'?"):
        Windows.plan(np.zeros(3), length=2, short=wrong)


def test_blocks_below_one_window_are_an_error() -> None:
    """The error comes at once, not with the first block."""
    with pytest.raises(SettingError, match="at least 1 window. Received: size=0"):
        Windows.plan(np.zeros(3), length=2).blocks(np.zeros((3, 1)), size=0)


@pytest.mark.parametrize("values", [np.zeros((4, 1)), np.zeros(3), np.zeros((3, 1), dtype=int)])
def test_cut_refuses_values_that_do_not_fit(values: np.ndarray) -> None:
    """Another number of rows, one dimension, or a type that has no NaN."""
    with pytest.raises(ShapeError, match=r"over 3 rows expected floats or booleans of shape \(3, n_sensors\)"):
        Windows.plan(np.zeros(3), length=2).cut(values)
