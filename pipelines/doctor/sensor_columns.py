"""What a column is where rows are readings of sensors, which are numbers, or true and false."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd

from detector.cleaning.values import read_booleans
from detector.errors import SchemaError
from detector.schema import guess_kind
from pipelines.doctor.choice import Choice
from pipelines.doctor.counters import only_grows
from pipelines.progress import counted

FEW_STATES = 50
ZONE = r"(?:[Zz]|UTC|GMT|[+-][0-9]{2}:?[0-9]{2})$"
COUNTS = "it hardly ever falls"


def as_sensor(choice: Choice, column: pd.Series) -> Choice:
    """What is proposed for a table, made what a sensor can be; training refuses sensors that are text or dates.

    >>> mode = Choice("mode", "categorical", "text, 2 different")
    >>> [as_sensor(mode, pd.Series(words)).part for words in (["LOAD", "IDLE"], ["On", "off"])]
    ['ignore', 'boolean']
    >>> as_sensor(mode, pd.Series([0, 3, 17])).part
    'numeric'
    """
    if choice.part not in ("categorical", "datetime"):
        return choice
    known = column.dropna()
    if _is_truth(known):
        return replace(choice, part="boolean", why=f"{choice.why}, which say on or off", check="")
    if guess_kind(column)[0] == "numeric" and known.nunique() <= FEW_STATES:
        states = counted(known.nunique(), "different number")
        check = "its numbers are taken for states: one never seen is an anomaly; ignore it if it is no reading"
        return replace(choice, part="numeric", why=f"its name, and {states}", check=check)
    check = "no sensor, as it is no number; nothing is learnt from it. If its states matter, give each as a number"
    return replace(choice, part="ignore", check=check if choice.part == "categorical" else "")


def with_clock(time: Choice, column: pd.Series) -> Choice:
    """The time of readings: a clock on the wall is put back in autumn, and no hour of readings may come twice.

    >>> time = Choice("time", "time", "all values are dates", "it must say when it happened")
    >>> with_clock(time, pd.Series(["2026-03-01T10:00:00Z"])) == time
    True
    """
    has_zone = getattr(column.dt, "tz", None) is not None if hasattr(column, "dt") else False
    text = column.dropna().astype(str).str.strip()
    if has_zone or text.str.contains(ZONE).all() or pd.to_numeric(text, errors="coerce").notna().all():
        return time
    form = "" if time.form is None else f"date: {time.form.date}, "
    given = f"`source.formats: {{{time.column}: {{{form}timezone: Europe/Berlin}}}}`"
    check = f"it names no zone, and is taken as UTC. If a clock on the wall tells it: {given}"
    return replace(time, check=f"{time.check}; {check}")


def with_counters(choices: list[Choice], frame: pd.DataFrame, when: pd.Series) -> list[Choice]:
    """The columns of which those that count upwards are said to be counters, machine by machine."""
    machines = next((frame[each.column] for each in choices if each.part == "entity"), None)
    order = when.sort_values(kind="stable").index
    names = None if machines is None else machines.astype(str).loc[order]
    return [
        replace(each, why=COUNTS, check="a meter; `series.sampling.counters` has what it adds looked at")
        if each.part == "numeric" and only_grows(pd.to_numeric(frame[each.column], errors="coerce").loc[order], names)
        else each
        for each in choices
    ]


def _is_truth(known: pd.Series) -> bool:
    try:
        return bool(len(known)) and not read_booleans(known)[1].any()
    except SchemaError:
        return False
