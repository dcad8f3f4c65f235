"""One row as whole numbers, without a frame around it: what scoring online can afford."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import accumulate
from math import nan
from typing import Any

import numpy as np
import pandas as pd

from detector.cleaning.values import naive_utc
from detector.errors import DataError
from detector.features import integers
from detector.features.events import NEVER
from detector.features.feature_set import FeatureSet
from detector.features.join import SEPARATOR
from detector.features.measures import MISSING, TURNS


def read_row(features: FeatureSet, row: Mapping[str, Any], keys: Iterable[str]) -> dict[str, int]:
    """What a sequence carries of a row, and its ``time``, by the rules of ``FeatureSet.read``.

    Raises ``DataError`` if there is no time, an amount is against the rules, or a date or a number cannot be read.
    """
    time = to_microseconds(row[features.time])
    values = {"time": time}
    if features.knows:
        values |= dict(zip(TURNS, turns_of(features, row, time), strict=True))
    for key in keys:
        if key in TURNS:
            continue
        kind, name = key.split(":", 1)
        value = row[name]
        if kind == "name":
            values[key] = MISSING if absent(value) else integers.lasting_code(value)
            continue
        try:
            if name == features.money.column and kind == "number":
                value = features.money.read_one(row)
            number = nan if absent(value) else float(value)
        except DataError:
            raise
        except (TypeError, ValueError):
            raise DataError(f"{name}: {value!r} is not a number. Quarantine the row, or correct it.") from None
        values[key] = integers.place(number) if kind == "place" else integers.unit(number, name, features.scale)
    return values


def turns_of(features: FeatureSet, row: Mapping[str, Any], time: int) -> tuple[int, ...]:
    """When a row was known to be fraud, no longer, and again, as far as it says so itself."""
    if features.turns is not None:
        moments = (row.get(name) for name in features.turns)
        since = (NEVER if absent(moment) else to_microseconds(moment) for moment in moments)
        return tuple(accumulate(since, max, initial=time))[1:]
    label = row.get(str(features.label))
    if absent(label) or label != 1:
        return NEVER, NEVER, NEVER
    if features.reported is None:
        return time, NEVER, NEVER
    moment = row.get(features.reported)
    return NEVER if absent(moment) else max(time, to_microseconds(moment)), NEVER, NEVER


def entity_name(row: Mapping[str, Any], by: tuple[str, ...]) -> str | None:
    """The name of a row's entity; None if part of it is missing."""
    parts = [row[name] for name in by]
    return None if any(map(absent, parts)) else SEPARATOR.join(integers.text(part) for part in parts)


def absent(value: Any) -> bool:
    """Whether a value is missing, in any of the ways there are."""
    return value is None or value is pd.NaT or value is pd.NA or (isinstance(value, float) and np.isnan(value))


def to_microseconds(moment: Any) -> int:
    """A moment in microseconds since 1970; without a zone it is UTC."""
    if isinstance(moment, np.datetime64):
        return int(moment.astype("datetime64[us]").astype(np.int64))
    try:
        stamp = pd.Timestamp(moment)
    except (TypeError, ValueError):
        raise DataError(f"{moment!r} is not a date. Quarantine the row, or correct it.") from None
    if stamp is pd.NaT:
        raise DataError("A row needs a time, received none. Quarantine it, or give its time.")
    return int(naive_utc(stamp).as_unit("us")._value)
