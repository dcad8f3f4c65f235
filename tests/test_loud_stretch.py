"""A stretch of training that alone makes a threshold high is named, and what to do about it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from detector.detectors.series.loud_stretch import LoudStretches, Stretch, find_loud_stretches
from detector.detectors.series.recipe import SeriesRecipe
from pipelines.factory.kinds import KINDS
from pipelines.factory.loud import loud_notes
from tests.series_examples import PUMPS, readings, small

ROWS = 600


def pumps(*, faulty: bool) -> pd.DataFrame:
    """Two pumps, of which the second runs wild for half an hour of its training."""
    rows = pd.concat([readings(ROWS, seed=1, pump="P1"), readings(ROWS, seed=2, pump="P2")], ignore_index=True)
    if faulty:
        rows.loc[ROWS + 300 : ROWS + 329, "heat"] += 3.0
    return rows


@pytest.mark.parametrize("models", ["shared", "entity"])
def test_a_fault_in_training_is_named(models: str) -> None:
    """By whose it was and when, and what it does to the threshold: as a label on its rows would."""
    rows = pumps(faulty=True)
    detector = small(schema=PUMPS, models=models).fit(rows)

    (found,) = detector.loud_stretches_

    (stretch,) = found.stretches
    assert stretch.entity == "P2"
    assert abs(stretch.start - rows["when"][ROWS + 300].to_datetime64()) <= np.timedelta64(10, "m")
    assert abs(stretch.end - rows["when"][ROWS + 329].to_datetime64()) <= np.timedelta64(10, "m")
    assert found.threshold > 3 * found.without
    assert f"A threshold rests on P2, {pd.Timestamp(stretch.start):%Y-%m-%d %H:%M}" in loud_notes([found])[0]
    assert loud_notes([found])[0] in KINDS["sensors"].noticed(detector)


@pytest.mark.parametrize("models", ["shared", "entity"])
def test_nothing_is_said_of_a_normal_training(models: str) -> None:
    """However its risks are scattered."""
    assert small(schema=PUMPS, models=models).fit(pumps(faulty=False)).loud_stretches_ == ()


@pytest.mark.parametrize(("share", "named"), [(0.05, True), (0.6, False)])
def test_what_is_usual_is_no_exception(share: float, named: bool) -> None:
    """Where most rows are like it, it is the others that stand out."""
    risk = np.random.default_rng(0).normal(size=1_000)
    risk[: int(1_000 * share)] += 20.0
    steps, codes = np.arange(1_000), np.zeros(1_000, dtype=np.int64)

    found = find_loud_stretches(risk, steps, codes, SeriesRecipe().resolved(1_000), length=8)

    assert (found is not None) == named


@pytest.mark.parametrize(("count", "named"), [(1, True), (3, True), (4, False)])
def test_a_few_stretches_are_named_together(count: int, named: bool) -> None:
    """As of two holidays, either of which alone would keep the threshold high; not what comes again and again."""
    risk = np.random.default_rng(0).normal(size=2_000)
    places = [100 + 400 * place for place in range(count)]
    for place in places:
        risk[place : place + 30] += 20.0
    steps, codes = np.arange(2_000), np.zeros(2_000, dtype=np.int64)

    found = find_loud_stretches(risk, steps, codes, SeriesRecipe().resolved(2_000), length=8)

    assert (found is not None) == named
    assert found is None or sorted(one.first for one in found.stretches) == places


def test_many_are_counted() -> None:
    """The three that raise their thresholds most have a line each."""
    some = [LoudStretches((Stretch(0, 9, 0, f"M{place}"),), 10.0 + place, without=1.0) for place in range(7)]

    notes = loud_notes(some)

    assert [note.split(",")[0] for note in notes[:3]] == [f"A threshold rests on M{place}" for place in (6, 5, 4)]
    assert notes[3:] == ["So do 4 more thresholds on stretches of their own."]
