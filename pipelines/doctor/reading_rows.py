"""Whether rows are readings of sensors: they come in regular steps, or each hardly differs from the one before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from detector.detectors.series.reasons import duration
from pipelines.doctor.choice import Choice
from pipelines.doctor.names import HALF
from pipelines.doctor.times import times_of

REGULAR = 0.7
"""Share of the steps in time that are half to one and a half times the middle one. Of events at random it is .35."""
CLOCKED = 0.95
"""Share of the steps that are the very same where a clock, and nobody's doing, makes the rows."""
FOLLOWING = 0.3
"""How much of the variance of values is in their steps, at most, if each hangs on the one before. At random it is 1."""
LEAST_STEPS = 50
MOST_NAMES = 0.02
ONE_OTHER = 0.95
"""Share of the rows of a name that have the same other names, if it says alone whose they are."""
SILENCES = 2
"""A gap may be so many times as long as any in the rows looked at before it is one."""
_STEPS = ("1s", "5s", "10s", "30s", "1min", "5min", "10min", "15min", "30min", "1h", "3h", "12h", "1D", "7D")


@dataclass(frozen=True)
class Sampled:
    """The regular steps that readings are put on which come when something changes.

    - ``every``: how long a step is.
    - ``limit``: how many steps a value holds at most, if no other comes.
    """

    every: str
    limit: int


@dataclass(frozen=True)
class OneReading:
    """Of rows that hold one reading each: which column says of which sensor, which one holds it, and how they come."""

    sensor: str
    number: str
    step: pd.Timedelta
    sampled: Sampled | None

    @property
    def why(self) -> str:
        """Why it is taken for that."""
        often = f"every {duration(self.step)}" if self.sampled is None else "at uneven times"
        return f"each row is one reading of one {self.sensor}, {often}"


def steps_of(when: pd.Series, names: Sequence[pd.Series]) -> pd.Series:
    """The time from each row to the next one of the same names."""
    groups = [name.astype(str).reindex(when.index) for name in names]
    ordered = when.sort_values(kind="stable")
    return (ordered.groupby(groups).diff() if groups else ordered.diff()).dropna()


def are_regular(steps: pd.Series) -> bool:
    """Whether most steps are about as long as the middle one."""
    middle = steps.median()
    return bool(len(steps) and middle > pd.Timedelta(0) and ((steps - middle).abs() < middle / 2).mean() >= REGULAR)


def are_clocked(steps: pd.Series) -> bool:
    """Whether nearly all steps are the same, and shorter than a day: people book by the day.

    >>> are_clocked(pd.Series(pd.to_timedelta([900] * 60, unit="s"))), are_clocked(pd.Series(pd.to_timedelta(["1D"])))
    (True, False)
    """
    middle = steps.median()
    return bool(len(steps) and pd.Timedelta(0) < middle < pd.Timedelta(days=1) and (steps == middle).mean() >= CLOCKED)


def follow_on(values: pd.Series, names: Sequence[pd.Series]) -> bool:
    """Whether values, in order of time, mostly hang on the one before of the same names.

    >>> drift = pd.Series(np.sin(np.arange(200) / 20))
    >>> follow_on(drift, []), follow_on(drift.sample(frac=1, random_state=0).reset_index(drop=True), [])
    (True, False)
    """
    known = values.dropna()
    groups = [name.astype(str).reindex(known.index) for name in names] or [pd.Series("", index=known.index)]
    found, rows = 0, 0
    for _, series in known.groupby(groups):
        spread = 2 * series.var()
        if len(series) > LEAST_STEPS and spread > 0:
            rows += len(series)
            found += len(series) if float((series.diff() ** 2).mean()) <= FOLLOWING * spread else 0
    return found > HALF * max(rows, 1)


def sampled(when: pd.Series, known: pd.DataFrame, names: Sequence[pd.Series]) -> Sampled:
    """Steps about as long as those between two readings of a sensor, and how many the longest silence has."""
    each = [steps_of(when[known[name].reindex(when.index).notna()], names) for name in known]
    usual = pd.Series([steps.median() for steps in each if len(steps)]).median()
    longest = max(steps.max() for steps in each if len(steps))
    every = max((step for step in _STEPS if pd.Timedelta(step) <= usual), key=pd.Timedelta, default=_STEPS[0])
    return Sampled(every, int(np.ceil(SILENCES * longest / pd.Timedelta(every))))


def one_reading(frame: pd.DataFrame, time: Choice, names: Sequence[str], number: str) -> OneReading | None:
    """What one name says of rows that hold a single number, if it says alone whose they are and they follow on."""
    when = times_of(frame[time.column], time.form)
    values = pd.to_numeric(frame[number], errors="coerce").loc[when.sort_values(kind="stable").index]
    for name in names:
        column = frame[name]
        others = frame[[other for other in names if other != name]].astype(str)
        if not 1 < column.nunique() <= MOST_NAMES * len(frame) or not _tells(column, others):
            continue
        steps = steps_of(when, [column])
        if len(steps) < HALF * len(frame):
            continue
        if are_regular(steps):
            return OneReading(name, number, steps.median(), None)
        if follow_on(values, [column]):
            return OneReading(name, number, steps.median(), sampled(when, values.to_frame(), [column]))
    return None


def _tells(name: pd.Series, others: pd.DataFrame) -> bool:
    """Whether rows of one name have nearly always the same other names."""
    groups = name.astype(str)
    return all(
        (others[other] == others[other].groupby(groups).transform(_usual)).mean() >= ONE_OTHER for other in others
    )


def _usual(values: pd.Series) -> str:
    return str(values.mode().iloc[0])
