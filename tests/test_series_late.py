"""Readings that come late or out of order: within the lateness they find their place, beyond it they are set aside."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from detector.cleaning.clean import clean
from detector.detectors.series.stream import Tail, continue_series
from pipelines.scoring.replay import replay
from tests.sensor_sites import SensorSite, bundle_of, detector, minute
from tests.service_sites import context, opened, score
from tests.test_series_stream import fitted, settled, troubled

TEN = timedelta(minutes=10)


def delayed(rows: pd.DataFrame, time: str, *, seed: int, at: int = 7) -> list[pd.DataFrame]:
    """The rows in the order they arrive, each up to ten minutes late, in parts of some minutes."""
    late = pd.to_timedelta(np.random.default_rng(seed).integers(0, 600, len(rows)), unit="s")
    arrival = rows[time] + late
    part = (arrival - arrival.min()) // pd.Timedelta(minutes=at)
    order = arrival.argsort(kind="stable").to_numpy()
    return [group for _, group in rows.iloc[order].groupby(part.iloc[order].to_numpy())]


@pytest.mark.parametrize(
    "choice", ["both sides", "trailing", "both sides, all members", "a model each, padded", "means", "carried on"]
)
def test_scores_are_those_of_ordered_arrival(choice: str) -> None:
    """Each row is settled once, with what it has in the whole series: with faults, gaps and a dead sensor."""
    scorer = fitted(choice)
    rows = clean(troubled(), scorer.schema).rows
    tail, parts, moved = Tail.empty(rows), [], 0
    arrived = delayed(rows, "when", seed=len(choice))
    for number, part in enumerate(arrived):
        moved += int((part["when"] < part["when"].cummax()).sum())
        is_last = number == len(arrived) - 1
        own = part.reset_index(drop=True)
        parts.append(continue_series(scorer, tail, own, is_last=is_last, lateness=TEN))
        tail = parts[-1].tail

    assert moved > 50
    assert all(part.refused.empty for part in parts)
    found = settled(parts).set_index(["pump", "when"]).sort_index()
    expected = rows.assign(**scorer.measure(rows)).dropna(subset=["risk"]).set_index(["pump", "when"]).sort_index()
    assert found.index.is_unique
    pd.testing.assert_frame_equal(found[["risk"]], expected[["risk"]], rtol=1e-4, atol=1e-5)


def test_without_lateness_such_rows_are_refused() -> None:
    """What was told could not stand otherwise."""
    scorer = fitted("trailing")
    rows = clean(troubled(), scorer.schema).rows
    tail, refused = Tail.empty(rows), 0
    for part in delayed(rows, "when", seed=1):
        found = continue_series(scorer, tail, part.reset_index(drop=True))
        tail, refused = found.tail, refused + len(found.refused)

    assert refused > 50


@pytest.fixture(params=[True, False], ids=["trailing", "both sides"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> SensorSite:
    """A project in which readings may come ten minutes late, and do."""
    bundle = bundle_of(tmp_path, trailing=request.param)
    made = SensorSite(tmp_path / "site", bundle, series={"late_minutes": 10, "trailing": request.param})
    for part in delayed(made.rows.iloc[:300], "when", seed=3):
        made.put(part)
        score(made)
    return made


def whole(site: SensorSite) -> Any:
    """The risks of ordered arrival."""
    trailing = "trailing: true" in (site.folder / "detector.yaml").read_text(encoding="utf-8")
    return detector(trailing=trailing).scorer_.measure(site.rows.iloc[:300])["risk"]


def test_the_service_scores_late_rows_in_their_place(site: SensorSite) -> None:
    """All that have come are scored but for those that wait: ten minutes of two pumps, and what models look ahead."""
    found = site.scores()

    assert site.quarantined().empty
    assert 300 - 2 * (10 + 15 + 2) <= len(found) < 300
    assert found["id"].is_unique
    np.testing.assert_allclose(found["risk"], whole(site)[found["id"]], rtol=1e-4, atol=1e-5)


def test_what_comes_later_is_set_aside_and_counted(site: SensorSite) -> None:
    """With the reason; a second reading of a time too, whether or not the first has been scored."""
    before = len(site.scores())
    odd = site.rows.iloc[300:303].copy()
    odd["when"] = [minute(120), minute(139), minute(148)]
    odd["pump"] = "a"
    site.put(odd)

    outcome = score(site)

    reasons = site.quarantined()["reason"].tolist()
    newest = "2026-03-01 02:29:00, the newest reading of its series in an earlier batch"
    assert reasons[:2] == [
        f"when: 2026-03-01 02:00:00 is more than 10 min before {newest}",
        f"when: 2026-03-01 02:19:00 is more than 10 min before {newest}",
    ]
    assert reasons[2].startswith("when: the series has a reading of this time (first")
    assert sum(outcome.facts["quarantined_by_reason"].values()) == outcome.facts["quarantined"] == 3
    assert len(site.scores()) == before


def test_a_replay_finds_late_rows_in_later_batches(site: SensorSite) -> None:
    """The same detector says the same of each row."""
    shown = ["id", "risk", "flagged", "batch"]
    before = site.scores()

    with opened(site) as store:
        replay(context(site, store))

    pd.testing.assert_frame_equal(site.scores()[shown], before[shown], rtol=1e-4, atol=1e-5)
