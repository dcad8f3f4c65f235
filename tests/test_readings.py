import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detector.errors import DataError
from detector.schema import Schema
from detector.series.readings import Readings, order_readings
from detector.series.sampling import Sampling

SCHEMA = Schema(time="when", entity="pump", numeric=("heat", "flow"))


def _rows(seconds: list[float], pump: list[str | None] | None = None, heat: list[float] | None = None) -> pd.DataFrame:
    """Readings at these seconds; the heat tells the row."""
    return pd.DataFrame(
        {
            "when": pd.Timestamp("2024-01-01") + pd.to_timedelta(seconds, unit="s"),
            "pump": pump or ["a"] * len(seconds),
            "heat": np.arange(float(len(seconds))) if heat is None else heat,
            "flow": 1.0,
        }
    )


def _order(rows: pd.DataFrame, sampling: Sampling | None = None, schema: Schema = SCHEMA) -> Readings:
    return order_readings(rows, schema, schema.numeric, sampling or Sampling())


@given(st.lists(st.tuples(st.integers(0, 30), st.sampled_from(["a", "b", None])), min_size=1, max_size=40))
def test_every_row_has_a_reading_or_a_reason(drawn: list[tuple[int, str | None]]) -> None:
    """Sorting in Python and keeping the first of each time and entity comes to the same."""
    rows = _rows([second for second, _ in drawn], [pump for _, pump in drawn])
    firsts: dict[tuple[str, int], int] = {}
    for row, (second, pump) in enumerate(drawn):
        if pump is not None:
            firsts.setdefault((pump, second), row)
    seen = list(dict.fromkeys(pump for _, pump in drawn if pump is not None))
    expected = [row for key, row in sorted(firsts.items(), key=lambda item: (seen.index(item[0][0]), item[0][1]))]
    if not seen:
        with pytest.raises(DataError, match="none among"):
            _order(rows, Sampling(every="1s"))
        return

    readings = _order(rows, Sampling(every="1s"))

    assert readings.rows.tolist() == expected
    assert readings.values[:, 0].tolist() == expected
    assert sorted([*readings.rows.tolist(), *readings.quarantine["row"]]) == list(range(len(drawn)))


def test_quarantine_says_why_and_keeps_the_row() -> None:
    """Index and columns are those of the rows; a column of the same name as ours is renamed."""
    rows = _rows([0, 1, 1, 2], ["a", "a", "a", None]).set_axis([10, 11, 12, 13]).assign(row="x")

    quarantine = _order(rows).quarantine

    assert quarantine["row"].tolist() == [12, 13]
    assert quarantine["reason"].tolist() == [
        "when: the series has a reading of this time (first at row 11)",
        "pump: the entity is missing",
    ]
    assert quarantine[["heat", "source_row"]].to_numpy().tolist() == [[2.0, "x"], [3.0, "x"]]


def test_third_reading_of_a_time_names_the_first() -> None:
    """Not the second, which is in quarantine itself."""
    quarantine = _order(_rows([0, 1, 1, 1])).quarantine

    assert quarantine["reason"].str.extract(r"row (\d)")[0].tolist() == ["1", "1"]


def test_moved_rows_are_counted() -> None:
    """A row counts if a later one of its series came before it."""
    assert _order(_rows([0, 3, 1, 2, 4])).moved == 2
    assert _order(_rows([5, 0, 6, 1], ["a", "b", "a", "b"])).moved == 0


def test_unsorted_rows_can_be_refused() -> None:
    """The error names series, rows and times."""
    rows = _rows([0, 2, 1])

    with pytest.raises(
        DataError,
        match="entity 'a' is not in order of time: row 2 is of .*:01, a row before it of .*:02.*unsorted='sort'",
    ):
        _order(rows, Sampling(unsorted="reject"))


def test_repeated_times_can_be_refused() -> None:
    """The error names both rows, and two ways out."""
    with pytest.raises(
        DataError, match="entity 'a' has two readings of 2024-01-01 00:00:01: rows 1 and 2.*quarantine'"
    ):
        _order(_rows([0, 1, 1, 2]), Sampling(repeated="reject"))


def test_rows_without_time_are_taken_in_turn() -> None:
    """The order in which they came is the order of the steps of each series."""
    readings = _order(_rows([9, 5, 7], ["a", "b", "a"]), schema=Schema(entity="pump", numeric=("heat",)))

    assert readings.rows.tolist() == [0, 2, 1]
    assert readings.time.tolist() == [0, 1, 0]


@pytest.mark.parametrize(("align", "heat"), [("mean", [0.5, 2.0, 4.0]), ("last", [1.0, 2.0, 4.0])])
def test_readings_of_one_interval_are_joined(align: str, heat: list[float]) -> None:
    """What a sensor did not read does not count, and a repeated time is no fault."""
    rows = _rows([0, 5, 10, 10, 25], heat=[0.0, 1.0, 2.0, np.nan, 4.0])
    rows.loc[[2, 4], "flow"] = [np.nan, np.nan]

    readings = _order(rows, Sampling(every="10s", align=align))  # type: ignore[arg-type]

    assert readings.values[:, 0].tolist() == heat
    np.testing.assert_array_equal(readings.values[:, 1], [1.0, 1.0, np.nan])
    assert readings.reading.tolist() == [0, 0, 1, 1, 2]
    assert readings.quarantine.empty


def test_sensors_that_report_apart_are_joined() -> None:
    """Two sensors, each in a row of its own, stand on one step."""
    rows = _rows([0, 1, 60, 61], heat=[1.0, np.nan, 2.0, np.nan])
    rows["flow"] = [np.nan, 7.0, np.nan, 8.0]

    assert _order(rows, Sampling(every="1min", align="last")).values.tolist() == [[1.0, 7.0], [2.0, 8.0]]


def test_readings_faster_than_the_interval_are_refused() -> None:
    """Sixty steps of a minute in one minute would be a lie."""
    with pytest.raises(DataError, match="faster than every 1 min, or at no steady pace: 59 of 59 steps.*align='mean'"):
        _order(_rows(list(range(60))), Sampling(every="1min"))


def test_random_times_are_refused() -> None:
    """Events that come when they come have a median, but no pace."""
    seconds = np.cumsum(np.random.default_rng(0).exponential(10, 300)).tolist()

    with pytest.raises(DataError, match="or at no steady pace"):
        _order(_rows(seconds))


def test_summer_time_is_refused_before_sorting_hides_it() -> None:
    """An hour that comes twice is not a few repeated times."""
    minutes = [*range(120), *range(60, 180)]

    with pytest.raises(DataError, match="put back by one hour after 2024-01-01 01:59:00"):
        _order(_rows([60.0 * minute for minute in minutes]))
