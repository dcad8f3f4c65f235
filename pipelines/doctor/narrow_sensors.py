"""Sensors that move so little beside the others that they hardly count, which may be for their unit alone."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from detector.explain.reason import reading
from pipelines.config import Config
from pipelines.doctor.check import Check
from pipelines.doctor.sensor_readings import readings_of
from pipelines.progress import counted

DAMPED = 2.0
"""How many times its own range a sensor must be taken for, for that to be worth a line."""
MOST_MACHINES = 0.5
"""Share of the machines with a model of their own for which it must be so."""


def check_narrow_sensors(config: Config, frame: pd.DataFrame) -> Iterator[Check]:
    """One warning that names the sensors whose range is far below the floor."""
    if (readings := readings_of(config, frame)) is None:
        return
    one = pd.Series("", index=frame.index)
    machines = one if readings.machines is None or config.series.models != "entity" else readings.machines
    found = narrow_sensors(readings.numbers, machines, floor=config.series.range_floor)
    if found.empty:
        return
    name, (own, least, share) = str(found.index[0]), found.iloc[0]
    others = f" and {counted(len(found) - 1, 'other column')}" if len(found) > 1 else ""
    yield Check(
        "series.range_floor",
        "warning",
        f"{name!r}{others}: it moves within {reading(own)}, and counts as one that moves within {reading(least)}, as "
        f"most sensors move far more: only far larger changes are noticed",
        f"Is that for its unit? Give it in a smaller one, or set `series.range_floor` to {share:.1g} (now "
        f"{config.series.range_floor:g}); sensors that hardly move then raise more false alarms.",
    )


def narrow_sensors(numbers: pd.DataFrame, machines: pd.Series, *, floor: float) -> pd.DataFrame:
    """By sensor ``own`` range, the ``least`` it counts with, and the ``share`` of the usual range it has.

    Those that are damped for most machines; the narrowest first.

    >>> numbers = pd.DataFrame({"heat": [20.0, 60.0], "flow": [1.0, 9.0], "vibration": [0.01, 0.02]})
    >>> narrow_sensors(numbers, pd.Series(["", ""]), floor=0.1).round(2).reset_index().values.tolist()
    [['vibration', 0.01, 0.8, 0.0]]
    """
    groups = numbers.groupby(machines.to_numpy())
    width = groups.max() - groups.min()
    width = width.where(width > 0)
    typical = width.median(axis=1)
    damped = width.lt(floor * typical / DAMPED, axis=0)
    names = [name for name in numbers if damped[name].mean() > MOST_MACHINES]
    own, usual = width[names].median(), float(np.median(typical.dropna())) if names else 0.0
    found = pd.DataFrame({"own": own, "least": floor * usual, "share": own / usual if names else own})
    return found.sort_values("share", kind="stable")
