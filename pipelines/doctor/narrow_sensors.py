"""Sensors that move so little beside the others that they hardly count, which may be for their unit alone."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from detector.detectors.series.groups import group_of
from detector.detectors.series.recipe import SeriesRecipe
from detector.explain.reason import reading
from detector.series.scaling import SeriesScaling
from pipelines.config import Config
from pipelines.doctor.check import Check
from pipelines.doctor.sensor_readings import first_of, readings_of

DAMPED = 2.0
"""How many times its own range a sensor must be taken for, for that to be worth a line."""
MOST_MODELS = 0.5
"""Share of the models, where there are several, for which it must be so."""


def check_narrow_sensors(config: Config, frame: pd.DataFrame) -> Iterator[Check]:
    """One warning that names the sensors whose range is far below the floor."""
    if (readings := readings_of(config, frame)) is None:
        return
    section, models = config.series, pd.Series("", index=frame.index)
    if readings.machines is not None and section.group_by is not None:
        models = readings.machines.map(lambda name: group_of(name, section.group_by))
    elif readings.machines is not None and section.models == "entity":
        models = readings.machines
    floor = "0.1, as rows are few" if section.range_floor is None else f"{section.range_floor:g}"
    numbers = readings.numbers.drop(columns=list(section.sampling.counters), errors="ignore")
    found = narrow_sensors(numbers, models, floor=section.range_floor)
    if found.empty:
        return
    own, least, share = found.iloc[0]
    yield Check(
        "series.range_floor",
        "warning",
        f"{first_of(list(found.index))}: it moves within {reading(own)}, and counts as one that moves within "
        f"{reading(least)}, as most sensors move far more: only far larger changes are noticed",
        f"Is that for its unit? Give it in a smaller one, or set `series.range_floor` to {share:.1g} (now {floor}); "
        f"sensors that hardly move then raise more false alarms.",
    )


def narrow_sensors(numbers: pd.DataFrame, models: pd.Series, *, floor: float | None) -> pd.DataFrame:
    """By sensor ``own`` range, the ``least`` it counts with, and the ``share`` of the usual range it has.

    Those that are damped in most models, the medians over these; the narrowest first. ``models`` names that of each
    row, ``floor`` is as in ``SeriesRecipe``.

    >>> numbers = pd.DataFrame({"heat": [20.0, 60.0], "flow": [1.0, 9.0], "vibration": [0.01, 0.02]})
    >>> narrow_sensors(numbers, pd.Series(["", ""]), floor=0.1).round(5).reset_index().values.tolist()
    [['vibration', 0.01, 0.8, 0.00125]]
    """
    own, least, usual = [], [], []
    for _, rows in numbers.groupby(models.to_numpy()):
        seen = rows.to_numpy(dtype=np.float64)
        if np.isnan(seen).all():
            continue
        share = SeriesRecipe(range_floor=floor).resolved(len(rows)).range_floor
        assert share is not None
        span = SeriesScaling.fit(seen, range_floor=share, reach=1.0)
        width = np.where(span.moving, np.nan_to_num(rows.max() - rows.min()), span.span)
        own.append(width)
        least.append(span.span)
        usual.append(np.median(width[span.moving]) if span.moving.any() else 1.0)
    if not own:
        return pd.DataFrame(columns=["own", "least", "share"])
    widths, spans = pd.DataFrame(own, columns=numbers.columns), pd.DataFrame(least, columns=numbers.columns)
    names = (spans > DAMPED * widths).mean() > MOST_MODELS
    found = pd.DataFrame({"own": widths.median(), "least": spans.median()})[names]
    return found.assign(share=found["own"] / np.median(usual)).sort_values("share", kind="stable")
