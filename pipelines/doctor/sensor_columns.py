"""What a column is where rows are readings of sensors, which are numbers, or true and false."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd

from detector.cleaning.values import read_booleans
from detector.errors import SchemaError
from detector.schema import guess_kind
from pipelines.doctor.choice import Choice
from pipelines.progress import counted

FEW_STATES = 50


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


def _is_truth(known: pd.Series) -> bool:
    try:
        return bool(len(known)) and not read_booleans(known)[1].any()
    except SchemaError:
        return False
