"""Simulated machines: exact, repeatable, coupled, and each fault is what its name says."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest

from detector.errors import SettingError
from pipelines.simulate.faults import KINDS
from pipelines.simulate.machine import CATALOGUE
from pipelines.simulate.sensors import simulate_sensors

TRUTH = ["anomaly", "anomaly_kind", "anomaly_sensor"]
NAMES = [sensor.name for sensor in CATALOGUE[:8]]
ROWS = 30_000


def of_kind(kind: str, *, seed: int = 3) -> pd.DataFrame:
    """A machine with faults of one kind only."""
    return simulate_sensors(ROWS, seed=seed, anomalies=[kind], anomaly_share=0.1)


def twin(*, seed: int = 3) -> pd.DataFrame:
    """The same machine as ``of_kind`` gives, had nothing gone wrong; its lost readings are filled."""
    return simulate_sensors(ROWS, seed=seed, anomalies=[]).ffill()


def events(table: pd.DataFrame) -> list[tuple[slice, str, list[str]]]:
    """Each fault's rows, kind and sensors."""
    label = table["anomaly_kind"] + table["anomaly_sensor"] + table["anomaly"].astype(str)
    groups = table[table["anomaly"] == 1].groupby(label.ne(label.shift()).cumsum())
    return [
        (
            slice(part.index[0], part.index[-1] + 1),
            part["anomaly_kind"].iloc[0],
            part["anomaly_sensor"].iloc[0].split(","),
        )
        for _, part in groups
    ]


@pytest.fixture(scope="module")
def calm() -> pd.DataFrame:
    """A fortnight without any fault."""
    return simulate_sensors(20_000, seed=3, anomalies=[])


def residuals(fit: pd.DataFrame, table: pd.DataFrame, name: str) -> np.ndarray:
    """What the other sensors of the same row and its past do not explain, fitted on ``fit``."""

    def inputs(frame: pd.DataFrame) -> np.ndarray:
        others = frame[[other for other in NAMES if other != name]].ffill().bfill()
        past = [others.shift(lag).bfill() for lag in (1, 2, 4)]
        return np.column_stack([np.ones(len(frame)), others, *past])

    target = fit[name].ffill().bfill()
    weights = np.linalg.lstsq(inputs(fit), target, rcond=None)[0]
    return np.asarray(table[name] - inputs(table) @ weights)


@pytest.mark.parametrize(("rows", "machines"), [(1000, 1), (1001, 3), (7, 7)])
def test_simulate_sensors_gives_exactly_the_rows_asked_for(rows: int, machines: int) -> None:
    """Machines share the rows as evenly as they can."""
    table = simulate_sensors(rows, seed=1, machines=machines, anomalies=[])

    assert len(table) == rows
    assert table["machine"].nunique() == machines
    assert np.ptp(table["machine"].value_counts()) <= 1


def test_simulate_sensors_gives_the_promised_columns_and_kinds() -> None:
    """Names, order and types are a contract."""
    table = simulate_sensors(2000, seed=1)

    assert list(table.columns) == ["time", "machine", *NAMES, *TRUTH]
    assert str(table["time"].dtype) == "datetime64[us]"
    assert (table[NAMES].dtypes == np.float64).all()
    assert list(table.select_dtypes("str").columns) == ["machine", "anomaly_kind", "anomaly_sensor"]


@pytest.mark.parametrize("sensors", [2, 5, 13, 38])
def test_simulate_sensors_has_as_many_sensors_as_asked_for(sensors: int) -> None:
    """Past the catalogue come second points with names and noise of their own."""
    table = simulate_sensors(3000, seed=1, sensors=sensors)
    values = table.drop(columns=["time", "machine", *TRUTH])

    assert values.shape[1] == sensors
    assert values.columns.is_unique
    assert not values.T.duplicated().any()


def test_simulate_sensors_repeats_itself_and_no_other_seed() -> None:
    """The same arguments give the same table, another seed another."""
    first, again, other = (simulate_sensors(3000, seed=seed, machines=2) for seed in (5, 5, 6))

    pd.testing.assert_frame_equal(first, again)
    assert not first["flow_l_min"].equals(other["flow_l_min"])


def test_machines_differ_and_share_the_clock() -> None:
    """Rows are sorted by time and machine; each machine works in its own cycles."""
    table = simulate_sensors(4000, seed=2, machines=2, anomalies=[])
    load = table.pivot(index="time", columns="machine", values="motor_current_a")

    assert table[["time", "machine"]].apply(tuple, axis=1).is_monotonic_increasing
    assert load.notna().mean().min() > 0.99
    assert load["M1"].corr(load["M2"]) < 0.6


def test_sampling_is_regular_at_the_interval_asked_for() -> None:
    """From the start on, every row comes one interval after the one before."""
    start = datetime.fromisoformat("2023-05-06T07:08:09")
    table = simulate_sensors(500, seed=2, anomalies=[], start=start, every=timedelta(seconds=10))

    assert table["time"].iloc[0] == start
    assert (table["time"].diff().dropna() == pd.Timedelta(seconds=10)).all()


@pytest.mark.parametrize(("share", "machines"), [(0.0, 1), (0.4, 1), (0.7, 3)])
def test_the_first_share_of_rows_is_normal(share: float, machines: int) -> None:
    """Faults come after it and not much later."""
    table = simulate_sensors(12_000, seed=4, normal_share=share, machines=machines)
    first = int(table["anomaly"].to_numpy().argmax())

    assert table["anomaly"].any()
    assert share * len(table) <= first < (share + 0.6 * (1 - share)) * len(table)


@pytest.mark.parametrize("share", [0.03, 0.1, 0.3])
def test_about_the_asked_share_is_at_fault(share: float) -> None:
    """Of the rows after the normal part."""
    table = simulate_sensors(40_000, seed=4, anomaly_share=share)

    assert 0.5 * share < table["anomaly"].iloc[16_000:].mean() < 1.3 * share


@pytest.mark.parametrize("rows", [400, 2000, 40_000])
def test_every_kind_comes_and_names_its_sensors(rows: int) -> None:
    """All kinds, in short series too; truth is given for faulty rows and only for these."""
    table = simulate_sensors(rows, seed=4)
    faulty = table["anomaly"] == 1

    assert set(table.loc[faulty, "anomaly_kind"]) == set(KINDS)
    assert ((table["anomaly_kind"] != "") == faulty).all()
    assert ((table["anomaly_sensor"] != "") == faulty).all()
    assert {name for _, _, sensors in events(table) for name in sensors} <= set(NAMES)


def test_sensors_are_coupled_as_in_a_machine(calm: pd.DataFrame) -> None:
    """Speed follows current, flow and vibration follow speed, power both, temperatures follow late."""
    related = calm[NAMES].corr()
    load, warm = calm["motor_current_a"].ffill(), calm["bearing_temperature_c"].ffill()
    by_lag = [load.corr(warm.shift(-lag)) for lag in range(40)]

    assert related.loc["speed_rpm", "flow_l_min"] > 0.9
    assert related.loc["speed_rpm", "vibration_mm_s"] > 0.85
    assert related.loc["flow_l_min", "pressure_bar"] > 0.9
    assert related.loc["motor_current_a", "power_kw"] > 0.9
    assert 4 < int(np.argmax(by_lag)) < 35
    assert max(by_lag) > by_lag[0] + 0.1


def test_sensors_have_plausible_values(calm: pd.DataFrame) -> None:
    """Within what such a machine could show, and none below zero."""
    low, high = calm[NAMES].min(), calm[NAMES].max()

    assert (low > 0).all()
    assert 600 < low["speed_rpm"] * 1.1 < high["speed_rpm"] < 2000
    assert 20 < low["bearing_temperature_c"] < high["bearing_temperature_c"] < 90
    assert high["vibration_mm_s"] < 8


def test_days_have_a_rhythm(calm: pd.DataFrame) -> None:
    """The afternoon is warmer than the night, which works less; once a day the machine rests."""
    by_hour = calm.groupby(calm["time"].dt.hour)[NAMES].mean()
    idle = calm[calm["motor_current_a"] < 12].groupby(calm["time"].dt.date).size()

    assert by_hour.loc[15, "oil_temperature_c"] > by_hour.loc[4, "oil_temperature_c"] + 2
    assert by_hour.loc[[1, 2, 3, 4], "power_kw"].mean() < 0.9 * by_hour.loc[[17, 18, 19, 20], "power_kw"].mean()
    assert len(idle) >= 12
    assert idle.between(5, 70).all()


def test_single_readings_are_lost_in_calm_too(calm: pd.DataFrame) -> None:
    """So that a missing value alone is no fault."""
    share = calm[NAMES].isna().mean()

    assert 0 < share.mean() < 0.001


def test_drift_grows_and_ends() -> None:
    """The error grows steadily to more than the sensor's spread and is gone after the last row."""
    table, calm = of_kind("drift"), twin()
    for rows, _, sensors in events(table):
        for name in sensors:
            error = (table[name] - calm[name])[rows].abs()
            assert error.iloc[0] < 0.2 * calm[name].std() < calm[name].std() < error.iloc[-1]
            assert error.corr(pd.Series(range(len(error)), index=error.index)) > 0.99
            assert table[name][rows.stop] == calm[name][rows.stop]


def test_spikes_are_short_and_high() -> None:
    """One to three rows, each more than twice the sensor's spread away from the truth."""
    table, calm = of_kind("spike"), twin()
    found = events(table)

    assert len(found) > 20
    for rows, _, sensors in found:
        error = (table[sensors[0]] - calm[sensors[0]])[rows].abs()
        assert 1 <= len(error) <= 3
        assert 2 < (error / calm[sensors[0]].std()).min() < 6


def test_a_stuck_sensor_repeats_its_last_value() -> None:
    """All rows equal the one before the fault, although the machine goes on."""
    table = of_kind("stuck")
    for rows, _, sensors in events(table):
        values = table[sensors[0]]
        assert (values[rows] == values[rows.start - 1]).all()
        others = [name for name in NAMES[:4] if name not in sensors]
        assert (table.loc[rows.start : rows.stop - 1, others].std() > 0).all()
    free = table.loc[table["anomaly"] == 0, "flow_l_min"]
    assert (free.diff() == 0).mean() < 0.01


def test_a_level_shift_is_steady() -> None:
    """The error is one to two spreads, from the first row to the last."""
    table, calm = of_kind("level_shift"), twin()
    for rows, _, sensors in events(table):
        for name in sensors:
            error = (table[name] - calm[name])[rows] / calm[name].std()
            assert 1 < error.abs().median() < 2.2
            # The rounding of the display and a lost reading in the calm twin are all that moves.
            assert error.quantile(0.95) - error.quantile(0.05) < 0.02


def test_lost_correlation_leaves_each_sensor_plausible_but_alone() -> None:
    """Values stay in their range; the others no longer explain them."""
    table = of_kind("lost_correlation")
    calm = table[:12_000]
    for rows, _, sensors in events(table):
        name = sensors[0]
        left = residuals(calm, table, name)
        assert table[name][rows].max() < calm[name].max() + 0.3 * calm[name].std()
        assert table[name][rows].min() > calm[name].min() - 0.3 * calm[name].std()
        assert np.nanstd(left[rows]) > 2 * np.nanstd(left[:12_000])


def test_change_of_frequency_is_a_faster_oscillation() -> None:
    """Power moves from the usual stroke to about twice its frequency, in that sensor."""
    table = of_kind("change_of_frequency")
    for rows, _, sensors in events(table):
        values = table[sensors[0]].ffill()
        inside, before = values[rows], values[rows.start - 400 : rows.start]
        assert _quick(inside) > 1.5 * _quick(before)


def _quick(values: pd.Series) -> float:
    """Variance at periods of 3.5 to 7 rows over that of 9 to 14 rows."""
    flat = (values - values.rolling(15, center=True, min_periods=1).mean()).to_numpy()
    power = np.abs(np.fft.rfft(flat * np.hanning(len(flat)))) ** 2
    frequency = np.fft.rfftfreq(len(flat))
    fast = power[(frequency > 1 / 7) & (frequency < 1 / 3.5)].sum()
    return float(fast / power[(frequency > 1 / 14) & (frequency < 1 / 9)].sum())


def test_a_silent_sensor_is_missing_throughout() -> None:
    """No value inside the fault, values before and after, the other sensors go on."""
    table = of_kind("missing")
    for rows, _, sensors in events(table):
        part = table[rows.start : rows.stop]
        assert part[sensors].isna().all(axis=None)
        assert part[[name for name in NAMES if name not in sensors]].notna().all(axis=None)
        assert rows.stop - rows.start >= 12


def test_some_faults_take_two_sensors() -> None:
    """A shared cause hits two at once; spikes and stuck sensors are alone."""
    table = simulate_sensors(100_000, seed=1, anomaly_share=0.4, sensors=4)
    count = {kind: {len(names) for _, found, names in events(table) if found == kind} for kind in KINDS}

    assert count["missing"] == count["drift"] == {1, 2}
    assert count["stuck"] == count["spike"] == {1}


def test_faults_touch_only_their_rows_and_sensors() -> None:
    """Outside the truth the table is what it would be without the faults."""
    calm = simulate_sensors(8000, seed=6, anomalies=[])
    table = simulate_sensors(8000, seed=6, anomalies=["drift", "stuck", "missing"])
    for name in NAMES:
        at_fault = table["anomaly_sensor"].str.split(",").map(lambda names, name=name: name in names)
        both = ~at_fault & table[name].notna() & calm[name].notna()
        assert both.mean() > 0.9
        assert (table.loc[both, name] == calm.loc[both, name]).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": 0}, "rows expected a whole number of at least 1, got 0"),
        ({"rows": "many"}, "rows expected a whole number"),
        ({"seed": -1}, "seed expected a whole number of at least 0"),
        ({"machines": 0}, "machines expected a whole number of at least 1"),
        ({"machines": 5001}, "machines expected a whole number of at most 5000"),
        ({"sensors": 1}, "sensors expected a whole number of at least 2, got 1"),
        ({"sensors": 97}, "sensors expected a whole number of at most 96"),
        ({"anomalies": "drift"}, "anomalies expected a list of kinds, got 'drift'"),
        ({"anomalies": 3}, "anomalies expected a list of kinds"),
        ({"anomalies": ["drfit"]}, "got 'drfit'. Did you mean 'drift'"),
        ({"anomaly_share": 0.0}, "anomaly_share expected a share from 0.001 to 0.5"),
        ({"normal_share": 1.0}, "normal_share expected a share from 0.0 to 0.95"),
        ({"normal_share": math.nan}, "normal_share expected a share"),
        ({"rows": 100}, "rows expected at least 28[0-9] to hold one of each of 7 kinds"),
        ({"start": "now"}, "start expected a datetime without a time zone, got 'now'"),
        ({"start": datetime(2024, 1, 1, tzinfo=UTC)}, "start expected a datetime without a time zone"),
        ({"every": 60}, "every expected a time of at least a millisecond, got 60"),
        ({"every": timedelta(0)}, "every expected a time of at least a millisecond"),
        ({"every": timedelta(days=10_000)}, "leave the years 1700 to 2250"),
        ({"every": timedelta.max}, "leave the years 1700 to 2250"),
    ],
)
def test_simulate_sensors_refuses_arguments_without_meaning(change: dict[str, Any], message: str) -> None:
    """Each bad argument is named with what was expected."""
    arguments: dict[str, Any] = {"rows": 5000, "seed": 1, **change}

    with pytest.raises(SettingError, match=message):
        simulate_sensors(arguments.pop("rows"), **arguments)


def test_the_rows_which_an_error_asks_for_are_enough() -> None:
    """What the message says can be done works."""
    with pytest.raises(SettingError) as refused:
        simulate_sensors(10, seed=1, machines=3)
    needed = int(str(refused.value).split("at least ")[1].split()[0])

    table = simulate_sensors(needed, seed=1, machines=3)

    assert set(table["anomaly_kind"]) == {"", *KINDS}
