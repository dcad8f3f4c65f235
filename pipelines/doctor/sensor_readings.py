"""The readings of sensors as the checks that are about them look at them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from detector.cleaning.values import read_dates, read_numbers
from detector.errors import DetectorError
from pipelines.config import Config
from pipelines.factory.kinds import KINDS
from pipelines.progress import counted


@dataclass(frozen=True)
class SensorReadings:
    """Of some rows, under their labels.

    - ``numbers``: a column for each sensor that is a number, NaN where none can be read.
    - ``machines``: whose they are; None where there is one series.
    - ``time``: when they were.
    """

    numbers: pd.DataFrame
    machines: pd.Series | None
    time: pd.Series


def first_of(names: Sequence[str]) -> str:
    """The first of some columns, and how many more there are.

    >>> first_of(["heat"]), first_of(["heat", "flow", "load"])
    ("'heat'", "'heat' and 2 other columns")
    """
    more = len(names) - 1
    return f"{names[0]!r}" + (f" and {counted(more, 'other column')}" if more else "")


def readings_of(config: Config, frame: pd.DataFrame) -> SensorReadings | None:
    """Those of a frame; None if its rows are none, or another check says what is wrong with them."""
    if config.kind != "sensors":
        return None
    try:
        schema = KINDS[config.kind].schema(frame, config)
        numbers = {name: read_numbers(frame[name])[0] for name in schema.numeric}
        time = read_dates(frame[schema.time])[0]
    except DetectorError:
        return None
    machines = None if schema.entity is None else frame[schema.entity]
    return SensorReadings(pd.DataFrame(numbers, index=frame.index), machines, time)
