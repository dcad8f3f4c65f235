from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from detector.metrics.ranking import Interval
from pipelines.config import RetrainSection
from pipelines.registry.comparison import Comparison, Side
from pipelines.registry.promotion import KEEP, PROMOTE, SHADOW, Decision, decide, note_of
from pipelines.training.comparison import comparison_figure

SETTINGS = RetrainSection()
RNG = np.random.default_rng(0)
RISK = RNG.normal(0, 1, 1000)
GOOD = Side(RISK, RNG.uniform(0, 1, 1000), precision=0.4, recall=0.5, calibration=0.03, alerts=10.0)
FOUND = Comparison(
    champion=GOOD,
    challenger=replace(GOOD, precision=0.5, recall=0.6),
    basis="labels",
    gain=Interval(0.1, 0.05, 0.15),
    stability=0.9,
    rows=1000,
    anomalies=50,
    days=10.0,
    budget=20,
    noise=0.05,
    truth=(RISK > 1.6).astype(float),
    risks=(RISK, RISK + RNG.normal(0, 0.1, 1000)),
)
BROKEN = replace(GOOD, calibration=0.4)


@pytest.mark.parametrize(
    ("found", "verdict", "words"),
    [
        (FOUND, PROMOTE, "it finds more, +0.100 in average precision"),
        (replace(FOUND, gain=Interval(0.1, -0.01, 0.2)), KEEP, "a gain is not sure, +0.100"),
        (replace(FOUND, gain=Interval(0.0, 0.0, 0.0)), KEEP, "there is no gain"),
        (replace(FOUND, challenger=BROKEN), KEEP, "not met: its p-values are right"),
        (replace(FOUND, challenger=replace(GOOD, alerts=21.0)), KEEP, "at most 2 times the champion's alerts"),
        (replace(FOUND, stability=0.1), KEEP, "it ranks rows as the champion does"),
        (replace(FOUND, champion=BROKEN, gain=Interval(0, -0.01, 0.01)), PROMOTE, "p-values were off by 0.40"),
        (replace(FOUND, champion=BROKEN, gain=Interval(-0.1, -0.2, 0.0)), KEEP, "there is no gain"),
        (replace(FOUND, champion=BROKEN, challenger=BROKEN, gain=Interval(0, -0.01, 0.01)), KEEP, "there is no gain"),
        (replace(FOUND, champion=BROKEN, challenger=replace(GOOD, alerts=99.0)), PROMOTE, "it finds more"),
        (replace(FOUND, champion=BROKEN, stability=-0.3), PROMOTE, "it finds more"),
    ],
)
def test_decision_follows_the_rules(found: Comparison, verdict: str, words: str) -> None:
    """A sure gain, or a repair; neither if it floods, is wrongly calibrated, or is another detector."""
    decision = decide(found, SETTINGS)

    assert decision.outcome == verdict
    assert words in decision.reason


def test_few_rows_excuse_a_distance_that_is_chance() -> None:
    """On 100 rows a distance of 0.15 is nothing; on many it is."""
    side = replace(GOOD, calibration=0.15)

    assert decide(replace(FOUND, challenger=side, noise=0.16), SETTINGS).outcome == PROMOTE
    assert decide(replace(FOUND, challenger=side, noise=0.01), SETTINGS).outcome == KEEP


def test_quiet_champion_does_not_forbid_an_alert() -> None:
    """Twice nothing is nothing: one alert a day is always allowed."""
    quiet = replace(GOOD, alerts=0.0)

    assert decide(replace(FOUND, champion=quiet, challenger=replace(GOOD, alerts=1.9)), SETTINGS).outcome == PROMOTE
    assert decide(replace(FOUND, champion=quiet, challenger=replace(GOOD, alerts=9.0)), SETTINGS).outcome == KEEP


def test_person_can_ask_to_decide_or_to_wait() -> None:
    """A winner waits for a person, or scores in the shadow first; a loser does neither."""
    never, shadow = RetrainSection(promote="never"), RetrainSection(shadow_days=3)
    loser = replace(FOUND, gain=Interval(0.0, -0.1, 0.1))

    assert decide(FOUND, never).outcome == KEEP
    assert "The challenger has won: it finds more" in decide(FOUND, never).reason
    assert decide(FOUND, shadow).outcome == SHADOW
    assert decide(loser, shadow).outcome == KEEP


def test_note_tells_all_to_a_reader() -> None:
    """The decision, both detectors' figures, and each rule with its own."""
    note = note_of(decide(FOUND, SETTINGS), FOUND, facts={"trigger": "drift"})

    assert note.startswith("## Promoted\n\nThe challenger serves: it finds more")
    assert "- trigger: drift" in note
    assert "1,000 rows over 10.0 days that neither learnt from, 50 known anomalies" in note
    assert "| average precision | 0.400 | 0.500 |" in note
    assert "| alerts a day | 10.0 | 10.0 |" in note
    assert note.count("| yes |") == 4
    assert "0.100 (95 % interval +0.050 to +0.150)" in note


def test_note_without_a_comparison_is_short() -> None:
    """Where nothing was compared, there is a reason and no empty table."""
    assert "|" not in note_of(Decision("failed", "No rows."), None, facts={})


def test_figure_says_what_it_shows() -> None:
    """The titles hold the shares found, and no number is written as a formula."""
    left, right = comparison_figure(FOUND).axes
    numbers = [label.get_text() for label in left.get_xticklabels()]

    assert left.get_title(loc="left").startswith("Challenger finds ")
    assert "known anomalies, champion" in left.get_title(loc="left")
    assert "diagonal" in right.get_title(loc="left")
    assert {"1", "10", "100"} <= set(numbers)
    assert not any("$" in number for number in numbers)
