"""Whether the configured features can be measured of the rows, by some of them."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from detector.cleaning.values import read_numbers
from detector.errors import DetectorError, SettingError, nearest
from detector.features.feature import OF_NUMBER, OF_PLACE
from pipelines.config import Config
from pipelines.doctor.check import Check
from pipelines.doctor.formats import unread_check
from pipelines.features.engine import FeatureEngine, feature_engine_of
from pipelines.progress import counted, percent

MONEY = ("amount", "currency", "rates", "mixed", "negative", "zero")


def check_features(config: Config, frame: pd.DataFrame) -> Iterator[Check]:
    """Every column a feature needs: whether it is there; the rows: how many cannot have features, and why."""
    try:
        engine = feature_engine_of(config, trained=False)
    except SettingError as error:
        yield Check("features", "problem", str(error), "Correct it; the features could not be checked.")
        return
    if engine is None:
        return
    features, present = engine.features, [str(name) for name in frame.columns]
    lost = [name for name in engine.reader.needs if name not in present and name not in engine.reader.optional]
    for name in lost:
        using = [feature.name for feature in features.all if name in (*feature.of, *feature.by)]
        found = f"there is no column {name!r}" + (f", of which {using[0]} is made" if using else "")
        yield Check("features", "problem", found, nearest(name, present))
    for name in engine.reader.optional:
        if name not in present:
            found = f"there is no column {name!r} yet: what is made of labels stays empty"
            yield Check("features", "warning", found, f"It may come later. {nearest(name, present)}")
    section = config.features
    rules = any(getattr(section, name) != type(section).model_fields[name].default for name in MONEY)
    if section.history and rules and section.amount not in present:
        found = f"there is no column {section.amount!r}: the rules for amounts apply to nothing"
        yield Check("features.amount", "warning", found, nearest(section.amount, present))
    yield from _no_numbers(engine, frame)
    if not lost:
        yield _measured(engine, frame)


def _no_numbers(engine: FeatureEngine, frame: pd.DataFrame) -> Iterator[Check]:
    """Columns that a feature reads as numbers and that hold none."""
    using = {
        name: each.name for each in engine.features.all if each.measure in OF_NUMBER + OF_PLACE for name in each.of
    }
    for name, feature in using.items():
        if name in frame and (known := frame[name].dropna()).size:
            values, unread = read_numbers(known)
            if unread.any() and not unread.all():
                yield unread_check("features", f"{name!r}, of which {feature} is made", known, unread, "a number")
            if values.isna().all():
                found = f"{name!r} holds no numbers, such as {str(known.iloc[0])!r}: {feature} stays empty"
                yield Check("features", "warning", found, "Name a column of numbers behind `of`.")


def _measured(engine: FeatureEngine, frame: pd.DataFrame) -> Check:
    names = engine.features.names
    try:
        quarantined = engine.compute(frame).quarantine
    except DetectorError as error:
        return Check("features", "problem", str(error), "Correct that, or leave the feature out.")
    by = ", ".join(dict.fromkeys(name for feature in engine.features.all for name in feature.by))
    found = f"{counted(len(names), 'feature')} measured" + (f" by {by}" if by else "")
    if len(quarantined):
        reason = quarantined["reason"].value_counts().index[0]
        found += f"; {percent(len(quarantined) / len(frame), 2)} of the rows cannot have any ({reason})"
        return Check("features", "warning", found, "These rows will go to the quarantine.")
    return Check("features", "ok", found)
