"""Time as people live it: days and weeks are found, and summer time, gaps and holidays do not break what is known."""

from __future__ import annotations

import re
from functools import cache

import numpy as np
import pandas as pd
import pytest

from detector.decide.policy import Policy
from detector.detectors.series.detector import SequenceDetector
from detector.detectors.series.scorer import SequenceScorer
from detector.errors import SettingError
from detector.members.phase import find_rhythm
from detector.persist import bundle
from detector.schema import Schema
from detector.series.rhythm import EACH, WORKING, Rhythm

ZONE = "Europe/Berlin"
EVERY = 15
POLICY = Policy(quantile=0.999)
SUNDAY, SPRING = "2026-03-29", "2026-03-27"
"""Summer time begins on the Sunday; rows to score begin on the Friday before."""


def plant(days: int, seed: int, *, start: str = "2026-03-02", idle: tuple[str, ...] = ()) -> pd.DataFrame:
    """A plant that works from six to eight on working days by the clock on the wall, and not on the days named."""
    rng, n = np.random.default_rng(seed), days * 24 * 60 // EVERY
    time = pd.Timestamp(start) + pd.to_timedelta(np.arange(n) * EVERY, unit="min")
    local = time.tz_localize("UTC").tz_convert(ZONE)
    works = (local.hour >= 6) & (local.hour < 20) & (local.day_of_week < 5)
    works &= ~pd.Index(local.strftime("%Y-%m-%d")).isin(idle)
    load = pd.Series(2.0 + 5.0 * works).ewm(span=3).mean().to_numpy() + rng.normal(0, 0.3, n)
    return pd.DataFrame(
        {
            "time": time,
            "power": load + rng.normal(0, 0.1, n),
            "flow": 3 * load + rng.normal(0, 0.5, n),
            "heat": 30 + pd.Series(load).ewm(span=8).mean() + rng.normal(0, 0.3, n),
        }
    )


def fit(rows: pd.DataFrame, period: str | None = None) -> SequenceScorer:
    schema = Schema(time="time", numeric=("power", "flow", "heat"))
    return SequenceDetector(schema=schema, period=period, timezone=ZONE).fit(rows).scorer_


@cache
def usual() -> SequenceScorer:
    return fit(plant(25, 1))


def flagged_days(scorer: SequenceScorer, rows: pd.DataFrame) -> set[str]:
    """The days, by the clock on the wall, of which three hours or more are flagged."""
    found = scorer.score_frame(rows, policy=POLICY).frame
    local = found["time"].dt.tz_localize("UTC").dt.tz_convert(ZONE).dt.strftime("%Y-%m-%d")
    hours = found["flagged"].groupby(local).sum() * EVERY / 60
    return set(hours.index[hours >= 3])


def test_wednesday_that_looks_like_a_sunday_is_found() -> None:
    """Each of its windows is known from Sundays; only the day is wrong. The event says so, and by whose clock."""
    rows = plant(12, 2, start=SPRING, idle=("2026-04-01",))

    assert flagged_days(usual(), rows) == {"2026-04-01"}
    (event,) = usual().score_frame(rows, policy=POLICY, join=5).events.to_dict("records")
    assert re.search(r"unlike a Wednesday, \d\d:\d\d CEST, ", event["text"])
    assert event["change"] == "untimely"
    assert flagged_days(fit(plant(25, 1), "none"), rows) == set()


def test_reading_beyond_all_learnt_ones_is_too_high_and_not_untimely() -> None:
    """It is unlike every other time, so what is usual at its own says less than which way it went."""
    rows = plant(12, 2, start=SPRING)
    rows.loc[600:604, "power"] = 15.0

    event = usual().score_frame(rows, policy=POLICY, join=5).events.nlargest(1, "risk").iloc[0]

    assert (event["change"], event["direction"]) == ("up", "up")
    assert event["text"].startswith("power up to 15")


def test_normal_sundays_and_summer_time_stay_quiet() -> None:
    """On the Monday after the clock is put forward, work begins an hour earlier in UTC, and at six as ever."""
    assert flagged_days(usual(), plant(14, 3, start=SPRING)) == set()


def test_period_is_among_the_metrics() -> None:
    """With what it foretells, and what it counts."""
    metrics = usual().metrics

    assert metrics["period"] == "a week: working days, and Saturdays and Sundays"
    assert metrics["period_foretells"] > 0.5
    assert metrics["weight_phase"] > 0


def test_gap_of_days_breaks_nothing() -> None:
    """Neither in training nor in what is scored: the time after it is known by the clock, not by counting."""
    rows = plant(25, 1)
    scorer = fit(rows[(rows["time"] < "2026-03-10") | (rows["time"] >= "2026-03-12 07:45")])
    later = plant(14, 3, start=SPRING)

    assert scorer.metrics["period"].startswith("a week")
    assert flagged_days(scorer, later[(later["time"] < "2026-04-01") | (later["time"] >= "2026-04-03 05:30")]) == set()


def test_holiday_in_training_does_not_make_its_weekday_one() -> None:
    """What is usual on a working day stays as it is; left out, as maintenance is, the day hides no later one either."""
    rows = plant(25, 1, idle=("2026-03-11",))
    scorer = fit(rows)
    is_noon = Rhythm(WORKING, zone=ZONE).of(np.array(["2026-03-11T11:00"], dtype="datetime64[us]"))

    with_it, without = (found.models[""].phase for found in (scorer, usual()))
    assert with_it is not None
    assert without is not None
    np.testing.assert_allclose(with_it.middle[is_noon], without.middle[is_noon], atol=0.05)
    assert flagged_days(scorer, plant(12, 3, start=SPRING)) == set()
    local = rows["time"].dt.tz_localize("UTC").dt.tz_convert(ZONE).dt.strftime("%Y-%m-%d")
    left = fit(rows[local != "2026-03-11"])
    assert flagged_days(left, plant(12, 2, start=SPRING, idle=("2026-04-01",))) == {"2026-04-01"}


def test_noise_has_no_rhythm() -> None:
    """A view that foretells nothing is left out, and the scores are those without it."""
    rows, rng = plant(25, 1), np.random.default_rng(0)
    for name in ("power", "flow", "heat"):
        rows[name] = rng.normal(size=len(rows))

    assert "period" not in fit(rows).metrics


def test_bundle_keeps_the_rhythm(tmp_path: object) -> None:
    """The same scores after a restart."""
    place = f"{tmp_path}/bundle"
    rows = plant(3, 4, start="2026-04-01", idle=("2026-04-01",))
    bundle.save(usual(), place)  # type: ignore[arg-type]

    again = bundle.load(place)  # type: ignore[arg-type]

    assert isinstance(again, SequenceScorer)
    np.testing.assert_array_equal(usual().score_frame(rows).frame["risk"], again.score_frame(rows).frame["risk"])


@pytest.mark.parametrize(("zone", "hour"), [("UTC", 4), (ZONE, 6)])
def test_part_of_the_day_is_by_the_clock_on_the_wall(zone: str, hour: int) -> None:
    """In summer four in UTC is six in Berlin; the weekday is that of the place, too."""
    found = Rhythm(EACH, parts=24, zone=zone).of(np.array(["2026-07-06T04:30"], dtype="datetime64[us]"))

    assert found.tolist() == [hour]


def test_shift_of_eight_hours_is_found_and_can_be_named() -> None:
    """What repeats after another time than a day."""
    n = 4 * 24 * 10
    times = np.datetime64("2026-03-02") + np.arange(n) * np.timedelta64(15, "m")
    rng = np.random.default_rng(0)
    values = (np.arange(n) % 32 < 10)[:, None] + rng.normal(0, 0.1, (n, 1))
    usable, fold = np.full(n, True), np.arange(n) * 5 // n

    found = find_rhythm(values, times, usable, fold, every=900.0)
    named = find_rhythm(values, times, usable, fold, every=900.0, wanted=8 * 3600.0)

    assert named is not None
    assert named.rhythm.seconds == 8 * 3600.0
    assert found is not None  # a day holds three shifts
    assert find_rhythm(values, times, usable, fold, every=900.0, wanted=7 * 3600.0) is None


def test_week_is_not_seen_in_a_few_days() -> None:
    """Nobody knows Sundays who saw one."""
    rows = plant(10, 1)
    times = rows["time"].to_numpy()
    values, fold = rows[["power"]].to_numpy(), np.arange(len(rows)) * 5 // len(rows)

    found = find_rhythm(values, times, np.full(len(rows), True), fold, every=900.0, zone=ZONE)

    assert found is None or found.rhythm.days != WORKING


@pytest.mark.parametrize("wrong", ["often", "0d", "-1d", "1 fortnight"])
def test_period_without_meaning_is_refused(wrong: str) -> None:
    """Before anything is learnt."""
    with pytest.raises(SettingError, match="A period expected a time such as 1d, 7d or 8h"):
        fit(plant(1, 1), wrong)
