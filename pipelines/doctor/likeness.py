"""Machines that share a model and are not alike: what is unusual for one of them is usual for another."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from detector.explain.reason import reading
from pipelines.config import Config
from pipelines.doctor.check import Check
from pipelines.doctor.counters import only_grows
from pipelines.doctor.sensor_readings import first_of, readings_of

LEAST_READINGS = 50
MOST = 0.05
"""Share of a machine's readings, at either end, that say nothing of where it usually is."""
FEW = 0.1
"""Share of the machines, at either end, that may be like no other."""


def check_likeness(config: Config, frame: pd.DataFrame) -> Iterator[Check]:
    """One warning that names the sensors of which machines have nothing in common, where one model is for all."""
    readings = readings_of(config, frame)
    if readings is None or config.series.models != "shared" or config.series.group_by is not None:
        return
    if (machines := readings.machines) is None:
        return
    apart_by_name = {name: far_apart(values, machines) for name, values in readings.numbers.items()}
    found = [(name, apart) for name, apart in apart_by_name.items() if apart is not None]
    if not found:
        return
    names, (apart, *_) = zip(*found, strict=True)
    yield Check(
        "series.models",
        "warning",
        f"{first_of(names)}: {apart}, and one model learns what is normal for both",
        "What is unusual for one machine is then usual for another, and is missed. Are they alike? Else set "
        "`series.models: entity`, or `series.group_by` if their names tell their kind.",
    )


def far_apart(values: pd.Series, machines: pd.Series) -> str | None:
    """Of a low and of a high machine the readings, if they have hardly any in common; None if they do.

    >>> machines = pd.Series(["a", "b"] * 101)
    >>> far_apart(pd.Series([37 * n % 101 + 200 * (n % 2) for n in range(202)]), machines)
    "it usually is, of 'a' 5 to 95, and of 'b' 205 to 295"
    >>> far_apart(pd.Series([37 * n % 101 + 40 * (n % 2) for n in range(202)]), machines)
    """
    known = values.dropna()
    groups = known.groupby(machines.loc[known.index])
    usual = groups.quantile([MOST, 0.5, 1 - MOST]).unstack()[groups.size() >= LEAST_READINGS]
    if len(usual) < 2 or only_grows(values, machines):
        return None
    usual = usual.sort_values(0.5, kind="stable")
    aside = int(FEW * len(usual))
    low, high = usual.iloc[aside], usual.iloc[-1 - aside]
    if not low[1 - MOST] < high[MOST]:
        return None
    first, second = (f"{str(each.name)!r} {reading(each[MOST])} to {reading(each[1 - MOST])}" for each in (low, high))
    return f"it usually is, of {first}, and of {second}"
