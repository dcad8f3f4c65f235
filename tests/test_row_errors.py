import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detector.errors import SettingError, ShapeError
from detector.series.row_errors import How, to_rows
from detector.series.windows import Windows

SIZES = st.lists(st.integers(1, 12), min_size=1, max_size=5)
HOWS = st.sampled_from(["overlap", "least", "trailing"])


def _plan(sizes: list[int], length: int, stride: int) -> Windows:
    return Windows.plan(np.repeat(np.arange(len(sizes)), sizes), length=length, stride=stride, short="pad")


def _errors(windows: Windows, seed: int = 0) -> np.ndarray:
    """Errors of three sensors, a tenth of them unknown."""
    rng = np.random.default_rng(seed)
    errors = rng.random((len(windows), windows.length, 3))
    errors[rng.random(errors.shape) < 0.1] = np.nan
    return errors


@given(SIZES, st.integers(1, 8), st.integers(1, 10), HOWS)
def test_rows_get_what_their_windows_say(sizes: list[int], length: int, stride: int, how: How) -> None:
    """Row by row, sensor by sensor: the mean or the least of all known errors, or the error of the last step."""
    windows = _plan(sizes, length, stride)
    errors = _errors(windows)
    expected = np.full((sum(sizes), 3), np.nan)
    for row in range(sum(sizes)):
        over = np.flatnonzero((windows.starts <= row) & (row < windows.stops))
        if how == "trailing":
            over = over[windows.stops[over] - 1 == row]
        own = errors[over, row - windows.stops[over] + length]
        for sensor in range(3):
            known = own[~np.isnan(own[:, sensor]), sensor]
            if len(known):
                expected[row, sensor] = known.min() if how == "least" else known.mean()

    np.testing.assert_allclose(to_rows(windows, errors, how=how).values, expected, rtol=1e-12)


@given(SIZES, st.integers(1, 8), st.integers(1, 10), HOWS, st.integers(1, 7))
def test_rows_do_not_depend_on_the_blocks(sizes: list[int], length: int, stride: int, how: How, size: int) -> None:
    """To the last bit: a row's windows are added in the same order."""
    windows = _plan(sizes, length, stride)
    errors = _errors(windows)
    blocks = ((part, errors[part]) for part, _ in windows.blocks(np.zeros((windows.n_rows, 1)), size=size))

    rows = to_rows(windows, blocks, how=how)

    whole = to_rows(windows, errors, how=how)
    np.testing.assert_array_equal(rows.values, whole.values)
    np.testing.assert_array_equal(rows.covering, whole.covering)


@given(SIZES, st.integers(1, 8), st.integers(1, 10))
def test_values_cut_and_put_back_are_the_same(sizes: list[int], length: int, stride: int) -> None:
    """The way there and back loses nothing but the rows between windows."""
    windows = _plan(sizes, length, stride)
    values = np.random.default_rng(0).random((sum(sizes), 2)).round(2)

    rows = to_rows(windows, windows.cut(values))

    covered = rows.covering > 0
    np.testing.assert_allclose(rows.values[covered], values[covered])
    assert np.isnan(rows.values[~covered]).all()
    assert stride > length or covered.all()


def test_rows_that_no_window_covers_have_no_error() -> None:
    """What no window covers has no error, rather than none to speak of."""
    windows = Windows.plan(np.zeros(5), length=2, stride=3)

    rows = to_rows(windows, np.array([1.0, 2.0]), how="overlap")

    np.testing.assert_array_equal(rows.values, [1.0, 1.0, np.nan, 2.0, 2.0])


def test_trailing_never_looks_ahead() -> None:
    """What comes later changes nothing that was said before."""
    windows = Windows.plan(np.zeros(8), length=3)
    errors = _errors(windows)
    changed = errors.copy()
    changed[4:] = 99.0

    before, after = (to_rows(windows, some, how="trailing").values for some in (errors, changed))

    np.testing.assert_array_equal(before[:6], after[:6])


@pytest.mark.parametrize(
    ("how", "expected"),
    [("overlap", [1.0, 1.5, 3.0, 4.0]), ("least", [1.0, 1.0, 2.0, 4.0]), ("trailing", [np.nan, 1.0, 2.0, 4.0])],
)
def test_one_error_a_window_goes_to_all_its_rows(how: How, expected: list[float]) -> None:
    """As a forest on window features gives it."""
    rows = to_rows(Windows.plan(np.zeros(4), length=2), np.array([1.0, 2.0, 4.0]), how=how)

    np.testing.assert_array_equal(rows.values, expected)


def test_covering_counts_windows() -> None:
    """Rows at the edge have fewer windows."""
    windows = Windows.plan(np.zeros(4), length=2)

    assert to_rows(windows, np.ones(3)).covering.tolist() == [1, 2, 2, 1]
    assert to_rows(windows, np.ones(3), how="trailing").covering.tolist() == [0, 1, 1, 1]


def test_unknown_way_is_an_error() -> None:
    """The nearest known one is named."""
    wrong: How = "overlapp"  # type: ignore[assignment]

    with pytest.raises(SettingError, match="no how='overlapp'. Did you mean 'overlap'?"):
        to_rows(Windows.plan(np.zeros(3), length=2), np.ones(2), how=wrong)


@pytest.mark.parametrize("shape", [(2, 3, 1), (2, 3), (2, 0), (2, 2, 1, 1)])
def test_errors_of_another_length_are_refused(shape: tuple[int, ...]) -> None:
    """Windows of two rows have errors of two steps."""
    with pytest.raises(ShapeError, match=r"\(n_windows, 2, n_sensors\), the same flattened.*Received: \("):
        to_rows(Windows.plan(np.zeros(3), length=2), np.ones(shape))


def test_errors_of_too_few_windows_are_refused() -> None:
    """One for each."""
    with pytest.raises(ShapeError, match="from 0 on, got 1 for windows 0 to 1"):
        to_rows(Windows.plan(np.zeros(3), length=2), np.ones(1))


@pytest.mark.parametrize("blocks", [[], [(slice(0, 1), np.ones(1))]])
def test_missing_blocks_are_refused(blocks: list[tuple[slice, np.ndarray]]) -> None:
    """An end too soon is not a row without windows."""
    with pytest.raises(ShapeError, match=f"expected errors for 2 windows, got {len(blocks)}"):
        to_rows(Windows.plan(np.zeros(3), length=2), blocks)


def test_blocks_out_of_order_are_refused() -> None:
    """Order is what makes the result the same for all sizes."""
    with pytest.raises(ShapeError, match="for windows from 0 on, got 1 for windows 1 to 1"):
        to_rows(Windows.plan(np.zeros(3), length=2), [(slice(1, 2), np.ones(1)), (slice(0, 1), np.ones(1))])


def test_blocks_of_other_sensors_are_refused() -> None:
    """A sensor cannot come or go between blocks."""
    with pytest.raises(ShapeError, match="expected 1 sensors in every block, got 2"):
        to_rows(Windows.plan(np.zeros(3), length=2), [(slice(0, 1), np.ones((1, 2))), (slice(1, 2), np.ones((1, 4)))])
