"""Meters that count upwards: what they add is looked at, and never where they stand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from detector import Policy, Sampling, Schema, SequenceDetector
from detector.cleaning.clean import clean
from detector.detectors.series.scorer import SequenceScorer
from detector.detectors.series.stream import Tail, continue_series
from detector.errors import SchemaError, SettingError
from detector.persist.bundle import load, save
from detector.series.counters import added
from detector.series.resample import regularise
from detector.series.sampling import Missing
from pipelines.factory.metadata import add_metadata, reference_of
from tests.series_examples import START

SCHEMA = Schema(time="when", numeric=("energy", "heat"))
SAMPLING = Sampling(counters=("energy",))
BUSY, EXCHANGED = slice(600, 640), 300


def metered(n: int, *, seed: int, start: float = 0.0) -> pd.DataFrame:
    """A meter that counts by tenths what follows the time of day, beside a temperature, each quarter of an hour."""
    rng = np.random.default_rng(seed)
    used = 3 + 2 * np.sin(np.arange(n) / 96 * 2 * np.pi) + rng.uniform(-0.3, 0.3, n)
    heat = 20 + 2 * np.sin(np.arange(n) / 96 * 2 * np.pi) + rng.normal(0, 0.2, n)
    when = START + pd.to_timedelta(np.arange(n) * 15, unit="min")
    return pd.DataFrame({"when": when, "energy": (start + used.cumsum()).round(1), "heat": heat.round(1)})


def test_added_shares_what_came_over_a_gap_and_passes_over_a_new_beginning() -> None:
    """No step has what the meter counted in another segment, or before it was exchanged."""
    levels = np.array([[5.0], [np.nan], [9.0], [2.0], [np.nan], [8.0], [8.0]])

    found = added(levels, np.array([0, 0, 0, 0, 0, 1, 1]), 1).ravel()

    np.testing.assert_array_equal(found, [np.nan, np.nan, 2.0, np.nan, np.nan, np.nan, 0.0])


def test_added_is_one_value_however_far_the_meter_has_counted() -> None:
    """Rounding of large numbers is no restlessness: 0.1 a step is 0.1 at 90,000, too."""
    levels = (90_000 + np.arange(500) / 10).round(1)[:, None]

    assert len(np.unique(added(levels, np.zeros(500), 5)[1:])) == 1


def test_a_carried_level_adds_nothing() -> None:
    """A meter that is written when it counts stands still in between; what was read stays known."""
    rows = pd.DataFrame({"when": START + pd.to_timedelta([0, 1, 3], unit="min"), "energy": [1.0, 2.0, 5.0]})

    series = regularise(
        rows, Schema(time="when", numeric=("energy",)), Sampling(missing="previous", counters=("energy",))
    )

    np.testing.assert_array_equal(series.values.ravel(), [np.nan, 1.0, 0.0, 3.0])
    assert series.levels.ravel().tolist() == [1.0, 2.0, 2.0, 5.0]


def test_a_meter_is_judged_by_what_it_adds(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Later rows lie above all that was learnt, and a meter is exchanged: neither is an event, a surplus is."""
    detector = SequenceDetector(schema=SCHEMA, sampling=SAMPLING, random_state=0).fit(metered(4_000, seed=1))
    folder = tmp_path_factory.mktemp("bundle") / "bundle"
    save(detector.scorer_, folder)
    rows = metered(1_000, seed=2, start=50_000.0)
    rows.loc[EXCHANGED:, "energy"] -= rows.loc[EXCHANGED - 1, "energy"]
    rows.loc[BUSY, "energy"] += 4 * np.arange(1, BUSY.stop - BUSY.start + 2)
    rows.loc[BUSY.stop + 1 :, "energy"] += 4 * (BUSY.stop - BUSY.start + 1)

    events = load(folder).judge(rows, policy=Policy(quantile=0.999), join=5).events

    worst = events.loc[events["risk"].idxmax()]
    assert worst["text"].startswith("energy up to")
    assert abs(worst["onset"] - rows["when"][BUSY.start]) <= pd.Timedelta("30min")
    assert events["start"].min() > rows["when"][BUSY.start] - pd.Timedelta("1D")


@pytest.fixture(scope="module")
def scorer() -> SequenceScorer:
    """Has learnt the meter and the temperature."""
    return SequenceDetector(schema=SCHEMA, sampling=SAMPLING, random_state=0).fit(metered(4_000, seed=1)).scorer_


def worst_event(scorer: SequenceScorer, rows: pd.DataFrame) -> pd.Series:
    """The worst event of rows."""
    events = scorer.judge(rows, policy=Policy(quantile=0.999), join=5).events
    return events.loc[events["risk"].idxmax()]


def test_a_meter_that_runs_backwards_is_said_to(scorer: SequenceScorer) -> None:
    """It read all the time: that there was no reading would be wrong."""
    rows = metered(1_000, seed=2, start=50_000.0)
    rows.loc[600:, "energy"] -= 2 * rows["energy"].diff().loc[600:].where(rows.index[600:] < 630, 0.0).cumsum()

    event = worst_event(scorer, rows)

    assert "ran backwards since" in event["text"]
    assert event["onset"] == rows["when"][600]
    assert "no reading" not in event["text"]


def test_a_meter_that_stands_still_is_said_to_with_its_level(scorer: SequenceScorer) -> None:
    """Of a meter, one value means that nothing was added: it is where it stands that a mechanic can see."""
    rows = metered(1_000, seed=2, start=300.0)
    rows.loc[600:, "energy"] = 2_222.0

    event = worst_event(scorer, rows)

    assert "stands still at 2,222 since" in event["text"]


def test_a_meter_that_catches_up_stood_still_before(scorer: SequenceScorer) -> None:
    """What was counted at once came over the hours before, in which nothing was; they belong to the fault."""
    rows = metered(1_000, seed=2, start=50_000.0)
    rows.loc[600:623, "energy"] = rows.loc[599, "energy"]

    event = worst_event(scorer, rows)

    assert "stood still for 6 h, then counted" in event["text"]
    assert event["onset"] == rows["when"][600]


def test_a_step_of_a_meter_that_ran_backwards_says_so(scorer: SequenceScorer) -> None:
    """Also the reasons of a row, and not where it was exchanged, which is one lower reading."""
    rows = metered(1_000, seed=2, start=50_000.0)
    rows.loc[600:, "energy"] -= 2 * rows["energy"].diff().loc[600:].where(rows.index[600:] < 630, 0.0).cumsum()
    rows.loc[900:, "energy"] -= rows.loc[899, "energy"]

    frame = scorer.judge(rows, policy=Policy(quantile=0.999)).frame

    texts = frame.loc[frame["flagged"], "reasons"]
    assert texts.str.contains("energy ran backwards to").any()
    assert not texts.loc[texts.index >= 890].str.contains("backwards").any()


@pytest.mark.parametrize("missing", ["mask", "previous"])
def test_a_meter_that_is_silent_for_long_is_scored_the_same_in_parts(missing: Missing) -> None:
    """What the next part adds to is kept, though the meter had no reading in the first row that is."""
    sampling = Sampling(missing=missing, limit=20, counters=("energy",))
    detector = SequenceDetector(
        schema=SCHEMA, sampling=sampling, window=8, smoothing=0.0, trailing=True, members=("reconstruction",)
    )
    scorer = detector.fit(metered(1_500, seed=1)).scorer_
    silent = metered(300, seed=2)
    silent.loc[100:118, "energy"] = np.nan
    rows = clean(silent, SCHEMA).rows
    tail, risk = Tail.empty(rows), []

    for row in range(len(rows)):
        part = continue_series(scorer, tail, rows.iloc[[row]].reset_index(drop=True))
        tail = part.tail
        risk += [] if part.scored is None else part.scored.risk[part.step].tolist()

    np.testing.assert_allclose(risk, scorer.measure(rows)["risk"], rtol=1e-4, atol=1e-5)


def test_drift_does_not_look_at_where_a_meter_stands() -> None:
    """It is higher at each look; the other columns are compared."""
    rows = metered(1_500, seed=1)
    scorer = SequenceDetector(schema=SCHEMA, sampling=SAMPLING, random_state=0).fit(rows).scorer_

    add_metadata(scorer, rows, rows.tail(200), policy=Policy(quantile=0.999), now=START.to_pydatetime())

    reference = reference_of(scorer.metrics)
    assert reference is not None
    names = {column.name for column in reference.columns}
    assert "heat" in names
    assert "energy" not in names


def test_counters_are_sensors() -> None:
    """What is named wrongly is said, with the nearest name; text is no list of names."""
    rows = metered(10, seed=1)

    with pytest.raises(SchemaError, match=r"The counter 'enrgy' is none of the sensors\. Did you mean 'energy'"):
        regularise(rows, SCHEMA, Sampling(counters=("enrgy",)))
    with pytest.raises(SettingError, match=r"expected a tuple of sensors\. Received: counters='energy'"):
        Sampling(counters="energy")  # type: ignore[arg-type]
