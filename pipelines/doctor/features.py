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

MANY_MISSING = 0.5
MONEY = ("amount", "currency", "rates", "mixed", "negative", "zero")


def check_features(config: Config, frame: pd.DataFrame, *, is_all: bool = False) -> Iterator[Check]:
    """Every column a feature needs: whether it is there; the rows: how many cannot have features, and why.

    - ``is_all``: whether these are all rows there are; of some of them the past of the others is not known.
    """
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
        yield from _measured(engine, frame, is_all=is_all)


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


def _measured(engine: FeatureEngine, frame: pd.DataFrame, *, is_all: bool) -> Iterator[Check]:
    names = engine.features.names
    try:
        found = engine.compute(frame)
    except DetectorError as error:
        yield Check("features", "problem", str(error), "Correct that, or leave the feature out.")
        return
    by = ", ".join(dict.fromkeys(name for feature in engine.features.all for name in feature.by))
    text = f"{counted(len(names), 'feature')} measured" + (f" by {by}" if by else "")
    if len(found.quarantine):
        reason = found.quarantine["reason"].value_counts().index[0]
        text += f"; {percent(len(found.quarantine) / len(frame), 2)} of the rows cannot have any ({reason})"
        yield Check("features", "warning", text, "These rows will go to the quarantine.")
    else:
        yield Check("features", "ok", text)
    if is_all and len(found.rows):
        yield from _mostly_without_a_past(engine, found.rows)


def _mostly_without_a_past(engine: FeatureEngine, rows: pd.DataFrame) -> Iterator[Check]:
    """Features of an amount that most rows lack, though they have the amount: their past holds no rows to compare."""
    for each in engine.features.all:
        if each.measure not in OF_NUMBER or each.name not in rows:
            continue
        known = rows[list(each.of)].notna().all(axis=1) & rows[list(each.by)].notna().all(axis=1)
        missing = float(rows.loc[known, each.name].isna().mean()) if known.any() else 0.0
        if missing > MANY_MISSING:
            by = ", ".join(each.by)
            text = f"{each.name} is missing in {percent(missing)} of the rows: {by} has too few within the window"
            yield Check("features", "warning", text, "Look further back: name a longer window behind `over`.")
