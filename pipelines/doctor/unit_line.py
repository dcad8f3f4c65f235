"""A second line of the header that holds units, as loggers and spreadsheets write it."""

from __future__ import annotations

import re

import pandas as pd

from detector.schema import guess_kind
from pipelines.doctor.formats import numbers_in_forms
from pipelines.sources.formats import as_written

LEAST_ROWS = 20
LONGEST = 12


def units_of(frame: pd.DataFrame) -> dict[str, str]:
    """By column the unit that the first row names; empty where it is a row as the others.

    It is none if no column of numbers has a number in it.

    >>> rows = pd.DataFrame({"heat": ["°C", *["21,5", "22"] * 10], "mode": ["", *["on", "off"] * 10]})
    >>> units_of(rows), units_of(rows[1:])
    ({'heat': '°C'}, {})
    """
    rest = frame.iloc[1:]
    if len(rest) < LEAST_ROWS:
        return {}
    units: dict[str, str] = {}
    for name, cell in zip(map(str, frame.columns), frame.iloc[0], strict=True):
        unit = "" if pd.isna(cell) else as_written(str(cell)).strip()
        if not unit or not (guess_kind(rest[name])[0] == "numeric" or numbers_in_forms(rest[[name]])):
            continue
        if re.match(r"[+-]?[0-9.,]", unit) or len(unit) > LONGEST:
            return {}
        units[name] = unit
    return units
