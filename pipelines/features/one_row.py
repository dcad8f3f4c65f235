"""The features of one new row without a frame around it: the numbers of ``FeatureEngine.push``, sooner.

What is odd about a row, and what it takes a frame to say, raises ``NotPlainError``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from detector.cleaning.plain import NotPlainError
from detector.errors import DataError
from detector.features import History
from detector.features.excerpt import KnownBy, excerpt
from detector.features.one_row import to_microseconds
from pipelines.features.engine import FeatureEngine


def read_one(engine: FeatureEngine, row: Mapping[str, Any], *, latest: np.datetime64) -> dict[str, Any]:
    """One new row as ``History.push_one`` takes it.

    - ``latest``: the latest time that it may have.

    Raises ``NotPlainError`` if it takes a frame to read it, or to say why it cannot have features.
    """
    if not engine.names.isdisjoint(row):
        raise NotPlainError
    typed = engine.reader.read_one(row)
    check_one(engine, typed, latest=latest)
    return typed


def check_one(engine: FeatureEngine, typed: Mapping[str, Any], *, latest: np.datetime64) -> None:
    """Raise ``NotPlainError`` if something may keep a row, as the reader returns it, from having features."""
    features = engine.features
    if typed[features.time] > latest:
        raise NotPlainError
    if features.money.column in typed and not features.money.takes_one(typed):
        raise NotPlainError


def measure_one(
    engine: FeatureEngine,
    history: History,
    typed: Mapping[str, Any],
    known_by: KnownBy,
    beside: Iterable[Mapping[str, Any]],
) -> dict[str, float]:
    """The features of one row as ``push`` would give them; the history stays as it is.

    - ``typed``, ``beside``: the row, and others that may be in its past as well, as ``read_one`` returns them.
    - ``known_by``: the row's entities.

    Raises ``NotPlainError`` if the row comes too late, or is one that no history takes.
    """
    time, key = engine.features.time, engine.features.key
    open_from = -math.inf if history.latest is None else history.latest - history.lateness
    others = [each for each in beside if to_microseconds(each[time]) >= open_from]
    past = excerpt(history, known_by)
    try:
        if key is not None:
            before = [each for each in others if (each[time], each[key]) < (typed[time], typed[key])]
            for each in sorted(before, key=lambda each: (each[time], each[key])):
                past.learn_one(each)
        return past.push_one(typed)
    except (DataError, TypeError):
        raise NotPlainError from None
