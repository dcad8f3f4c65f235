"""Sensors that stick: what is longer than in training is told, and nothing else moves."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from detector.cleaning.clean import clean
from detector.decide.policy import Policy
from detector.detectors.series.detector import SequenceDetector
from detector.detectors.series.scorer import SequenceScorer
from detector.detectors.series.stream import Tail, continue_series
from detector.errors import SettingError, ShapeError
from detector.onnx.parts import Parts
from detector.persist import bundle
from detector.schema import Schema
from detector.series.flatline import FlatlineRule, measure_runs
from detector.series.gates import Gates, SensorGate, Span
from detector.series.sampling import Sampling
from pipelines.config import Config
from pipelines.factory.gates import gates_of

NAN = np.nan
SCHEMA = Schema(time="time", entity="machine", numeric=("speed", "flow", "heat"))
POLICY = Policy(quantile=0.999)
START = pd.Timestamp("2026-04-08")
BEGIN, END = 200, 216
"""The rows in which a sensor sticks in ``with_stuck_flow``."""


def press(n: int, seed: int, *, machine: str = "press-2") -> pd.DataFrame:
    """A press that reads every five minutes: flow follows speed, and two readings of it are hardly ever equal."""
    rng, hours = np.random.default_rng(seed), np.arange(n) / 12
    load = np.sin(hours * 2 * np.pi / 5) + np.convolve(rng.normal(0, 0.3, n + 11), np.ones(12) / 12, "valid")
    return pd.DataFrame(
        {
            "time": START + pd.to_timedelta(np.arange(n) * 5, unit="min"),
            "machine": machine,
            "speed": (1000 + 60 * load + rng.normal(0, 8, n)).round(1),
            "flow": (8 + 1.2 * load + rng.normal(0, 0.4, n)).round(2),
            "heat": (41 + pd.Series(load).ewm(span=12).mean() + rng.normal(0, 0.2, n)).round(2),
        }
    )


def with_stuck_flow(n: int = 500, seed: int = 7, *, end: int = END) -> pd.DataFrame:
    rows = press(n, seed)
    rows.loc[BEGIN : end - 1, "flow"] = 8.13
    return rows


@cache
def fitted(**changed: Any) -> SequenceScorer:
    rows = pd.concat([press(1000, 1), press(1000, 2, machine="press-1")])
    return SequenceDetector(schema=SCHEMA, wait=60, **changed).fit(rows).scorer_


def blind(scorer: SequenceScorer) -> SequenceScorer:
    """The same detector as it was before there were limits."""
    models = {name: replace(model, flatline=FlatlineRule.none(3)) for name, model in scorer.models.items()}
    return replace(scorer, models=models)


def one(values: list[float]) -> dict[str, Any]:
    column = np.array(values)[:, None]
    return {"values": column, "observed": ~np.isnan(column), "segment": np.zeros(len(column))}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, 1, 1, 2], [3, 3, 3, 1]),
        ([1, NAN, 1, NAN, NAN, 1], [3, 0, 3, 0, 0, 3]),
        ([0.1 + 0.2, 0.3, 0.3000001], [2, 2, 1]),
        ([NAN, NAN], [0, 0]),
    ],
)
def test_run_counts_equal_readings(values: list[float], expected: list[int]) -> None:
    """A missing reading neither breaks a run nor counts; last bits of an average are no difference."""
    assert measure_runs(**one(values), back=[9], ahead=9).ravel().tolist() == expected


def test_gap_that_splits_and_values_carried_on_make_no_run() -> None:
    """A run ends with its segment, and only readings count: filled rows are none."""
    values = np.full((6, 1), 7.0)
    observed = np.array([[True], [True], [False], [False], [True], [True]])

    assert measure_runs(values, observed, np.zeros(6), back=[9], ahead=9).ravel().tolist() == [4, 4, 0, 0, 4, 4]
    split = measure_runs(values, observed, np.array([0, 0, 0, 1, 1, 1]), back=[9], ahead=9)
    assert split.ravel().tolist() == [2, 2, 0, 0, 2, 2]


@given(
    hnp.arrays(np.float64, st.tuples(st.integers(1, 30), st.just(1)), elements=st.sampled_from([1.0, 2.0, NAN])),
    st.integers(0, 8),
    st.integers(0, 8),
)
def test_run_hangs_on_no_more_rows_than_it_says(values: np.ndarray, back: int, ahead: int) -> None:
    """Counted one reading after the other, to both sides, as far as is looked."""
    observed = ~np.isnan(values)
    found = measure_runs(values, observed, np.zeros(len(values)), back=[back], ahead=ahead).ravel()

    for step, value in enumerate(values.ravel().tolist()):
        sides = values[max(step - back, 0) : step][::-1], values[step + 1 : step + ahead + 1]
        expected = 0 if np.isnan(value) else 1
        for side in sides if expected else ():
            read = side[~np.isnan(side)].tolist()
            expected += next((place for place, other in enumerate(read) if other != value), len(read))
        assert found[step] == expected


def test_limit_is_twice_the_longest_run_of_training() -> None:
    """Of a sensor that is constant, coarse, slow, seldom read, or stands still for long, there is none."""
    rng, n = np.random.default_rng(0), 2000
    fine = rng.normal(size=n)
    pauses = fine.copy()
    for begin in range(0, n, 400):
        pauses[begin : begin + 9] = fine[begin]
    slow, coarse = np.repeat(fine[: n // 2], 2), rng.integers(0, 10, n).astype(float)
    night = np.where(np.arange(n) % 288 < 96, 0.0, fine)
    seldom = np.where(np.arange(n) % 50 == 0, fine, NAN)
    values = np.column_stack([fine, pauses, slow, coarse, np.full(n, 3.0), night, seldom, np.full(n, NAN)])

    rule = FlatlineRule.learn(values, ~np.isnan(values), np.zeros(n))

    assert rule.limits == (8, 18, None, None, None, None, None, None)
    assert rule.back == (16, 36, 0, 0, 0, 0, 0, 0)
    still = np.full((300, 8), 3.0)
    excess = rule.excess(still, np.full(still.shape, True), np.zeros(300), ahead=0)
    assert np.argmax(excess > 0, axis=0).tolist() == [8, 18, 0, 0, 0, 0, 0, 0]
    assert not excess[:, 2:].any()


def test_excess_is_the_logarithm_of_the_run() -> None:
    """Nothing up to the limit, one at it, and one more for each time that it doubles; over all of the run."""
    rule = FlatlineRule(limits=(8,), back=(16,))
    eight, sixteen = (rule.excess(**one([7.4] * n), ahead=20).ravel() for n in (8, 16))

    assert eight.tolist() == [0.0] * 8
    assert sixteen.tolist() == [2.0] * 16


def test_shapes_and_settings_that_do_not_fit_are_refused() -> None:
    """With what was expected."""
    values = np.zeros((3, 1))
    with pytest.raises(ShapeError, match="one segment a step"):
        measure_runs(values, np.full((3, 1), True), np.zeros(2), back=[1], ahead=0)
    with pytest.raises(ShapeError, match="one `back` for each of 1 sensors"):
        measure_runs(values, np.full((3, 1), True), np.zeros(3), back=[1, 1], ahead=0)
    with pytest.raises(SettingError, match="factor of at least 1"):
        FlatlineRule.learn(values, np.full((3, 1), True), np.zeros(3), factor=0.5)


def test_stuck_sensor_is_found_and_named_first() -> None:
    """A value within the usual range, for 80 minutes: all of its rows are flagged, and the event says what it is."""
    found, before = (each.score_frame(with_stuck_flow(), policy=POLICY, join=5) for each in (fitted(), blind(fitted())))

    assert np.flatnonzero(found.frame["flagged"]).tolist() == list(range(BEGIN, END))
    assert not before.frame["flagged"].any()
    (event,) = found.events.to_dict("records")
    assert event["change"] == "stuck"
    assert event["sensors"].startswith("flow")
    assert event["text"].startswith("flow stuck at 8.13 since 16:40, ")
    assert event["onset"] == START + pd.Timedelta(minutes=5 * BEGIN)
    reason = found.frame["reasons"].iloc[BEGIN][0]
    assert (reason.feature, reason.observed) == ("flow", "stuck at 8.13 since 16:40")


def test_rows_beside_it_keep_their_risk() -> None:
    """To the last bit: so without a stuck sensor nothing changes at all."""
    found, before = (each.score_frame(with_stuck_flow()).frame for each in (fitted(), blind(fitted())))
    apart = np.r_[0:BEGIN, END : len(found)]

    np.testing.assert_array_equal(found["risk"][apart], before["risk"][apart])
    np.testing.assert_array_equal(found["p_value"][apart], before["p_value"][apart])
    assert (found["risk"][BEGIN:END] > before["risk"][BEGIN:END]).all()
    rows = press(500, 9)
    pd.testing.assert_frame_equal(fitted().score_frame(rows).frame, blind(fitted()).score_frame(rows).frame)


def test_parts_sum_to_the_risk() -> None:
    """What a stuck sensor adds is its own."""
    scored = fitted().score_steps(clean(with_stuck_flow(), SCHEMA).rows)
    parts = scored.contributions()

    np.testing.assert_allclose(parts.sum(axis=1), scored.risk, rtol=1e-4, atol=1e-4)
    assert (parts[BEGIN:END].argmax(axis=1) == 1).all()


def test_run_that_goes_on_is_told_once_it_is_long_enough() -> None:
    """With the ninth equal reading at once, where rows are scored by those before; all of it, once more have come."""
    going_on = with_stuck_flow(BEGIN + 20, end=BEGIN + 20)

    trailing = fitted(trailing=True).score_frame(going_on, policy=POLICY).frame["flagged"]
    both = fitted().score_frame(going_on[: BEGIN + 9], policy=POLICY).frame["flagged"]
    too_short = fitted().score_frame(going_on[: BEGIN + 8], policy=POLICY).frame["flagged"]

    assert np.flatnonzero(trailing).tolist() == list(range(BEGIN + 8, BEGIN + 20))
    assert np.flatnonzero(both).tolist() == list(range(BEGIN, BEGIN + 9))
    assert not too_short.any()


@pytest.mark.parametrize("trailing", [False, True])
def test_any_cutting_gives_the_scores_of_the_whole(trailing: bool) -> None:
    """A service tells what a file tells, also of a run far longer than what it keeps, with gaps in it."""
    scorer = fitted(trailing=trailing)
    rows = with_stuck_flow(900, end=700).drop(index=[230, 231, 400]).reset_index(drop=True)
    rows.loc[[300, 301, 305], "flow"] = NAN
    rows = clean(rows, SCHEMA).rows
    whole = scorer.measure(rows)
    scored = scorer.score_steps(rows)

    tail, parts, said = Tail.empty(rows), [], {}
    for begin, end in pairwise([0, 150, 211, 260, 430, 431, 640, 900]):
        found = continue_series(scorer, tail, rows.iloc[begin:end].reset_index(drop=True), is_last=end == 900)
        tail = found.tail
        assert found.scored is not None
        parts.append(found.rows.assign(risk=found.scored.risk[found.step]))
        flags = np.zeros(len(found.scored.series), dtype=bool)
        flags[found.step] = found.scored.risk[found.step] > 10
        by_step = found.scored.reasons(flags)
        said |= {found.scored.when[step]: reasons[0].observed for step, reasons in by_step.items()}

    np.testing.assert_allclose(pd.concat(parts)["risk"], whole["risk"], rtol=1e-4, atol=1e-5)
    has_row = set(scored.series.step.tolist())
    of_steps = scored.reasons(scored.risk > 10)
    whole_said = {scored.when[step]: found[0].observed for step, found in of_steps.items() if step in has_row}
    assert whole_said == said
    assert len(said) > 400
    assert said[np.datetime64("2026-04-08T19:00")] == "stuck at 8.13 since 16:40"
    assert said[np.datetime64("2026-04-10T10:00")].endswith(" or before")  # a service keeps no more rows


def test_labelled_faults_are_not_learnt_from() -> None:
    """A run that is known to be a fault does not make the next one usual; one that is not does."""
    rows = press(1000, 1)
    rows.loc[100:199, "flow"] = 8.0
    schema = replace(SCHEMA, entity=None, label="fault")
    limits = [
        SequenceDetector(schema=schema).fit(rows.assign(fault=fault)).scorer_.models[""].flatline.limits[1]
        for fault in (rows.index.isin(range(100, 200)).astype(int), 0)
    ]

    assert limits == [8, None]


def test_carried_on_values_make_no_run() -> None:
    """Where gaps are filled with the last value, ten filled rows are no stuck sensor."""
    carrying = Sampling(missing="previous", limit=30)
    scorer = SequenceDetector(schema=SCHEMA, sampling=carrying).fit(press(1000, 1)).scorer_
    rows = press(500, 7).drop(index=range(200, 225))

    scored = scorer.score_steps(clean(rows, SCHEMA).rows)

    assert len(scored.series) == 500
    assert not scored.readings.stuck.any()


def test_gates_and_maintenance_hold() -> None:
    """A sensor may be excused by name, from all alarms that are too short, or for a time."""

    class Calendar:
        def spans(self, *_: Any) -> list[Span]:
            return [Span(START, START + pd.Timedelta("3D"))]

    def flagged(gate: SensorGate | None = None, **given: Any) -> int:
        gates = Gates({} if gate is None else {"flow": gate}, **given)
        return int(fitted().with_gates(gates).score_frame(with_stuck_flow(), policy=POLICY).frame["flagged"].sum())

    assert flagged(SensorGate(stuck=False)) == 0
    assert flagged(SensorGate(least_deviation=5.0)) == 0
    assert flagged(SensorGate(least_seconds=3600)) == END - BEGIN
    assert flagged(SensorGate(least_seconds=2 * 3600)) == 0
    assert flagged(calendar=Calendar()) == 0


def test_bundle_keeps_the_limits(tmp_path: Path) -> None:
    """The same scores after a restart; a bundle from before there were limits is scored as it was."""
    rows = with_stuck_flow()
    bundle.save(fitted(), tmp_path / "bundle")
    again = bundle.load(tmp_path / "bundle")
    parts = fitted().to_parts()
    models = [{name: fact for name, fact in facts.items() if name != "flatline"} for facts in parts.facts["models"]]
    earlier = SequenceScorer.from_parts(Parts(parts.facts | {"models": models}, parts.arrays, parts.graphs))

    assert isinstance(again, SequenceScorer)
    assert again.models[""].flatline == fitted().models[""].flatline
    np.testing.assert_array_equal(again.measure(rows)["risk"], fitted().measure(rows)["risk"])
    np.testing.assert_array_equal(earlier.measure(rows)["risk"], blind(fitted()).measure(rows)["risk"])


def test_configuration_switches_it_off(tmp_path: Path) -> None:
    """For one sensor, or for all but one."""
    given = {"name": "presses", "kind": "sensors", "source": {"path": "in"}, "columns": {"time": "time"}}

    def told(**series: Any) -> list[bool]:
        gates = gates_of(Config.model_validate(given | {"series": series}, context={"folder": tmp_path}))
        return [gates.of(name).stuck for name in ("flow", "heat")]

    assert told() == [True, True]
    assert told(sensors={"flow": {"stuck": False}}) == [False, True]
    assert told(gates={"stuck": False}, sensors={"flow": {"stuck": True}}) == [True, False]
