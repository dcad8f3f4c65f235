"""Machines with coupled sensors and known faults: an own design, so that the truth of every row is known."""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import datetime, time, timedelta

import numpy as np
import pandas as pd

from detector.errors import SettingError, nearest
from pipelines.simulate.arguments import START, holdable, local_time, share, whole
from pipelines.simulate.faults import (
    KINDS,
    LENGTHS,
    Fault,
    Floats,
    Readings,
    hold_and_lose,
    place_faults,
    read_with_faults,
)
from pipelines.simulate.machine import Sensor, choose_sensors, draw_ambient, run_machine, wander

_SLOT = 24
SHARE_LOST = 0.0003


def simulate_sensors(
    rows: int,
    *,
    seed: int,
    machines: int = 1,
    sensors: int = 8,
    anomalies: Iterable[str] | None = None,
    anomaly_share: float = 0.06,
    normal_share: float = 0.4,
    start: datetime = START,
    every: timedelta = timedelta(minutes=1),
) -> pd.DataFrame:
    """Simulate machines that report sensors, with the truth about every fault.

    A machine works in cycles, harder by day, and rests once a day. Its speed follows the load, vibration,
    pressure and flow follow the speed, temperatures follow the load slowly and the weather. Most sensors
    oscillate with the stroke; all are noisy, wander a little and lose a reading now and then. That is normal.

    Parameters
    ----------
    rows : int
        How many rows in all, shared among the machines as evenly as possible.
    seed : int
        The same arguments give the same table.
    machines, sensors : int
        How many machines there are, and how many sensors each has (2 to 96).
    anomalies : iterable of str or None
        The kinds of fault: drift, spike, stuck, level_shift, lost_correlation, change_of_frequency, missing.
        ``None`` takes all, an empty list none. Each comes at least once.
    anomaly_share : float
        About which share of the rows after the normal part is at fault, above 0 and up to 0.5. It is less
        where many spikes are among the faults, and more where the series is short.
    normal_share : float
        The first share of the rows, from 0 to 0.95, has no faults: the part to train on.
    start : datetime
        The first time, without a time zone.
    every : timedelta
        The time between two rows of a machine; at least a millisecond.

    Returns
    -------
    DataFrame
        Sorted by ``time``, ``machine``: these two, one column a sensor, and the truth: ``anomaly`` (0 or 1),
        ``anomaly_kind`` ("" where there is none) and ``anomaly_sensor``, the column at fault, or several
        joined by a comma. While a sensor is silent its value is missing.

    Raises
    ------
    SettingError
        If an argument has no meaning, or the rows cannot hold one fault of each kind.

    >>> table = simulate_sensors(2000, seed=7, sensors=3)
    >>> list(table.columns)[:5], int(table["anomaly"].head(800).sum())
    (['time', 'machine', 'motor_current_a', 'speed_rpm', 'vibration_mm_s'], 0)
    """
    kinds = _checked_kinds(anomalies)
    whole("rows", rows, least=1)
    whole("seed", seed, least=0)
    whole("machines", machines, least=1, most=rows)
    whole("sensors", sensors, least=2, most=96)
    share("anomaly_share", anomaly_share, least=0.001, most=0.5)
    share("normal_share", normal_share, least=0.0, most=0.95)
    _check_times(start, every=every, rows=-(-rows // machines))

    lengths = [rows // machines + (number < rows % machines) for number in range(machines)]
    plans = _share_out(kinds, lengths, anomaly_share=anomaly_share, normal_share=normal_share)
    chosen = choose_sensors(sensors)
    children = np.random.SeedSequence(int(seed)).spawn(machines)
    width = len(str(machines))
    parts = []
    for number, (length, plan, child) in enumerate(zip(lengths, plans, children, strict=True), start=1):
        rng = np.random.Generator(np.random.PCG64(child))
        first = math.ceil(normal_share * length)
        table = _simulate_machine(rng, chosen, plan, length, first, anomaly_share, start=start, every=every)
        table.insert(1, "machine", pd.Series(f"M{number:0{width}d}", index=table.index, dtype="str"))
        parts.append(table)
    if machines == 1:
        return parts[0]
    return pd.concat(parts).sort_values(["time", "machine"], kind="stable", ignore_index=True)


def _simulate_machine(
    rng: np.random.Generator,
    sensors: list[Sensor],
    kinds: list[str],
    rows: int,
    first: int,
    share: float,
    *,
    start: datetime,
    every: timedelta,
) -> pd.DataFrame:
    midnight = datetime.combine(start.date(), time())
    seconds = np.arange(rows, dtype=np.float64) * every.total_seconds() + (start - midnight).total_seconds()
    readings = _draw_readings(rng, sensors, seconds)
    fast = [number for number, sensor in enumerate(sensors) if sensor.ripple > 0]
    faults = place_faults(rng, kinds=kinds, first=first, rows=rows, share=share, fast=fast, sensors=len(sensors))
    values = np.maximum(read_with_faults(rng, readings, faults), readings.least)
    values = np.column_stack([np.round(values[:, n], sensor.decimals) for n, sensor in enumerate(sensors)])
    truth = _truth(faults, [sensor.name for sensor in sensors], rows)
    lost = (rng.random(values.shape) < SHARE_LOST) & (truth["anomaly"] == 0).to_numpy()[:, None]
    values = np.where(lost, np.nan, hold_and_lose(values, faults))
    table = pd.DataFrame(values, columns=[sensor.name for sensor in sensors])
    step = np.timedelta64(every // timedelta(microseconds=1), "us")
    table.insert(0, "time", np.datetime64(start, "us") + np.arange(rows) * step)
    return table.join(truth)


def _draw_readings(rng: np.random.Generator, sensors: list[Sensor], seconds: Floats) -> Readings:
    rows, count = len(seconds), len(sensors)
    ambient = draw_ambient(rng, seconds)
    state, elsewhere = run_machine(rng, seconds, ambient=ambient), run_machine(rng, seconds, ambient=ambient)
    gain = rng.uniform(0.9, 1.1, count)
    base = np.column_stack([sensor.shows(state) for sensor in sensors]) * gain
    other = np.column_stack([sensor.shows(elsewhere) for sensor in sensors]) * gain
    spread = base.std(axis=0) + 1e-9
    noise = np.array([sensor.noise for sensor in sensors]) * spread * rng.standard_normal((rows, count))
    slow = np.column_stack([wander(rng, rows, 150.0) for _ in sensors]) * 0.06 * spread
    ripple = np.array([sensor.ripple for sensor in sensors]) * spread * (0.35 + 0.65 * state.speed[:, None])
    # The stroke is a little faster under load.
    stroke = rng.uniform(10, 13) / (0.92 + 0.16 * state.speed)
    period = np.repeat(stroke[:, None], count, axis=1)
    least = np.array([sensor.least for sensor in sensors])
    return Readings(base=base, other=other, ripple=ripple, period=period, noise=noise + slow, least=least)


def _truth(faults: list[Fault], names: list[str], rows: int) -> pd.DataFrame:
    anomaly = np.zeros(rows, np.int64)
    kind, sensor = np.full(rows, "", dtype=object), np.full(rows, "", dtype=object)
    for fault in faults:
        anomaly[fault.start : fault.stop] = 1
        kind[fault.start : fault.stop] = fault.kind
        sensor[fault.start : fault.stop] = ",".join(names[number] for number in fault.sensors)
    return pd.DataFrame({"anomaly": anomaly, "anomaly_kind": kind, "anomaly_sensor": sensor}).astype(
        {"anomaly_kind": "str", "anomaly_sensor": "str"}
    )


def _share_out(kinds: list[str], lengths: list[int], *, anomaly_share: float, normal_share: float) -> list[list[str]]:
    """Say which faults each machine gets: as many as fill the share, each kind at least once in all."""
    if not kinds:
        return [[] for _ in lengths]
    machines, room = len(lengths), min(length - math.ceil(normal_share * length) for length in lengths)
    usual = sum(sum(LENGTHS[kind]) / 2 for kind in kinds) / len(kinds)
    least = -(-len(kinds) // machines)
    if room < _SLOT * least:
        needed = machines * (math.ceil(_SLOT * least / (1 - normal_share)) + 1)
        raise SettingError(
            f"rows expected at least {needed} to hold one of each of {len(kinds)} kinds of anomaly after the "
            f"normal share of {normal_share}, got {sum(lengths)}. Give more rows, or ask for fewer anomalies."
        )
    count = max(least, min(round(anomaly_share * room / usual), room // _SLOT))
    return [[kinds[(number * count + turn) % len(kinds)] for turn in range(count)] for number in range(machines)]


def _checked_kinds(anomalies: Iterable[str] | None) -> list[str]:
    if anomalies is None:
        return list(KINDS)
    if isinstance(anomalies, str) or not isinstance(anomalies, Iterable):
        raise SettingError(f"anomalies expected a list of kinds, got {anomalies!r}. Give for example ['drift'].")
    kinds = list(dict.fromkeys(anomalies))
    for kind in kinds:
        if kind not in KINDS:
            raise SettingError(f"anomalies expected known kinds, got {kind!r}. {nearest(str(kind), KINDS)}")
    return kinds


def _check_times(start: datetime, *, every: timedelta, rows: int) -> None:
    local_time("start", start)
    if not isinstance(every, timedelta) or every < timedelta(milliseconds=1):
        raise SettingError(
            f"every expected a time of at least a millisecond, got {every!r}. Give timedelta(minutes=1)."
        )
    try:
        holdable(start, rows * every)
    except OverflowError:
        holdable(start, timedelta.max)
