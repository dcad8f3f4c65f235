"""What a file of readings is proposed as: one row for all sensors of a machine, or one reading a row."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Self

import pandas as pd

from detector.detectors.series.reasons import duration
from detector.schema import guess_kind
from pipelines.doctor.choice import Choice
from pipelines.doctor.column_names import CODE
from pipelines.doctor.names import HALF, has_fractions
from pipelines.doctor.reading_rows import (
    MOST_NAMES,
    OneReading,
    Sampled,
    are_clocked,
    are_regular,
    follow_on,
    one_reading,
    sampled,
    steps_of,
)
from pipelines.doctor.sensor_columns import as_sensor
from pipelines.doctor.times import times_of
from pipelines.progress import counted

MOSTLY_NUMBERS = 0.7
FEW_STATES = 10
NO_STEP = pd.Timedelta(0)
LONG_STEP = pd.Timedelta(days=7)
"""Rows of one name that are so far apart are bills or pay, of which each stands for itself."""


@dataclass(frozen=True)
class Readings:
    """Why rows are readings of sensors, how often they come, if a clock makes them, or what makes steps of them."""

    why: str
    step: pd.Timedelta = NO_STEP
    is_clocked: bool = False
    sampled: Sampled | None = None


@dataclass(frozen=True)
class _Columns:
    """The columns that vary and have no role: which are text, which numbers, and which of these have fractions."""

    texts: tuple[str, ...]
    numbers: tuple[str, ...]
    floats: tuple[str, ...]
    others: tuple[str, ...]

    @classmethod
    def of(cls, frame: pd.DataFrame, taken: Collection[str]) -> Self:
        """Those of a frame."""
        others = [name for name in map(str, frame.columns) if name not in taken and frame[name].nunique() > 1]
        kinds = {name: guess_kind(frame[name])[0] for name in others}
        numbers = tuple(name for name in others if kinds[name] == "numeric")
        texts = tuple(name for name in others if kinds[name] == "categorical")
        return cls(texts, numbers, tuple(name for name in others if has_fractions(frame[name])), tuple(others))

    def without(self, column: str) -> Self:
        """All but one."""
        parts = (self.texts, self.numbers, self.floats, self.others)
        return type(self)(*(tuple(name for name in part if name != column) for part in parts))


def _readings(frame: pd.DataFrame, when: pd.Series, entity: Choice | None, columns: _Columns) -> Readings | None:
    """Whether rows are readings of sensors, and why: numbers, in regular steps or each close to the one before."""
    columns = columns if entity is None else columns.without(entity.column)
    others, numbers, floats = columns.others, list(columns.numbers), columns.floats
    is_alone = entity is None and len(others) == len(numbers) == 1 and not CODE.search(others[0])
    are_numbers = is_alone or (len(floats) >= 2 and len(numbers) >= MOSTLY_NUMBERS * len(others))
    measured = [name for name in numbers if name in floats or not CODE.search(name)]
    if not are_numbers and len(measured) < 2:
        return None
    names = [] if entity is None else [frame[entity.column]]
    steps = steps_of(when, names)
    if entity is not None and steps.median() >= LONG_STEP:
        return None
    many = counted(len(numbers), "column")
    if are_regular(steps) and (are_numbers or are_clocked(steps)):
        middle = steps.median()
        about = "" if (steps == middle).mean() >= HALF else "about "
        why = f"{many} of numbers, a row {about}every {duration(middle)}"
        return Readings(why, middle, is_clocked=are_clocked(steps))
    values = frame.loc[when.sort_values(kind="stable").index, numbers].apply(pd.to_numeric, errors="coerce")
    if are_numbers and all(follow_on(values[name], names) for name in floats or numbers):
        why = f"{many} of numbers, each close to the one before, at uneven times"
        return Readings(why, steps.median(), sampled=sampled(when, values, names))
    return None


def machine_of(
    frame: pd.DataFrame, time: Choice | None, entity: Choice | None, taken: Mapping[str, Choice]
) -> tuple[Choice | None, Readings | None]:
    """The column by whose values rows are readings of sensors, if it takes one, and why they are."""
    if time is None:
        return entity, None
    columns, when = _Columns.of(frame, taken), times_of(frame[time.column], time.form)
    alone = _readings(frame, when, None, columns)
    if entity is None and alone is not None:
        return None, alone
    if entity is not None:
        is_state = frame[entity.column].nunique() <= FEW_STATES and not _has_rows_between(frame, when, entity)
        if alone is not None and alone.is_clocked and is_state:
            return None, alone
        return entity, _readings(frame, when, entity, columns)
    for name in columns.texts:
        many = frame[name].nunique()
        if many > MOST_NAMES * len(frame):
            continue
        check = "rows of one value come in regular steps: each should be a machine"
        choice = Choice(name, "entity", f"{many:,} different, {len(frame) / many:,.0f} rows each", check)
        found = _readings(frame, when, choice, columns)
        if found is not None:
            return choice, found
    return None, None


def _has_rows_between(frame: pd.DataFrame, when: pd.Series, entity: Choice) -> bool:
    """Whether others have rows between two of an entity, at regular steps; if not, it is a state of one machine."""
    own = steps_of(when, [frame[entity.column]])
    return are_regular(own) and bool(own.median() > steps_of(when, []).median())


def single_readings(
    frame: pd.DataFrame, time: Choice | None, choices: list[Choice]
) -> tuple[OneReading | None, list[Choice]]:
    """Of rows that each hold one reading of one sensor what they are, and the columns that this changes.

    Where no name alone says which sensor, they stay a table, whose check says what to do.
    """
    numbers = [each for each in choices if each.part == "numeric"]
    names = [each.column for each in choices if each.part in ("categorical", "entity")]
    if time is None or len(numbers) != 1 or not names or not has_fractions(frame[numbers[0].column]):
        return None, []
    log = one_reading(frame, time, names, numbers[0].column)
    if log is not None:
        return log, list(_as_log(log, frame, time, choices))
    steps = steps_of(times_of(frame[time.column], time.form), [frame[name] for name in names])
    if len(steps) < HALF * len(frame) or not are_regular(steps):
        return None, []
    values = pd.to_numeric(frame[numbers[0].column], errors="coerce")
    sensor = max(names, key=lambda name: values.groupby(frame[name]).mean().std())
    pivot = _pivot(sensor, [name for name in (time.column, *names) if name != sensor], numbers[0].column)
    step = duration(steps.median())
    check = f"one reading a row, every {step}. Sensors that are read together belong into a row: with pandas, {pivot}"
    return None, [replace(numbers[0], check=check)]


def _as_log(log: OneReading, frame: pd.DataFrame, time: Choice, choices: list[Choice]) -> Iterator[Choice]:
    """The columns of such rows: each sensor is looked at by itself, as no row says what others read at its time."""
    for choice in choices:
        if choice.column == log.sensor:
            many = frame[log.sensor].nunique()
            check = "each is looked at by itself; sensors of one machine tell more as columns of one row"
            if log.sampled is None:
                check += f": with pandas, {_pivot(log.sensor, [time.column], log.number)}"
            yield Choice(log.sensor, "entity", f"{many:,} different, {len(frame) / many:,.0f} rows each", check)
        elif choice.part == "entity":
            yield replace(choice, part="ignore", check="")
        else:
            yield as_sensor(choice, frame[choice.column])


def _pivot(sensor: str, others: list[str], number: str) -> str:
    return f"rows.pivot_table(index={others}, columns={sensor!r}, values={number!r}).reset_index()"
