"""Gates of sensors: what is held back, what is told nevertheless, and the same however a series is cut."""

from __future__ import annotations

from functools import cache

import numpy as np
import pandas as pd
import pytest

from detector.cleaning.clean import clean
from detector.decide.policy import Policy
from detector.detectors.series.detector import SequenceDetector
from detector.detectors.series.gating import ECHO
from detector.detectors.series.scorer import SequenceScorer
from detector.detectors.series.stream import Tail, continue_series
from detector.detectors.series.verdicts import SeriesVerdicts
from detector.errors import SettingError
from detector.schema import Schema
from detector.series.gates import Gates, SensorGate, Span

SENSORS = ("left", "right", "speed")
START = pd.Timestamp("2026-01-01")
FIRST, LAST = 400, 460
POLICY = Policy(quantile=0.999)


def machine(n: int, seed: int, *, added: float = 0.0, rows: int = LAST - FIRST) -> pd.DataFrame:
    """Two bearings by one load; degrees are added to the left one for some minutes."""
    rng, time = np.random.default_rng(seed), np.arange(n)
    load = np.sin(time / 30) + 0.3 * np.sin(time / 7)
    frame = pd.DataFrame(
        {
            "left": 44 + 3 * load + rng.normal(0, 0.3, n),
            "right": 46 + 3 * load + rng.normal(0, 0.3, n),
            "speed": 1500 + 50 * load + rng.normal(0, 5, n),
        }
    )
    if n > FIRST:
        frame.loc[FIRST : FIRST + rows - 1, "left"] += added
    return frame.assign(time=START + pd.to_timedelta(time, unit="min"))


@cache
def fitted() -> SequenceScorer:
    detector = SequenceDetector(schema=Schema(time="time", numeric=SENSORS), wait=60)
    return detector.fit(machine(2000, 1)).scorer_


def judged(rows: pd.DataFrame, gates: Gates) -> SeriesVerdicts:
    return fitted().with_gates(gates).score_frame(rows, policy=POLICY)


def at_fault(found: SeriesVerdicts) -> list[str]:
    events = found.events
    near = events[
        (events["start"] <= START + pd.Timedelta(minutes=LAST + 20))
        & (events["end"] >= START + pd.Timedelta(minutes=FIRST - 20))
    ]
    return near["text"].tolist()


def test_hours_around_a_large_fault_are_not_told_with_it() -> None:
    """Four minutes far off make more than an hour risky; a third of it, for what is beside it alone, is not told."""
    rows = machine(800, 2, added=12.0, rows=4)
    found = judged(rows, Gates())
    flagged = np.flatnonzero(found.frame["flagged"])
    near = flagged[flagged > FIRST - 100]

    risky = np.flatnonzero(found.frame["p_value"] <= 0.001)
    assert {FIRST, FIRST + 1, FIRST + 2, FIRST + 3} <= set(near)
    assert len(near) < 45 < 60 < len(risky)
    assert found.held[ECHO] == len(risky) - len(flagged)
    (event,) = [each for _, each in found.events.iterrows() if each["start"] > START]
    assert event["steps"] == near[-1] - near[0] + 1
    assert "left up" in event["text"]
    decision = fitted().score_steps(clean(rows, fitted().schema).rows).decide(POLICY)
    assert np.flatnonzero(decision.echoes).tolist() == sorted({*risky} - {*flagged})


@pytest.mark.parametrize(
    ("gate", "added", "rows", "held"),
    [
        (SensorGate(direction="up"), 12.0, 60, ""),
        (SensorGate(direction="up"), -12.0, 60, "left: direction"),
        (SensorGate(direction="down"), 12.0, 60, "left: direction"),
        (SensorGate(least_deviation=6.0), 12.0, 60, ""),
        (SensorGate(least_deviation=20.0), 12.0, 60, "left: least deviation"),
        (SensorGate(least_relative=0.15), 12.0, 60, ""),
        (SensorGate(least_relative=0.5), 12.0, 60, "left: least deviation"),
        (SensorGate(least_seconds=1200.0), 12.0, 60, ""),
        (SensorGate(least_seconds=1200.0), 30.0, 3, "left: duration"),
    ],
)
def test_gate_holds_back_what_is_not_to_be_told(gate: SensorGate, added: float, rows: int, held: str) -> None:
    """And neither do healthy sensors beside it tell; what is held back is counted under its name."""
    faulty = machine(800, 2, added=added, rows=rows)

    open_, found = judged(faulty, Gates()), judged(faulty, Gates({"left": gate}))

    assert at_fault(open_)
    assert set(open_.held) <= {ECHO}
    if held:
        assert at_fault(found) == []
        assert found.held[held] >= open_.frame["flagged"].sum() - found.frame["flagged"].sum() - 2 > 0
    else:
        assert at_fault(found)[0].startswith("left ")


def test_gate_of_one_sensor_leaves_others_alone() -> None:
    """What is wrong with the left bearing is told though nothing of the right one is."""
    found = judged(machine(800, 2, added=12.0), Gates({"right": SensorGate(least_deviation=1000.0)}))

    assert at_fault(found)[0].startswith("left ")


def test_gate_of_all_is_that_of_each_unless_it_has_its_own() -> None:
    """A sensor of its own gate is told by that alone."""
    gates = Gates({"left": SensorGate(direction="up")}, otherwise=SensorGate(least_deviation=1e6))

    assert at_fault(judged(machine(800, 2, added=12.0), gates))


@pytest.mark.parametrize("gate", [SensorGate(high=48.5), SensorGate(high=48.5, direction="down", least_seconds=1e5)])
def test_reading_outside_its_range_is_always_told(gate: SensorGate) -> None:
    """Even if models see nothing and the other gates would hold it back; it says which limit, and is severe."""
    rows = machine(800, 2)
    row = 300
    rows.loc[row, "left"] = 48.6

    found = judged(rows, Gates({"left": gate}))

    events = found.events
    (event,) = events[(events["start"] <= rows["time"][row]) & (events["end"] >= rows["time"][row])].to_dict("records")
    assert "above its limit of 48.5" in event["text"]
    assert event["severity"] in ("high", "critical")
    assert found.frame["flagged"][row]
    assert found.frame["reasons"][row][0].feature == "left"
    assert "above its limit" in found.frame["reasons"][row][0].observed


class Planned:
    """Maintenance of one span."""

    def __init__(self, entity: str | None = None) -> None:
        self.span = Span(START + pd.Timedelta(minutes=FIRST), START + pd.Timedelta(minutes=LAST), entity)

    def spans(self, first: pd.Timestamp, last: pd.Timestamp) -> list[Span]:  # noqa: D102 - a calendar's
        return [self.span]


def test_nothing_is_told_in_maintenance_nor_beside_it() -> None:
    """No window reaches out of it: the rows before and after are scored as if nothing had been."""
    faulty = machine(800, 2, added=40.0)

    found = judged(faulty, Gates(calendar=Planned()))

    assert not found.frame["flagged"][FIRST:LAST].any()
    assert set(found.held) - {ECHO} == {"maintenance"}
    quiet = judged(machine(800, 2), Gates(calendar=Planned()))
    outside = [*range(FIRST), *range(LAST, 800)]
    np.testing.assert_allclose(found.frame["risk"][outside], quiet.frame["risk"][outside])
    assert found.frame["flagged"][outside].equals(quiet.frame["flagged"][outside])


def test_maintenance_of_another_machine_is_none() -> None:
    """The calendar may name the machine."""
    assert at_fault(judged(machine(800, 2, added=40.0), Gates(calendar=Planned("press-7"))))


def test_unknown_sensor_is_an_error_that_names_the_nearest() -> None:
    """A gate with a typing error would hold nothing back, and nobody would know."""
    with pytest.raises(SettingError, match="'lefft', which is no sensor. Did you mean 'left'"):
        fitted().with_gates(Gates({"lefft": SensorGate()}))


@pytest.mark.parametrize(
    "wrong",
    [{"direction": "sideways"}, {"least_deviation": -1.0}, {"least_seconds": float("nan")}, {"low": 3.0, "high": 1.0}],
)
def test_gate_without_meaning_is_refused(wrong: dict[str, object]) -> None:
    """When it is made, not when something is held back."""
    with pytest.raises(SettingError, match="must"):
        SensorGate(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [37, 200])
def test_part_by_part_tells_what_the_whole_tells(size: int) -> None:
    """Gates wait for what they need, so no row is told in the service that is not told in the file."""
    gates = Gates({"left": SensorGate(least_deviation=3.0, least_seconds=900.0, high=60.0)}, calendar=Planned("x"))
    scorer = fitted().with_gates(gates)
    rows = machine(700, 4, added=25.0, rows=5)
    rows.loc[600:640, "left"] += 9.0
    whole = scorer.score_frame(rows, policy=POLICY).frame.set_index("time")["flagged"]

    tail, told = Tail.empty(rows), []
    for first in range(0, len(rows), size):
        part = rows.iloc[first : first + size].reset_index(drop=True)
        found = continue_series(scorer, tail, part, is_last=first + size >= len(rows))
        tail = found.tail
        if found.scored is not None:
            decision = found.scored.decide(POLICY, step=found.step)
            told.append(pd.Series(decision.flagged, index=found.rows["time"]))

    joined = pd.concat(told)
    assert len(joined) == len(rows)
    assert whole.any()
    pd.testing.assert_series_equal(joined.sort_index(), whole.sort_index(), check_names=False)
