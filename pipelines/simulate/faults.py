"""What goes wrong with a sensor: where, for how long and how its values change."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
SHORTEST = 12

# For how many rows each kind lasts, unless the series is too short for that.
LENGTHS = {
    "drift": (120, 360),
    "spike": (1, 3),
    "stuck": (40, 140),
    "level_shift": (60, 220),
    "lost_correlation": (100, 260),
    "change_of_frequency": (70, 200),
    "missing": (20, 110),
}
KINDS = tuple(LENGTHS)
# A gateway, a power supply or a loose mounting may take a second sensor with it.
SHARED = ("drift", "level_shift", "missing")


@dataclass(frozen=True)
class Fault:
    """Rows ``start`` to ``stop`` (not included) of the sensors with these numbers are wrong."""

    kind: str
    start: int
    stop: int
    sensors: tuple[int, ...]


@dataclass(frozen=True)
class Readings:
    """A machine's readings before anything goes wrong; arrays of shape (n_rows, n_sensors).

    ``base`` is what the sensors show of the machine, ``other`` what they would show of one that works in
    other cycles, ``ripple`` the size of each sensor's oscillation, ``noise`` what is added at random and
    ``least``, of shape (n_sensors,), the lowest value a sensor can show.
    """

    base: Floats
    other: Floats
    ripple: Floats
    period: Floats
    noise: Floats
    least: Floats

    @property
    def spread(self) -> Floats:
        """Each sensor's own standard deviation."""
        own: Floats = self.base.std(axis=0)
        return own + 1e-9


def place_faults(
    rng: np.random.Generator,
    *,
    kinds: list[str],
    first: int,
    rows: int,
    share: float,
    fast: list[int],
    sensors: int,
) -> list[Fault]:
    """Spread faults over the rows from ``first`` on, one in each of as many equal slots.

    - ``kinds``: one fault of each, in random order; a kind may come several times.
    - ``first``, ``rows``: the first row that may be at fault and the number of all rows.
    - ``share``: about which share of these rows is at fault: lengths shrink where they would exceed it.
    - ``fast``: the sensors that follow the load at once and oscillate: only there a lost correlation or another
      frequency can be seen.
    """
    if not kinds:
        return []
    order = [kinds[number] for number in rng.permutation(len(kinds))]
    edges = np.linspace(first, rows, len(order) + 1).astype(int)
    wanted = np.array([rng.integers(LENGTHS[kind][0], LENGTHS[kind][1] + 1) for kind in order])
    shrink = min(1.0, share * (rows - first) / wanted.sum())
    faults = []
    for kind, length, low, high in zip(order, wanted, edges[:-1], edges[1:], strict=True):
        least = min(SHORTEST, int(length))
        lasts = max(least, min(round(float(length) * shrink), (high - low) * 2 // 3))
        start = low + 1 + int(rng.integers(0, max(1, high - low - lasts - 1)))
        pool = fast if kind in ("change_of_frequency", "lost_correlation") else list(range(sensors))
        several = 2 if kind in SHARED and sensors > 2 and rng.random() < 0.2 else 1
        chosen = rng.choice(pool, size=min(several, len(pool)), replace=False)
        faults.append(Fault(kind, int(start), int(start + lasts), tuple(sorted(int(number) for number in chosen))))
    return faults


def read_with_faults(rng: np.random.Generator, readings: Readings, faults: list[Fault]) -> Floats:
    """Give what the sensors report, faults included."""
    base, quicker = readings.base.copy(), np.ones_like(readings.base)
    spread = readings.spread
    for fault in faults:
        rows = slice(fault.start, fault.stop)
        for sensor in fault.sensors:
            if fault.kind == "lost_correlation":
                base[rows, sensor] = _blend(base[rows, sensor], readings.other[rows, sensor])
            elif fault.kind == "change_of_frequency":
                quicker[rows, sensor] = rng.uniform(1.9, 2.6)
            elif fault.kind in ("drift", "spike", "level_shift"):
                offset = spread[sensor] * _offset(rng, fault.kind, fault.stop - fault.start)
                # Downwards only where there is room: a sensor at zero would hide the fault.
                lowest = base[rows, sensor] - readings.ripple[rows, sensor] + readings.noise[rows, sensor]
                room = np.min(lowest + offset) > readings.least[sensor]
                base[rows, sensor] += offset if room else np.abs(offset)
    phase = np.cumsum(quicker * 2 * np.pi / readings.period, axis=0)
    return base + readings.ripple * np.sin(phase) + readings.noise


def hold_and_lose(values: Floats, faults: list[Fault]) -> Floats:
    """Repeat the last reading of a stuck sensor, remove those of a silent one; ``values`` stays as it is."""
    held = values.copy()
    for fault in faults:
        for sensor in fault.sensors:
            if fault.kind == "stuck":
                held[fault.start : fault.stop, sensor] = held[fault.start - 1, sensor]
            elif fault.kind == "missing":
                held[fault.start : fault.stop, sensor] = np.nan
    return held


def _offset(rng: np.random.Generator, kind: str, rows: int) -> Floats:
    """Draw the error in units of the sensor's spread."""
    sign = float(rng.choice([-1.0, 1.0]))
    if kind == "drift":
        return np.linspace(0.0, sign * rng.uniform(1.6, 2.8), rows + 1)[1:]
    if kind == "spike":
        return rng.uniform(0.7, 1.0, rows) * (sign * rng.uniform(3.0, 5.5))
    return np.full(rows, sign * rng.uniform(1.1, 2.0))


def _blend(before: Floats, after: Floats) -> Floats:
    """Go over from one curve to another and back within a few rows, so that no jump gives it away."""
    steps = np.minimum(np.arange(len(before)) + 1, np.arange(len(before))[::-1] + 1)
    weight = np.minimum(steps / 4, 1.0)
    return (1 - weight) * before + weight * after
