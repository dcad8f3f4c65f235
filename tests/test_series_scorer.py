"""The fitted chain for series: verdicts by row, events by segment, curves around them, and bad input."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from detector.cleaning.clean import clean
from detector.decide.policy import Budget, Policy
from detector.detectors.series.detector import SequenceDetector
from detector.detectors.series.gating import ECHO
from detector.detectors.series.recipe import MEMBERS
from detector.detectors.series.scorer import SequenceScorer
from detector.detectors.series.verdicts import SeriesVerdicts
from detector.errors import DataError, SchemaError, SettingError
from detector.schema import Schema
from detector.series.sampling import Sampling
from tests.series_examples import PUMPS, SCHEMA, SENSORS, START, readings, small, waves

KEYED = Schema(key="id", time="when", entity="pump", numeric=tuple(SENSORS))
BERLIN = "Europe/Berlin"


def two_pumps(n: int = 300, seed: int = 0) -> pd.DataFrame:
    """Two machines, one after the other, with a key."""
    rows = pd.concat([readings(n, seed, pump="a"), readings(n, seed + 1, pump="b")], ignore_index=True)
    return rows.assign(id=np.arange(2 * n) + 1000)


def broken(seed: int = 5) -> pd.DataFrame:
    """Fresh rows of two machines: one sensor of pump b sticks for ten minutes."""
    rows = two_pumps(150, seed)
    rows.loc[230:239, "flow"] = 20.0
    return rows


@pytest.fixture(scope="module")
def scorer() -> SequenceScorer:
    """All members, one model for both machines."""
    return small(schema=KEYED, members=MEMBERS, name="pumps").fit(two_pumps()).scorer_


@pytest.fixture(scope="module")
def verdicts(scorer: SequenceScorer) -> SeriesVerdicts:
    return scorer.judge(broken())


def test_each_row_has_a_verdict(scorer: SequenceScorer, verdicts: SeriesVerdicts) -> None:
    """Key, time and entity, then what was found; reasons where it is flagged."""
    frame = verdicts.frame

    assert list(frame) == [
        *("id", "when", "pump", "risk", "p_value", "flagged", "severity", "reasons"),
        *MEMBERS,
    ]
    assert frame["id"].tolist() == broken()["id"].tolist()
    risky = frame["risk"] > scorer.thresholds[""]
    assert (frame["flagged"] <= risky).all()
    assert risky.sum() - frame["flagged"].sum() == verdicts.held[ECHO]  # for what is beside them
    assert (frame["reasons"].ne("") == frame["flagged"]).all()
    assert (frame["severity"].ne("") == frame["flagged"]).all()
    assert frame.loc[frame["risk"].idxmax(), "pump"] == "b"
    assert frame.loc[frame["risk"].idxmax(), "reasons"].startswith("flow stuck at 20 since 01:20, expected about ")
    assert len(verdicts.quarantine) == 0


def test_rows_none_of_which_can_be_read_are_quarantined(scorer: SequenceScorer, verdicts: SeriesVerdicts) -> None:
    """As a scorer of tables does; what is said of no row has the columns and types of other scores."""
    unread = scorer.judge(two_pumps(20).assign(when="soon"))

    assert unread.quarantine["row"].tolist() == list(range(40))
    assert unread.quarantine["reason"].unique().tolist() == ["when: 'soon' is not a date"]
    assert (len(unread.frame), len(unread.events)) == (0, 0)
    assert unread.frame.dtypes.equals(verdicts.frame.dtypes)
    assert list(unread.events) == list(verdicts.events)


def test_rows_none_of_which_has_an_entity_are_quarantined(scorer: SequenceScorer, verdicts: SeriesVerdicts) -> None:
    """As some of them are; those that cannot be read for another reason keep that reason."""
    rows = two_pumps(20).assign(pump=None)
    rows["when"] = rows["when"].astype(object)
    rows.loc[3, "when"] = "soon"

    nobodys = scorer.judge(rows)

    assert nobodys.quarantine["row"].tolist() == list(range(40))
    assert nobodys.quarantine["id"].tolist() == rows["id"].tolist()
    assert nobodys.quarantine["reason"].value_counts().to_dict() == {
        "pump: the entity is missing": 39,
        "when: 'soon' is not a date": 1,
    }
    assert (len(nobodys.frame), len(nobodys.events)) == (0, 0)
    assert nobodys.frame.dtypes.equals(verdicts.frame.dtypes)


def test_each_flagged_segment_is_an_event(verdicts: SeriesVerdicts) -> None:
    """Whose, from when to when, its peak, who is at fault and how severe; all as the rows say."""
    frame, event = verdicts.frame, verdicts.events.loc[verdicts.events["risk"].idxmax()]

    own = frame[(frame["pump"] == event["entity"]) & frame["when"].between(event["start"], event["end"])]
    peak = own.loc[own["risk"].idxmax()]
    assert event["entity"] == "b"
    assert own["flagged"].all()
    assert len(own) == event["steps"]
    assert event["start"] <= START + pd.Timedelta(minutes=80) <= event["end"]
    assert event["sensors"].split(", ")[0] == "flow"
    for name, told in (("peak", "when"), ("risk", "risk"), ("p_value", "p_value"), ("severity", "severity")):
        assert event[name] == peak[told]
    assert event["onset"] == START + pd.Timedelta(minutes=80)
    assert re.fullmatch(
        r"flow stuck at 20 since 01:20, expected about [\d.]+ \(learnt range [\d.]+ to [\d.]+\); \d+ % of the risk.* "
        rf"\| from {event['onset']:%Y-%m-%d %H:%M} for 10 min, worst at {event['onset']:%Y-%m-%d %H:%M}",
        event["text"],
    )
    assert verdicts.events["steps"].sum() == frame["flagged"].sum()


@pytest.mark.parametrize(
    "policy",
    [Policy(quantile=0.995), Policy(budget=Budget(rows=7)), Policy(fdr=0.2), Policy(budget=Budget(rows=3, per="day"))],
    ids=["quantile", "budget", "fdr", "daily budget"],
)
def test_a_policy_decides_in_place_of_the_threshold(scorer: SequenceScorer, policy: Policy) -> None:
    """By the same rules as for tables, but for rows that are risky for others alone; events are made of what it flags.

    A budget has room for other rows then.
    """
    found = scorer.judge(broken(), policy=policy)

    frame = found.frame
    expected = policy.decide(frame["p_value"], frame["risk"], day=frame["when"])
    assert policy.budget is not None or (frame["flagged"] <= expected).all()
    assert expected.sum() - found.held[ECHO] <= frame["flagged"].sum() <= expected.sum()
    assert found.events["steps"].sum() >= frame["flagged"].sum() > 0


def test_measuring_says_what_judge_does(scorer: SequenceScorer, verdicts: SeriesVerdicts) -> None:
    """Without policy, reasons and events, by the index of the rows."""
    rows = clean(broken(), scorer.schema).rows.set_axis(np.arange(300) + 7)

    measured = scorer.measure(rows)

    assert measured.index.tolist() == rows.index.tolist()
    pd.testing.assert_frame_equal(measured.reset_index(drop=True), verdicts.frame[list(measured)], check_exact=True)


def test_the_detector_scores_as_its_scorer() -> None:
    """With an array, rows are named by their position."""
    detector = small().fit(waves(300))
    rows = waves(100, 1)
    rows[40:50, 0] = 5.0

    found = detector.judge(rows)

    assert list(found.frame)[:4] == ["row", "risk", "p_value", "flagged"]
    assert found.frame["row"].tolist() == list(range(100))
    assert found.frame["risk"].tolist() == detector.risk(rows).tolist()
    pd.testing.assert_frame_equal(found.events, detector.events(rows))
    assert 25 <= found.events["start"].iloc[-1] <= 40
    assert 50 <= found.events["end"].iloc[-1] <= 65
    assert detector.curves(rows, found.events)["when"].between(0, 99).all()


def test_curves_show_what_was_read_and_what_should_have_been(scorer: SequenceScorer, verdicts: SeriesVerdicts) -> None:
    """In the sensor's unit, around the event, for that machine alone."""
    event = verdicts.events.loc[verdicts.events["risk"].idxmax()]

    curves = scorer.curves(broken(), event, margin=12)

    flow = curves[curves["sensor"] == "flow"].reset_index(drop=True)
    inside = flow[flow["inside"]]
    rows = broken().iloc[150:].set_index("when").loc[flow["when"]]
    assert set(curves["sensor"]) == set(SENSORS)
    assert curves["event"].unique().tolist() == [event.name]
    assert (inside["when"].min(), inside["when"].max()) == (event["start"], event["end"])
    assert len(flow) == event["steps"] + 24
    assert flow["observed"].tolist() == rows["flow"].tolist()
    assert (flow["expected"] - flow["observed"]).abs().idxmax() in inside.index
    peak = curves[curves["when"] == event["peak"]]
    assert peak["added"].sum() == pytest.approx(event["risk"], rel=1e-4)
    assert flow.loc[~flow["inside"], "added"].isna().all()


def test_curves_of_several_events_and_of_none(scorer: SequenceScorer, verdicts: SeriesVerdicts) -> None:
    """One table, the events reported by their line."""
    many = scorer.curves(broken(), verdicts.events)
    none = scorer.curves(broken(), verdicts.events.iloc[:0])

    assert many["event"].unique().tolist() == verdicts.events.index.tolist()
    assert list(none) == list(many)
    assert len(none) == 0


def test_a_scorer_can_be_renamed_and_tells_its_facts(scorer: SequenceScorer) -> None:
    """Everything else stays."""
    renamed = scorer.with_name("other")

    assert (scorer.name, renamed.name) == ("pumps", "other")
    assert renamed.members == MEMBERS
    assert renamed.sensors == tuple(SENSORS)
    assert renamed.calibrator is scorer.models[""].calibrator
    assert renamed.memory == (4 * 8 - 1) + 8 + 3
    assert renamed.metrics["rows_fitted"] == 600
    assert sum(value for name, value in renamed.metrics.items() if name.startswith("weight_")) == pytest.approx(1)


def test_models_of_their_own_have_thresholds_of_their_own() -> None:
    """Facts are summed or averaged; the coarsest calibration is reported."""
    scorer = small(schema=PUMPS, models="entity").fit(two_pumps().iloc[:500]).scorer_

    assert set(scorer.thresholds) == set(scorer.calibrators) == {"a", "b"}
    assert scorer.metrics["models"] == 2
    assert scorer.metrics["rows_fitted"] == 500
    assert scorer.metrics["components"] == 2
    assert scorer.calibrator.size == 200


def test_rows_that_cannot_be_scored_go_to_quarantine(scorer: SequenceScorer) -> None:
    """As they came, with the reason, in order; the others keep their verdicts."""
    rows = broken().astype({"when": object, "pump": object})
    rows.loc[10, "when"] = "no time"
    rows.loc[20, "when"] = rows.loc[19, "when"]
    rows.loc[30, "pump"] = None
    rows.loc[40, "id"] = rows.loc[39, "id"]

    found = scorer.judge(rows)

    assert found.quarantine["row"].tolist() == [10, 20, 30, 40]
    assert found.quarantine["id"].tolist() == [1010, 1020, 1030, 1039]
    assert [reason.partition(":")[0] for reason in found.quarantine["reason"]] == ["when", "when", "pump", "id"]
    assert len(found.frame) == len(rows) - 4
    assert np.isfinite(found.frame["risk"]).all()
    rows_read = clean(rows, scorer.schema).rows
    assert scorer.measure(rows_read)["risk"].isna().sum() == 2


def test_events_may_be_joined_over_a_pause() -> None:
    """Their peak is a flagged step; fewer than none is refused."""
    scorer, rows = small(schema=KEYED).fit(two_pumps()).scorer_, broken()
    rows.loc[285:289, "flow"] = 20.0
    apart, joined = (scorer.judge(rows, join=join).events for join in (0, 30))

    assert len(joined) < len(apart)
    assert joined["risk"].max() == apart["risk"].max()
    with pytest.raises(SettingError, match="join must be at least 0. Received: join=-1"):
        scorer.judge(rows, join=-1)


@pytest.mark.parametrize("missing", ["mask", "previous"])
def test_a_sensor_that_falls_silent_is_an_event_of_its_own(missing: Any) -> None:
    """Named first, with what it should have read; and a machine that falls silent altogether is one in the gap."""
    detector = small(schema=SCHEMA, sampling=Sampling(missing=missing)).fit(readings(300))
    rows = readings(200, 1)
    rows.loc[100:130, "flow"] = np.nan
    gap = readings(200, 1).drop(index=range(100, 105))

    event = detector.judge(rows).events.iloc[-1]
    silent = detector.judge(gap).events.iloc[-1]

    assert event["sensors"].split(", ")[0] == "flow"
    assert event["text"].startswith("flow no reading since 01:40, expected about ")
    assert START + pd.Timedelta(minutes=100) <= event["start"] <= START + pd.Timedelta(minutes=106)
    assert START + pd.Timedelta(minutes=100) <= silent["peak"] <= START + pd.Timedelta(minutes=105)
    assert silent["text"].count("no reading") == 3


@pytest.mark.parametrize(("fault", "said"), [(np.nan, "no reading since 03:20"), (50.0, "stuck at 50 since 03:20")])
def test_what_lasts_is_told_since_it_began(fault: float, said: str) -> None:
    """Silence that is told only when it is longer than any in training, and each event of a sensor that stays stuck."""
    learnt, rows = readings(600), readings(400, 1)
    learnt.loc[100:140, "flow"] = np.nan
    rows.loc[200:330, "flow"] = fault

    events = small(schema=SCHEMA).fit(learnt).judge(rows).events

    first = events[events["start"] <= START + pd.Timedelta(minutes=300)]
    assert len(first) > 0
    for text in first["text"]:
        assert said in text


def test_a_long_gap_splits_a_series(scorer: SequenceScorer) -> None:
    """No window and no event reaches over it."""
    rows = broken()
    rows.loc[235:, "when"] += pd.Timedelta(hours=3)

    events = scorer.judge(rows, join=1000).events

    assert not (
        (events["start"] < START + pd.Timedelta(hours=2)) & (events["end"] > START + pd.Timedelta(hours=3))
    ).any()


def test_times_of_several_zones_are_one_series() -> None:
    """What is the same instant is the same row; the verdicts are in UTC."""
    detector = small(schema=SCHEMA).fit(readings(300))
    plain = readings(100, 1)
    zoned = plain.assign(when=plain["when"].dt.tz_localize("UTC").dt.tz_convert(BERLIN))
    mixed = plain.assign(
        when=[
            time.tz_convert(BERLIN).isoformat() if place % 2 else time.isoformat()
            for place, time in enumerate(plain["when"].dt.tz_localize("UTC"))
        ]
    )

    expected = detector.judge(plain).frame

    for rows in (zoned, mixed):
        pd.testing.assert_frame_equal(detector.judge(rows).frame, expected, check_exact=True)


def test_a_clock_put_back_is_refused_and_one_put_forward_is_a_gap() -> None:
    """Summer time in local times without zone: said, or seen in the report; never passed over."""
    utc = pd.date_range("2024-10-27 00:00", periods=240, freq="min", tz="UTC")
    detector = small(schema=SCHEMA).fit(readings(300))
    autumn = readings(240, 1).assign(when=utc.tz_convert(BERLIN).tz_localize(None))
    spring = readings(240, 1).assign(
        when=pd.date_range("2024-03-31 00:00", periods=240, freq="min", tz="UTC").tz_convert(BERLIN).tz_localize(None)
    )

    with pytest.raises(DataError, match="put back by one hour .* summer time ended, and the times have no zone"):
        detector.judge(autumn)
    assert len(detector.judge(spring).frame) == 240
    assert detector.scorer_.score_steps(clean(spring, SCHEMA).rows).series.report.gaps["summer_time"].tolist() == [True]


def test_a_lost_sensor_and_a_stranger_are_named() -> None:
    """Before anything is scored."""
    detector = small(schema=PUMPS, models="entity").fit(two_pumps())

    with pytest.raises(SchemaError, match="Column 'power' is missing from the table"):
        detector.judge(two_pumps().drop(columns="power"))
    with pytest.raises(SchemaError, match="No model was fitted for 'c'"):
        detector.judge(readings(50, pump="c"))
    with pytest.raises(DataError, match="The series of 'b' has 3 rows, a window 8"):
        detector.judge(two_pumps().iloc[:303])


def test_an_all_missing_and_a_constant_sensor_are_declared() -> None:
    """One that loses all its readings is silent; one that never read is passed over; one that stood still must."""
    schema = Schema(time="when", numeric=(*SENSORS, "still", "dead"))
    rows = readings(300).assign(still=4.0, dead=np.nan)
    detector = small(schema=schema, members=MEMBERS).fit(rows)
    fresh = readings(100, 1).assign(still=4.0, dead=1.0)

    assert not detector.judge(fresh.assign(dead=np.nan)).events["sensors"].str.contains("dead").any()
    assert detector.judge(fresh.assign(still=9.0)).frame["flagged"].all()
    assert detector.judge(fresh.assign(heat=np.nan)).events.iloc[-1]["sensors"].split(", ")[0] == "heat"


def test_severities_go_on_beyond_the_calibration_rows() -> None:
    """With a thousand normal rows no p-value is below a thousandth, but a tail can be."""
    detector: SequenceDetector = small().fit(waves(1000))
    rows = waves(200, 1)
    rows[100:120] += [3, 30, 15]

    event = detector.judge(rows).events.iloc[-1]

    assert event["p_value"] == pytest.approx(1 / 1001)
    assert event["severity"] == "critical"


def test_rows_that_can_be_scored_are_reported() -> None:
    """Of a machine with a model, and as many of it as a window has."""
    own = small(schema=PUMPS, models="entity").fit(two_pumps().iloc[:500]).scorer_
    rows = clean(pd.concat([readings(20, pump=name) for name in ("a", "new")] + [readings(5, pump="b")]), PUMPS).rows

    assert own.can_score(rows).tolist() == [True] * 20 + [False] * 25
    assert replace(own, short="pad").can_score(rows).sum() == 25
    assert small(schema=PUMPS).fit(two_pumps().iloc[:500]).scorer_.can_score(rows).sum() == 40


def test_uncleaned_rows_are_named(scorer: SequenceScorer) -> None:
    """As those of a table are: column, row, and the method that takes a table as it comes."""
    with pytest.raises(DataError, match="Row 3: flow: 'stuck' is not a number. `judge` takes"):
        scorer.score(
            two_pumps(40).astype({"flow": object}).replace({"flow": {two_pumps(40)["flow"][3]: "stuck"}}), None
        )
