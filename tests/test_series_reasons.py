"""Reasons of series: compared with what was learnt of each sensor, and of an event as a whole."""

from __future__ import annotations

import re
from functools import cache

import numpy as np
import pandas as pd
import pytest

from detector.detectors.series.detector import SequenceDetector
from detector.schema import Schema
from detector.series.gates import Gates

BEARINGS = ("left", "middle", "right")
SENSORS = (*BEARINGS, "speed", "current")
START = pd.Timestamp("2026-01-01")
FIRST, LAST = 400, 520


def machine(n: int, seed: int, *, added: float | np.ndarray = 0.0) -> pd.DataFrame:
    """Three bearings of 40 to 50 degrees, all by one load; something is added to the left one for two hours."""
    rng, time = np.random.default_rng(seed), np.arange(n)
    load = np.sin(time / 30) + 0.3 * np.sin(time / 7)
    frame = pd.DataFrame(
        {name: 44 + place + 3 * load + rng.normal(0, 0.3, n) for place, name in enumerate(BEARINGS)}
        | {"speed": 1500 + 50 * load + rng.normal(0, 5, n), "current": 20 + 2 * load + rng.normal(0, 0.2, n)}
    )
    if n > LAST:
        frame.loc[FIRST:LAST, "left"] += added
    return frame.assign(time=START + pd.to_timedelta(time, unit="min"))


@cache
def fitted(trailing: bool) -> SequenceDetector:
    schema = Schema(time="time", numeric=SENSORS)
    return SequenceDetector(schema=schema, trailing=trailing).fit(machine(2000, 1))


@pytest.fixture(params=[False, True], ids=["whole", "trailing"])
def detector(request: pytest.FixtureRequest) -> SequenceDetector:
    return fitted(request.param)


def worst(detector: SequenceDetector, rows: pd.DataFrame) -> tuple[pd.Series, pd.DataFrame]:
    """The riskiest event, and the flagged rows within it."""
    found = detector.scorer_.score_frame(rows)
    event = found.events.loc[found.events["risk"].idxmax()]
    frame = found.frame[found.frame["flagged"] & found.frame["time"].between(event["start"], event["end"])]
    return event, frame


def test_hot_bearing_is_compared_with_what_was_learnt(detector: SequenceDetector) -> None:
    """40 degrees too hot: a reconstruction that follows is not what was expected, and its neighbours are well."""
    event, frame = worst(detector, machine(800, 2, added=40.0))

    (reason,) = event["reasons"]
    assert reason.feature == "left"
    assert 85 < float(reason.observed.removeprefix("up to ")) < 92
    expected = re.fullmatch(r"about ([\d.]+) \(learnt range ([\d.]+) to ([\d.]+)\)", reason.expected)
    assert expected is not None
    about, low, high = map(float, expected.groups())
    assert low <= about <= high
    assert low == pytest.approx(39.5, abs=1)
    assert high == pytest.approx(48.5, abs=1)
    assert {each[0].feature for each in frame["reasons"]} == {"left"}
    assert all(sum(reason.share for reason in each) <= 1 + 1e-9 for each in frame["reasons"])


def test_row_beside_a_fault_shows_where_the_fault_is() -> None:
    """A window reaches over it: what a flagged row itself read was usual, and explains nothing."""
    _, frame = worst(fitted(False), machine(800, 2, added=40.0))

    before = frame[frame["time"] < START + pd.Timedelta(minutes=FIRST)]["reasons"].iloc[-1][0]
    after = frame[frame["time"] > START + pd.Timedelta(minutes=LAST)]["reasons"].iloc[0][0]
    assert re.fullmatch(r"8\d\.?\d* \d+ min after", before.observed)
    assert re.fullmatch(r"8\d\.?\d* (\d+ h )?\d+ min before", after.observed)


def test_event_in_reach_of_a_far_larger_fault_says_so() -> None:
    """A hot minute is in the windows of the hours around, which may be unusual for that alone."""
    rows = machine(800, 2)
    rows.loc[FIRST, "left"] += 15.0
    rows.loc[FIRST + 60 : FIRST + 80, "left"] += 3.5

    events = fitted(False).scorer_.score_frame(rows, join=0).events

    hot = events["onset"] == START + pd.Timedelta(minutes=FIRST)
    later = events["onset"] == START + pd.Timedelta(minutes=FIRST + 60)
    assert re.match(r"left up to 61\.\d+, expected", events.loc[hot, "text"].item())
    assert re.match(r"left up to 4\d\.\d+ \(61\.\d+, \d+ min before\), expected", events.loc[later, "text"].item())


@pytest.mark.parametrize("side", [1.0, -1.0], ids=["up", "down"])
@pytest.mark.parametrize("far", [6.0, 20.0])
def test_drift_is_reported_as_it_went(detector: SequenceDetector, side: float, far: float) -> None:
    """Not as it looks where it snaps back: there the reading is on the other side of what a window leads to expect."""
    event, frame = worst(detector, machine(800, 2, added=side * np.linspace(0, far, LAST - FIRST + 1)))

    reason = event["reasons"][0]
    assert reason.feature == "left"
    up, down = ("up to ", r"rises [\d.]+ in [\w ]+, to "), ("down to ", r"falls [\d.]+ in [\w ]+, to ")
    said = re.fullmatch(rf"({'|'.join(up if side > 0 else down)})([\d.]+)", reason.observed)
    assert said is not None
    assert event["direction"] == ("up" if side > 0 else "down")
    assert side * (float(said[2]) - float(re.search(r"about ([\d.]+)", reason.expected)[1])) > 0
    peak = frame.loc[frame["risk"].idxmax(), "reasons"][0]
    assert peak.feature == "left"
    assert side * (float(peak.observed.split()[0]) - float(re.search(r"about ([\d.]+)", peak.expected)[1])) > 0


def test_event_says_when_it_began_how_long_it_lasted_and_when_it_was_worst() -> None:
    """For people who read one line; as the columns say."""
    event, _ = worst(fitted(False), machine(800, 2, added=40.0))

    began, length = START + pd.Timedelta(minutes=FIRST), "2 h 1 min"
    assert event["onset"] == began
    assert event["text"].startswith("left up to 8")
    assert f" | from {began:%Y-%m-%d %H:%M} for {length}, worst at " in event["text"]


def test_stuck_sensor_is_reported_as_stuck() -> None:
    """One value for two hours within its range is no highest and no lowest."""
    rows = machine(800, 2)
    rows.loc[FIRST:LAST, "left"] = 44.0

    event, _ = worst(fitted(True), rows)

    assert event["reasons"][0].feature == "left"
    assert event["reasons"][0].observed == f"stuck at 44 since {START + pd.Timedelta(minutes=FIRST):%H:%M}"
    assert (event["change"], event["direction"]) == ("stuck", "")
    assert event["reasons"][0].expected.startswith("about ")


def test_large_readings_have_their_thousands_apart() -> None:
    """In the event and in each of its rows: what was read, what was expected, and the range that was learnt."""
    rows = machine(800, 2)
    rows.loc[FIRST:LAST, "speed"] += 800.0

    event, frame = worst(fitted(False), rows)

    (reason,) = [each for each in event["reasons"] if each.feature == "speed"]
    assert re.search(r"\b2,[23]\d\d\b", reason.observed)
    assert re.fullmatch(r"about 1,[45]\d\d \(learnt range 1,4\d\d to 1,[56]\d\d\)", reason.expected)
    said = [each for reasons in frame["reasons"] for each in reasons if each.feature == "speed"]
    assert said
    assert not any(re.search(r"\d{4}", f"{each.observed} {each.expected}") for each in said)


def test_partner_of_a_sensor_goes_by_its_name() -> None:
    """A bearing that no longer follows another one: both are called as people call them."""
    rows, time = machine(800, 2), np.arange(800)
    against = 44 - 3 * (np.sin(time / 30) + 0.3 * np.sin(time / 7)) + np.random.default_rng(5).normal(0, 0.3, 800)
    rows.loc[FIRST:LAST, "left"] = against[FIRST : LAST + 1]
    scorer = fitted(False).scorer_.with_gates(Gates(names={name: f"{name} bearing" for name in BEARINGS}))

    events = scorer.score_frame(rows).events

    (reason,) = events.loc[events["risk"].idxmax(), "reasons"]
    assert reason.observed.startswith("no longer moves with middle bearing, ")


def test_silent_sensor_beside_a_hot_one_is_named_too() -> None:
    """Silence is a fault of its own that no other explains."""
    rows = machine(800, 2, added=40.0)
    rows.loc[FIRST:LAST, "speed"] = np.nan

    event, _ = worst(fitted(False), rows)

    found = {reason.feature: reason.observed for reason in event["reasons"]}
    assert found["speed"] == f"no reading since {START + pd.Timedelta(minutes=FIRST):%H:%M}"
    assert found["left"].startswith("up to 8")
