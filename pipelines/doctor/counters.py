"""Columns that only count upwards: what they will hold was never learnt."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from pipelines.config import Config
from pipelines.doctor.check import Check
from pipelines.doctor.sensor_readings import first_of, readings_of

LEAST_RISES = 50
MOST_FALLS = 0.01
"""Share of the changes that may go down: a meter that is exchanged begins anew."""
LEAST_NUMBERED, MOST_ODD = 50, 0.01
"""So many rows at least, and the share of them that may have no number, or one out of order."""
DENSE, DENSE_IN_ORDER = 0.5, 0.02
"""Share of the whole numbers of a range that must be there, and where they are in order: others were left out."""


def check_counters(config: Config, frame: pd.DataFrame) -> Iterator[Check]:
    """One warning that names the sensors that count; nothing of tables, whose rows need not be in order."""
    if (readings := readings_of(config, frame)) is None:
        return
    order = readings.time.sort_values(kind="stable").index
    machines = None if readings.machines is None else readings.machines.loc[order]
    known = config.series.sampling.counters
    found = [
        str(name)
        for name, values in readings.numbers.items()
        if name not in known and only_grows(values.loc[order], machines)
    ]
    if not found:
        return
    yield Check(
        "columns.numeric",
        "warning",
        f"{first_of(found)}: readings hardly ever fall, as of a counter; those to come lie above all that is learnt",
        f"Have what they add from reading to reading looked at: `series.sampling.counters: [{', '.join(found)}]`; or "
        f"list them under `columns.ignore`.",
    )


def only_grows(values: pd.Series, machines: pd.Series | None = None) -> bool:
    """Whether readings in order of time count upwards, but for a few new beginnings.

    >>> only_grows(pd.Series([*range(100), *range(60)])), only_grows(pd.Series([1, 2] * 100))
    (True, False)
    """
    known = values.dropna()
    steps = known.diff() if machines is None else known.groupby(machines.loc[known.index]).diff()
    rises, falls = int((steps > 0).sum()), int((steps < 0).sum())
    return rises >= LEAST_RISES and falls <= MOST_FALLS * (rises + falls)


def is_running_number(column: pd.Series) -> bool:
    """Whether a column numbers rows: whole numbers, each once, with hardly one left out, or in order with some.

    Or fractions in order with hardly a step left out, as a time of years and months such as 1991.5 is.

    >>> is_running_number(pd.Series(range(900, 1000))), is_running_number(pd.Series(range(0, 10_000_000, 99_999)))
    (True, False)
    >>> months = pd.Series(range(120)) / 12 + 1991
    >>> is_running_number(months), is_running_number(months.sample(frac=1, random_state=0))
    (True, False)
    """
    known = pd.to_numeric(column, errors="coerce").dropna()
    if len(known) < max(LEAST_NUMBERED, (1 - MOST_ODD) * len(column)) or known.duplicated().any():
        return False
    steps = known.diff().dropna()
    in_order = max((steps > 0).mean(), (steps < 0).mean()) >= 1 - MOST_ODD
    are_whole = bool((known % 1 == 0).all())
    step = 1.0 if are_whole else float(known.sort_values().diff().min())
    share = len(known) / ((float(known.max()) - float(known.min())) / step + 1)
    if not are_whole:
        return bool(in_order and share >= DENSE)
    return bool(share >= (DENSE_IN_ORDER if in_order else DENSE))
