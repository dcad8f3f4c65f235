"""Series that are scored part by part, compared with the same series scored in one piece."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import pytest

from detector.cleaning.clean import clean
from detector.detectors.series.recipe import MEMBERS
from detector.detectors.series.scorer import SequenceScorer
from detector.detectors.series.stream import Continued, Tail, continue_series
from detector.series.sampling import Sampling
from tests.series_examples import PUMPS, START, readings, small

CHOICES: dict[str, dict[str, Any]] = {
    "both sides": {},
    "trailing": {"trailing": True},
    "trailing, all members": {"trailing": True, "members": MEMBERS},
    "both sides, all members": {"members": MEMBERS},
    "both sides, all members, 26 steps": {"members": MEMBERS, "wait": 26},
    "a model each, padded": {"models": "entity", "short": "pad"},
    "mahalanobis": {"trailing": True, "residuals": "mahalanobis", "smoothing": 0.0},
    "means": {"sampling": Sampling(every="2min", align="mean")},
    "counters": {"trailing": True, "sampling": Sampling(counters=("flow", "power"))},
    "counters, carried on": {"sampling": Sampling(missing="previous", limit=3, counters=("flow", "power"))},
    "carried on": {"trailing": True, "sampling": Sampling(missing="previous", limit=2)},
}


@cache
def fitted(choice: str) -> SequenceScorer:
    rows = pd.concat([readings(300, seed=1, pump="a"), readings(300, seed=2, pump="b")])
    rows.loc[rows.index % 7 == 3, "power"] = np.nan  # silent for a step now and then
    return small(schema=PUMPS, **CHOICES[choice]).fit(metered(rows, choice)).scorer_


def metered(rows: pd.DataFrame, choice: str) -> pd.DataFrame:
    """The same, where sensors are counters each as a meter that counts it up, and begins anew at 2,000."""
    counters = list(CHOICES[choice].get("sampling", Sampling()).counters)
    return rows.assign(**{name: rows.groupby("pump")[name].cumsum() % 2_000 for name in counters})


@cache
def troubled() -> pd.DataFrame:
    """Two pumps in the order their readings come: with faults, a dead sensor, gaps short and long, missing values."""
    a, b = readings(150, seed=3, pump="a"), readings(150, seed=4, pump="b")
    a.loc[40:55, "heat"] += 3.0
    a.loc[35:, "flow"] = np.nan
    a.loc[a.index % 7 == 3, "power"] = np.nan
    a = a.drop(index=[20, 21, *range(100, 115)])
    b.loc[:30, "power"] = np.nan
    b = b.drop(index=[60, 61, 62])
    return pd.concat([a, b]).sort_values("when", kind="stable", ignore_index=True)


def go_on(scorer: SequenceScorer, rows: pd.DataFrame, cuts: list[int], **given: Any) -> tuple[list[Continued], Tail]:
    """The rows in parts."""
    edges = [0, *sorted(cuts), len(rows)]
    tail, found = Tail.empty(rows), []
    for number, (begin, end) in enumerate(pairwise(edges)):
        last = number == len(edges) - 2
        part = continue_series(scorer, tail, rows.iloc[begin:end].reset_index(drop=True), is_last=last, **given)
        found.append(part)
        tail = part.tail
    return found, tail


def settled(parts: list[Continued]) -> pd.DataFrame:
    """What was said of each row."""
    frames = [
        part.rows.assign(risk=part.scored.risk[part.step], p_value=part.scored.p_value[part.step])
        for part in parts
        if part.scored is not None
    ]
    return pd.concat(frames, ignore_index=True)


@pytest.mark.parametrize("choice", CHOICES)
def test_any_cutting_gives_the_scores_of_the_whole(choice: str) -> None:
    """Each row is reported once, with the risk and the p-value that it has in the series as a whole."""
    scorer = fitted(choice)
    cuts = np.random.default_rng(len(choice)).integers(0, len(troubled()), 12).tolist()
    rows = clean(metered(troubled(), choice), scorer.schema).rows
    whole = rows.assign(**scorer.measure(rows)).dropna(subset=["risk"])

    parts, _ = go_on(scorer, rows, cuts)

    by = ["pump", "when"]
    found = settled(parts).set_index(by).sort_index()
    assert found.index.is_unique
    expected = whole.set_index(by).sort_index()
    pd.testing.assert_frame_equal(found[["risk"]], expected[["risk"]], rtol=1e-4, atol=1e-5)
    assert np.abs(found["p_value"] - expected["p_value"]).max() <= 2 / scorer.calibrator.size
    assert all(part.refused.empty for part in parts)


def pumps(first: int, end: int, **values: Any) -> pd.DataFrame:
    """Good rows of pump a from one minute to another."""
    rows = readings(end, seed=5, pump="a").iloc[first:end]
    return clean(rows.assign(**values), PUMPS).rows


def test_rows_wait_until_all_that_they_depend_on_is_there() -> None:
    """With both sides that is a window and the reach of the smoothing; with the past alone, nothing."""
    both, trailing = fitted("both sides"), fitted("trailing")

    first = continue_series(both, Tail.empty(pumps(0, 40)), pumps(0, 40))
    second = continue_series(both, first.tail, pumps(40, 41))

    assert both.models[""].ahead == 7 + 8
    assert len(first.rows) == 40 - 15
    assert second.rows["when"].tolist() == [START + pd.Timedelta("25min")]
    assert second.rows.index.tolist()[0] < 0
    assert len(continue_series(trailing, Tail.empty(pumps(0, 40)), pumps(0, 40)).rows) == 40


def test_long_windows_wait_no_longer_than_they_may() -> None:
    """Four windows and the reach of the smoothing, or as many steps as are given."""
    unbounded, bounded = fitted("both sides, all members"), fitted("both sides, all members, 26 steps")

    assert unbounded.models[""].ahead == 4 * 8 - 1 + 8
    assert bounded.models[""].ahead == 23  # of a long window, whole averages of four steps count
    assert len(continue_series(bounded, Tail.empty(pumps(0, 40)), pumps(0, 40)).rows) == 40 - 23


def test_what_is_kept_does_not_grow() -> None:
    """However long the series goes on."""
    scorer = fitted("trailing")
    tail = Tail.empty(pumps(0, 1))
    sizes = []
    for begin in range(0, 200, 20):
        tail = continue_series(scorer, tail, pumps(begin, begin + 20)).tail
        sizes.append(len(tail.rows))

    assert sizes[-1] == sizes[-3] < 80


def test_a_new_series_waits_for_a_window() -> None:
    """Where a series shorter than a window is an error, its first rows wait; if it ends before, they are refused."""
    scorer = fitted("trailing")

    begun = continue_series(scorer, Tail.empty(pumps(0, 5)), pumps(0, 5))
    goes_on = continue_series(scorer, begun.tail, pumps(5, 9))
    ended = continue_series(scorer, begun.tail, pumps(5, 5), ended={"a"})

    assert begun.rows.empty
    assert len(goes_on.rows) == 9
    assert ended.rows.empty
    assert ended.refused["reason"].unique().tolist() == ["its series ended after 5 steps, and a window has 8"]
    assert not ended.tail.waiting.any()
    assert len(ended.refused) == 5


def test_rows_that_are_late_are_refused_with_the_reason() -> None:
    """They could only be scored by changing what was told."""
    scorer = fitted("trailing")
    before = continue_series(scorer, Tail.empty(pumps(0, 20)), pumps(0, 20))

    found = continue_series(scorer, before.tail, pumps(18, 22))

    assert found.refused["reason"].tolist() == [
        "when: 2026-03-01 00:18:00 is before 2026-03-01 00:19:00, the newest reading of its series in an earlier batch",
        "when: the series has a reading of 2026-03-01 00:19:00 from an earlier batch",
    ]
    assert found.refused.index.tolist() == [0, 1]
    assert len(found.rows) == 2


def test_an_unknown_machine_and_a_nameless_one_do_not_stop_the_others() -> None:
    """Their rows are refused, each with its reason."""
    scorer = fitted("a model each, padded")
    rows = pd.concat([pumps(0, 30), pumps(0, 3, pump="new"), pumps(0, 1, pump=None)], ignore_index=True)

    found = continue_series(scorer, Tail.empty(rows), rows, is_last=True)

    assert found.refused["reason"].tolist() == [
        *["pump: 'new' has no model: train again with its rows, or choose `models: shared`"] * 3,
        "pump: the entity is missing",
    ]
    assert len(found.rows) == 30


def test_a_machine_whose_clock_was_put_back_is_refused_alone() -> None:
    """What cannot be put on regular steps keeps nobody else, and begins anew with the next part."""
    scorer = fitted("trailing")
    times = START + pd.to_timedelta([*range(120), *range(60, 120)], unit="min")
    turned = pumps(0, 180, pump="b").assign(when=times)
    rows = pd.concat([pumps(0, 40), turned], ignore_index=True)

    found = continue_series(scorer, Tail.empty(rows), rows)

    assert len(found.rows) == 40
    assert len(found.refused) == 180
    assert found.refused["reason"].str.contains("is put back by one hour").all()
    assert found.tail.rows["pump"].unique().tolist() == ["a"]


def test_a_series_alone_that_is_refused_leaves_nothing() -> None:
    """Waiting rows are refused too, and those reported before are not reported again."""
    rows = readings(300, seed=1)
    scorer = small(schema=replace(PUMPS, entity=None), sampling=Sampling(missing="reject")).fit(rows).scorer_
    begun = continue_series(scorer, Tail.empty(rows), rows.iloc[:30].reset_index(drop=True))

    found = continue_series(scorer, begun.tail, rows.iloc[40:50].reset_index(drop=True))

    assert found.scored is None
    assert len(begun.rows) == 15
    assert len(found.refused) == 15 + 10
    assert found.refused["reason"].str.contains("where 10 are missing").all()
    assert found.tail.rows.empty


def test_series_without_times_go_on_in_the_order_they_come() -> None:
    """No row is ever late."""
    rows = readings(300, seed=1).drop(columns="when")
    scorer = small(schema=replace(PUMPS, time=None, entity=None), trailing=True).fit(rows).scorer_
    whole = scorer.measure(rows.iloc[:100])["risk"]

    parts, tail = go_on(scorer, rows.iloc[:100], [30, 60])

    np.testing.assert_allclose(settled(parts)["risk"], whole, rtol=1e-4, atol=1e-5)
    assert tail.newest(scorer.schema).empty
