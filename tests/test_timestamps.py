import numpy as np
import pandas as pd
import pytest

from detector.errors import DataError
from detector.series.timestamps import (
    HOUR,
    infer_interval,
    is_spring_forward,
    read_times,
    refuse_summer_time,
    show_span,
)

MINUTE = HOUR // 60
NAMES = pd.Index(["pump", "fan"])


def _zeros(time: np.ndarray) -> np.ndarray:
    return np.zeros(len(time), dtype=np.int64)


@pytest.mark.parametrize(
    "times",
    [
        pd.Series(pd.to_datetime(["2024-01-01"], utc=True), name="when"),
        pd.Series([pd.Timestamp("2024-01-01", tz="UTC"), pd.Timestamp("2024-01-01", tz="CET")], name="when"),
        pd.Series(["2024-01-01"], name="when"),
        pd.Series([1.0], name="when"),
    ],
)
def test_read_times_refuses_zones_and_text(times: pd.Series) -> None:
    """Zones, mixed zones, text and numbers are what clean is for."""
    with pytest.raises(DataError, match="'when' should hold UTC times without a zone, but its type is .*clean()"):
        read_times(times)


def test_read_times_names_the_row_without_time() -> None:
    """A missing time cannot be put in order."""
    times = pd.Series(pd.to_datetime(["2024-01-01", None]), index=[4, 9], name="when")

    with pytest.raises(DataError, match="'when' is missing at row 9"):
        read_times(times)


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_read_times_is_the_same_in_every_unit(unit: str) -> None:
    """Times come in several units and mean the same."""
    times = pd.Series(pd.to_datetime(["1970-01-01 00:00:02"])).astype(f"datetime64[{unit}]")

    assert read_times(times).tolist() == [2_000_000]


def test_interval_is_one_that_occurs() -> None:
    """Between two equally frequent differences the lower one is taken, not their mean."""
    time = np.array([0, 10, 20, 40, 60])

    assert infer_interval(time, _zeros(time), None) == 10


def test_interval_passes_over_repeats_and_edges() -> None:
    """Neither a repeated time nor the way from one series to the next counts."""
    time = np.array([0, 0, 0, 10, 500, 510])

    assert infer_interval(time, np.array([0, 0, 0, 0, 1, 1]), NAMES) == 10


def test_interval_needs_two_times() -> None:
    """One reading a series says nothing about the pace."""
    with pytest.raises(DataError, match="The sampling interval is unclear.*every='1min'"):
        infer_interval(np.array([5, 7]), np.array([0, 1]), NAMES)


@pytest.mark.parametrize("pace", [MINUTE // 2, 5 * MINUTE])
def test_interval_refuses_a_series_of_another_pace(pace: int) -> None:
    """A machine that reports slower or faster than the rest does not fit on their steps."""
    time = np.append(np.arange(20) * MINUTE, np.arange(8) * pace)
    codes = np.repeat([0, 1], [20, 8])

    with pytest.raises(
        DataError, match=f"'fan' is sampled about every {show_span(pace)}, all series together every 1 m"
    ):
        infer_interval(time, codes, NAMES)


def _autumn() -> tuple[np.ndarray, np.ndarray]:
    """Four hours in minutes of local time; the second hour comes twice, with other values."""
    time = np.concatenate([np.arange(120), np.arange(60, 180)]) * MINUTE
    return time, np.arange(240.0)[:, None]


def test_summer_time_is_named_where_the_clock_goes_back() -> None:
    """In the order of writing, the end of summer time is one step back of one hour."""
    time, values = _autumn()

    with pytest.raises(
        DataError, match="entity 'pump' is put back by one hour after 1970-01-01 01:59:00.*01:00:00.*zone"
    ):
        refuse_summer_time(time, _zeros(time), values, NAMES, every=MINUTE)


def test_summer_time_is_named_where_the_rows_were_sorted() -> None:
    """Sorted by time, the end of summer time is an hour of pairs."""
    time, values = _autumn()
    order = np.argsort(time, kind="stable")

    with pytest.raises(DataError, match="two different readings at each time from .* 01:00:00 to .* 01:59:00, a whole"):
        refuse_summer_time(time[order], _zeros(time), values[order], None, every=MINUTE)


def test_summer_time_is_seen_behind_jitter() -> None:
    """The times need not repeat exactly."""
    time, values = _autumn()
    time = time + np.random.default_rng(0).integers(0, 20_000_000, len(time))

    with pytest.raises(DataError, match="put back by one hour"):
        refuse_summer_time(time, _zeros(time), values, None, every=MINUTE)


def test_rows_loaded_twice_are_not_summer_time() -> None:
    """The same hour with the same values is a copy; what becomes of it is said elsewhere."""
    time, _ = _autumn()
    values = (time // MINUTE).astype(np.float64)[:, None]

    refuse_summer_time(time, _zeros(time), values, None, every=MINUTE)
    refuse_summer_time(np.sort(time), _zeros(time), np.sort(values, axis=0), None, every=MINUTE)


def test_shuffled_rows_are_not_summer_time() -> None:
    """Steps back of an hour among others are mere disorder."""
    time = np.random.default_rng(0).permutation(5000) * MINUTE

    refuse_summer_time(time, _zeros(time), np.zeros((len(time), 1)), None, every=MINUTE)


def test_hourly_rows_are_not_summer_time() -> None:
    """With one reading an hour, a second one of the same hour may be anything."""
    refuse_summer_time(
        np.array([0, 1, 1, 2]) * HOUR, np.zeros(4, dtype=np.int64), np.arange(4.0)[:, None], None, every=HOUR
    )


def test_a_few_repeats_are_not_summer_time() -> None:
    """Single repeated times do not make an hour."""
    time = np.sort(np.append(np.arange(200), [7, 8, 90])) * MINUTE

    refuse_summer_time(time, _zeros(time), np.arange(203.0)[:, None], None, every=MINUTE)


def test_two_repeats_are_no_hour() -> None:
    """At one reading each half hour, two neighbours make an hour, but prove nothing."""
    time = np.array([0, 1, 1, 2, 2, 3, 4]) * HOUR // 2

    refuse_summer_time(time, _zeros(time), np.arange(7.0)[:, None], None, every=HOUR // 2)


@pytest.mark.parametrize(
    ("minutes", "spring"),
    [((119, 180), True), ((119, 179), False), ((118, 180), False), ((149, 210), False), ((119, 240), False)],
)
def test_spring_is_one_hour_left_out_before_a_full_hour(minutes: tuple[int, int], spring: bool) -> None:
    """A gap of another length, or in the middle of an hour, is a mere gap."""
    before, after = (np.array([minute]) * MINUTE for minute in minutes)

    assert is_spring_forward(before, after, every=MINUTE).tolist() == [spring]


@pytest.mark.parametrize(
    ("span", "text"), [(24 * HOUR, "1 d"), (90 * MINUTE, "90 min"), (1500, "1500 µs"), (0, "0 µs")]
)
def test_span_is_shown_in_a_unit_that_divides_it(span: int, text: str) -> None:
    """No rounding in messages."""
    assert show_span(span) == text
