import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detector.errors import DataError, SchemaError, SettingError, ShapeError
from detector.schema import Schema
from detector.series.resample import RegularSeries, regularise
from detector.series.sampling import Sampling

SCHEMA = Schema(time="when", numeric=("heat",))
PUMPS = Schema(time="when", entity="pump", numeric=("heat", "flow"))
START = pd.Timestamp("2024-01-01")
NAN = np.nan


def _rows(seconds: list[float], heat: list[float] | None = None) -> pd.DataFrame:
    """Readings at these seconds; the heat tells the row."""
    return pd.DataFrame(
        {
            "when": START + pd.to_timedelta(seconds, unit="s"),
            "heat": np.arange(float(len(seconds))) if heat is None else heat,
        }
    )


def _heat(series: RegularSeries) -> list[float]:
    return [None if np.isnan(value) else value for value in series.values[:, 0]]  # type: ignore[misc]


@st.composite
def _pumps(draw: st.DrawFn) -> pd.DataFrame:
    """Two pumps, each with readings at some of the first 40 seconds, in any order, some values missing."""
    lines = []
    for pump in ("a", "b"):
        for second in draw(st.lists(st.integers(0, 40), min_size=1, max_size=15, unique=True)):
            heat, flow = (draw(st.sampled_from([1.0, 2.0, 3.0, NAN])) for _ in range(2))
            lines.append((START + pd.Timedelta(seconds=second), pump, heat, flow))
    return pd.DataFrame(draw(st.permutations(lines)), columns=["when", "pump", "heat", "flow"])


@given(_pumps(), st.integers(0, 4), st.sampled_from(["mask", "previous"]))
def test_steps_are_what_one_would_count(rows: pd.DataFrame, limit: int, missing: str) -> None:
    """Second by second and sensor by sensor, with a list and a loop."""
    expected, segments, times, segment = [], [], [], -1
    for pump in dict.fromkeys(rows["pump"]):
        own = rows[rows["pump"] == pump].set_index("when").sort_index()
        previous = None
        for when, values in own[["heat", "flow"]].iterrows():
            skipped = None if previous is None else int((when - previous).total_seconds()) - 1
            if skipped is None or skipped > limit:
                segment += 1
                held: list[list[float]] = [[NAN, 99], [NAN, 99]]
                skipped = 0
            for step in range(skipped + 1):
                read = values.tolist() if step == skipped else [NAN, NAN]
                line = []
                for sensor in range(2):
                    known = not np.isnan(read[sensor])
                    held[sensor] = [read[sensor], 0] if known else [held[sensor][0], held[sensor][1] + 1]
                    carried = missing == "previous" and held[sensor][1] <= limit
                    line.append(held[sensor][0] if known or carried else NAN)
                expected.append(line)
                segments.append(segment)
                times.append(when - pd.Timedelta(seconds=skipped - step))
            previous = when

    series = regularise(rows, PUMPS, Sampling(every="1s", limit=limit, missing=missing))  # type: ignore[arg-type]

    np.testing.assert_array_equal(series.values, expected)
    assert series.segment.tolist() == segments
    assert pd.DatetimeIndex(series.times).tolist() == times
    np.testing.assert_array_equal(series.to_rows(series.observed), rows[["heat", "flow"]].notna())
    assert series.to_rows(series.entity).tolist() == rows["pump"].tolist()
    assert series.report.missing["heat"] == np.isnan(series.values[:, 0]).sum()
    assert series.report.filled["heat"] == (~np.isnan(series.values) & ~series.observed)[:, 0].sum()
    assert (series.report.gaps["steps"] > limit).tolist() == (series.report.gaps["handled"] == "split").tolist()


def test_short_gap_is_bridged_and_long_one_splits() -> None:
    """Both are in the report, with the times around them."""
    series = regularise(_rows([0, 1, 2, 5, 6, 20, 21]), SCHEMA, Sampling(limit=2))

    assert _heat(series) == [0, 1, 2, None, None, 3, 4, 5, 6]
    assert series.segment.tolist() == [0] * 7 + [1] * 2
    gaps = series.report.gaps
    assert gaps[["steps", "handled", "summer_time"]].to_numpy().tolist() == [[2, "masked", False], [13, "split", False]]
    assert gaps["after"].tolist() == [START + pd.Timedelta(seconds=second) for second in (2, 6)]
    assert gaps["before"].tolist() == [START + pd.Timedelta(seconds=second) for second in (5, 20)]


def test_previous_value_is_carried_and_marked() -> None:
    """At most ``limit`` steps from its reading, through a gap and a missing value, and never before the first one."""
    rows = _rows([0, 1, 2, 4, 5, 6], heat=[NAN, 1.0, NAN, NAN, NAN, 6.0])

    series = regularise(rows, SCHEMA, Sampling(missing="previous", limit=3))

    assert _heat(series) == [None, 1, 1, 1, 1, None, 6]
    assert series.observed[:, 0].tolist() == [False, True, False, False, False, False, True]
    assert series.report.filled == {"heat": 3}
    assert series.report.missing == {"heat": 2}


def test_jitter_is_no_gap() -> None:
    """A clock that cuts off fractions shows two seconds now and then; whether that is one step is declared."""
    rows = _rows([0, 1, 2, 4, 5, 6, 8, 30])

    strict, tolerant = (regularise(rows, SCHEMA, Sampling(jitter=jitter)) for jitter in (0.5, 1.0))

    assert _heat(strict) == [0, 1, 2, None, 3, 4, 5, None, 6, 7]
    assert _heat(tolerant) == [0, 1, 2, 3, 4, 5, 6, 7]
    assert (strict.report.uneven, tolerant.report.uneven) == (0, 2)
    assert tolerant.segment.tolist() == [0] * 7 + [1]


def test_joined_readings_share_a_step() -> None:
    """Each row still finds the step it is in."""
    series = regularise(_rows([0, 4, 10, 13, 30]), SCHEMA, Sampling(every="10s", align="mean"))

    assert _heat(series) == [0.5, 2.5, None, 4]
    assert series.step.tolist() == [0, 0, 1, 1, 3]
    assert series.report.merged == 2


def test_rows_keep_their_order_and_index() -> None:
    """Steps are in order of time; what is known of them goes back to where the rows were."""
    rows = _rows([2, 0, 1, 1]).set_axis([70, 71, 72, 73])

    series = regularise(rows, SCHEMA)

    assert series.rows.tolist() == [70, 71, 72]
    assert series.to_rows(series.values[:, 0]).tolist() == [0.0, 1.0, 2.0]
    assert series.quarantine["row"].tolist() == [73]
    assert series.report.moved == 3


def test_rows_without_time_are_steps_in_turn() -> None:
    """A file that is only a matrix works too; booleans are sensors."""
    rows = pd.DataFrame({"heat": [1.0, NAN, 3.0], "open": [0.0, 1.0, 1.0]})

    series = regularise(rows, Schema(numeric=("heat",), boolean=("open",)))

    assert series.sensors == ("heat", "open")
    np.testing.assert_array_equal(series.values, rows)
    assert series.times is None
    assert series.every is None
    assert series.report.gaps.empty


def test_sensor_that_never_reads_is_all_missing() -> None:
    """It costs nothing but its own column."""
    series = regularise(_rows([0, 1, 2], heat=[NAN] * 3), SCHEMA, Sampling(missing="previous"))

    assert series.report.missing == {"heat": 3}


def test_one_row_is_a_series_if_the_interval_is_known() -> None:
    """As when rows arrive one by one."""
    assert len(regularise(_rows([0]), SCHEMA, Sampling(every="1s"))) == 1
    with pytest.raises(DataError, match="interval is unclear"):
        regularise(_rows([0]), SCHEMA)


def test_overdue_counts_from_each_sensors_last_reading() -> None:
    """A machine of which no row comes any more is seen at the present time."""
    rows = _rows([0, 1, 2, 0, 1]).assign(pump=["a"] * 3 + ["b"] * 2, flow=[1.0, NAN, NAN, NAN, NAN])

    overdue = regularise(rows, PUMPS).overdue(START + pd.Timedelta(seconds=10))

    assert overdue.index.tolist() == ["a", "b"]
    np.testing.assert_array_equal(overdue, [[8, 10], [9, NAN]])


def test_overdue_needs_times() -> None:
    """Without them nothing is late."""
    series = regularise(_rows([0, 1]), Schema(numeric=("heat",)))

    with pytest.raises(DataError, match="without times cannot be overdue. Name the time column"):
        series.overdue(START)


def test_gap_can_be_refused() -> None:
    """The error names entity, times, how much is missing and what to do."""
    rows = _rows([0, 1, 2, 5]).assign(pump="a", flow=1.0)

    with pytest.raises(
        DataError,
        match="entity 'a' has no reading between .*00:00:02 and .*00:00:05, where 2 are missing at one every 1 s. "
        "Fill the gap, or choose missing='mask'",
    ):
        regularise(rows, PUMPS, Sampling(missing="reject"))


def test_gap_of_summer_time_is_named() -> None:
    """An hour left out before a full hour may be the clock; masked, it is marked in the report."""
    rows = _rows([60.0 * minute for minute in (*range(120), *range(180, 240))])

    with pytest.raises(DataError, match="That is one hour: if these are local times, summer time began; convert"):
        regularise(rows, SCHEMA, Sampling(missing="reject"))
    assert regularise(rows, SCHEMA).report.gaps["summer_time"].tolist() == [True]


def test_missing_value_can_be_refused() -> None:
    """The error names sensor, time and row."""
    rows = _rows([0, 1, 2], heat=[1.0, NAN, NAN])

    with pytest.raises(DataError, match=r"has no value of 'heat' at .*00:00:01 \(row 1\) and in 1 more places. Fill"):
        regularise(rows, SCHEMA, Sampling(missing="reject"))
    with pytest.raises(DataError, match="The series has no value of 'heat' at row 2. Fill"):
        regularise(rows.assign(heat=[1.0, 2.0, NAN]), Schema(numeric=("heat",)), Sampling(missing="reject"))


@pytest.mark.parametrize(("second", "span"), [(2.25, "250 ms"), (2.8, "800 ms"), (3.3, "1300 ms")])
def test_uneven_step_can_be_refused(second: float, span: str) -> None:
    """Too early and too late, by more than the jitter that is allowed."""
    rows = _rows([0, 1, 2, second])

    with pytest.raises(
        DataError, match=rf"is sampled unevenly: .* \(row 3\) is {span} after .* expected 1 s. Allow more"
    ):
        regularise(rows, SCHEMA, Sampling(missing="reject", jitter=0.1))


def test_policy_reject_lets_regular_series_pass() -> None:
    """Nothing is wrong with them."""
    assert _heat(regularise(_rows([0, 1.1, 2, 3]), SCHEMA, Sampling(missing="reject"))) == [0, 1, 2, 3]


def test_schema_needs_sensors() -> None:
    """A table of categories is no series."""
    with pytest.raises(SchemaError, match="the schema lists none. Name the sensors"):
        regularise(_rows([0, 1]), Schema(time="when"))


def test_interval_needs_times() -> None:
    """An interval for rows without times would be a mistake unseen."""
    with pytest.raises(SettingError, match="the schema has none. Received: every='1s'"):
        regularise(_rows([0, 1]), Schema(numeric=("heat",)), Sampling(every="1s"))


def test_lost_sensor_is_named() -> None:
    """A column that is gone is an error of the schema, like in any table."""
    with pytest.raises(SchemaError, match="Column 'heat' is missing from the table"):
        regularise(_rows([0, 1]).rename(columns={"heat": "heet"}), SCHEMA)


def test_to_rows_needs_every_step() -> None:
    """Something for each."""
    with pytest.raises(ShapeError, match=r"each of 2 steps, got an array of shape \(3,\)"):
        regularise(_rows([0, 1]), SCHEMA).to_rows(np.zeros(3))
