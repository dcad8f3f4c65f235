"""A machine that works in cycles, and the sensors that watch it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Floats = NDArray[np.float64]
DAY_SECONDS = 86_400.0


@dataclass(frozen=True)
class State:
    """What goes on inside, one value a row; ``load``, ``speed`` and ``heat`` are about 0 to 1."""

    load: Floats
    speed: Floats
    warm: Floats
    hot: Floats
    ambient: Floats


@dataclass(frozen=True)
class Sensor:
    """What a sensor shows of the state; ``ripple`` and ``noise`` are shares of its own spread."""

    name: str
    shows: Callable[[State], Floats]
    ripple: float
    noise: float
    decimals: int
    least: float = 0.0


CATALOGUE = (
    Sensor("motor_current_a", lambda s: 9 + 34 * s.load, 0.20, 0.06, 2),
    Sensor("speed_rpm", lambda s: 620 + 830 * s.speed, 0.14, 0.04, 1),
    Sensor("vibration_mm_s", lambda s: 0.6 + 2.9 * s.speed**2 + 0.3 * s.load, 0.30, 0.12, 3),
    Sensor("pressure_bar", lambda s: 1.4 + 4.2 * (0.1 + 0.9 * s.speed) ** 2, 0.22, 0.06, 3),
    Sensor("flow_l_min", lambda s: 12 + 96 * s.speed, 0.16, 0.07, 2),
    Sensor("bearing_temperature_c", lambda s: s.ambient + 9 + 36 * s.warm, 0.0, 0.03, 2, -40.0),
    Sensor("oil_temperature_c", lambda s: s.ambient + 14 + 27 * s.hot, 0.0, 0.03, 2, -40.0),
    Sensor("power_kw", lambda s: 2.5 + 21 * s.load * (0.35 + 0.65 * s.speed), 0.18, 0.06, 2),
    Sensor("torque_nm", lambda s: 18 + 130 * s.load, 0.22, 0.07, 1),
    Sensor("valve_position_percent", lambda s: 15 + 70 * s.load, 0.12, 0.04, 1),
    Sensor("sound_db", lambda s: 58 + 21 * np.sqrt(s.speed), 0.15, 0.12, 1),
    Sensor("hall_temperature_c", lambda s: s.ambient + 1.5 * s.hot, 0.0, 0.04, 2, -40.0),
)


def choose_sensors(count: int) -> list[Sensor]:
    """Take the first sensors of the catalogue; after the last come second measuring points of each kind.

    >>> [sensor.name for sensor in choose_sensors(13)][-2:]
    ['hall_temperature_c', 'motor_current_2_a']
    """
    return [_point(CATALOGUE[number % len(CATALOGUE)], number // len(CATALOGUE) + 1) for number in range(count)]


def _point(sensor: Sensor, number: int) -> Sensor:
    if number == 1:
        return sensor
    quantity = next(
        name
        for name in (
            "current",
            "speed",
            "vibration",
            "pressure",
            "flow",
            "temperature",
            "power",
            "torque",
            "position",
            "sound",
        )
        if name in sensor.name
    )
    name = sensor.name.replace(quantity, f"{quantity}_{number}", 1)
    return Sensor(name, sensor.shows, sensor.ripple, sensor.noise, sensor.decimals, sensor.least)


def run_machine(rng: np.random.Generator, seconds: Floats, *, ambient: Floats) -> State:
    """Let a machine work through its cycles.

    - ``rng``: decides the length and the height of every cycle and when the daily pause is.
    - ``seconds`` (n_rows,): seconds since midnight of the first day, evenly spaced.
    - ``ambient`` (n_rows,): the temperature around the machine in degrees Celsius.
    """
    load = smooth(_cycles(rng, seconds), 1.6)
    speed = smooth(load, 3.0)
    warm = smooth(load, 25.0, start=float(load.mean()))
    return State(load=load, speed=speed, warm=warm, hot=smooth(warm, 45.0, start=float(load.mean())), ambient=ambient)


def draw_ambient(rng: np.random.Generator, seconds: Floats) -> Floats:
    """Warm in the afternoon, cold at night, with slow weather."""
    rhythm = 3.5 * np.sin(2 * np.pi * (seconds / DAY_SECONDS - 9 / 24))
    return 19 + rhythm + wander(rng, len(seconds), 400.0) * 1.2


def wander(rng: np.random.Generator, rows: int, memory: float) -> Floats:
    """Noise of spread one which forgets over about ``memory`` rows."""
    noise = rng.standard_normal(rows + round(3 * memory))
    settled: Floats = smooth(noise, memory)[len(noise) - rows :]
    return settled * math.sqrt(2 * memory)


def smooth(values: Floats, memory: float, *, start: float | None = None) -> Floats:
    """Follow the values with a first-order lag of about ``memory`` rows."""
    first = values[:1] if start is None else np.array([start])
    series = pd.Series(np.concatenate([first, values]))
    lagged: Floats = series.ewm(alpha=1 / (1 + memory), adjust=False).mean().to_numpy()
    return lagged[1:]


def _cycles(rng: np.random.Generator, seconds: Floats) -> Floats:
    rows = len(seconds)
    count = rows // 30 + 2
    length = rng.integers(34, 66, count)
    high, low = rng.uniform(0.72, 1.0, count), rng.uniform(0.22, 0.36, count)
    working = rng.uniform(0.55, 0.75, count)
    begin = np.cumsum(length) - length
    cycle = np.repeat(np.arange(count), length)[:rows]
    within = (np.arange(rows) - begin[cycle]) / length[cycle]
    load = np.where(within < working[cycle], high[cycle], low[cycle])
    day, hour = np.divmod(seconds / 3600, 24)
    load = load * np.where((hour >= 22) | (hour < 6), 0.8, 1.0)
    # Once a day the crew stops the machine for half an hour or so: idle is normal.
    days = int(day[-1]) + 1 if rows else 1
    stops, lasts = rng.uniform(10, 16, days), rng.uniform(0.4, 0.8, days)
    since = hour - stops[day.astype(np.int64)]
    return np.where((since >= 0) & (since < lasts[day.astype(np.int64)]), 0.04, load)
