"""A detector for series on trial: it scores beside the champion, each with its own look ahead, and is settled."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from detector.detectors.series.scorer import SequenceScorer
from pipelines.config import Config, load_config
from pipelines.registry.registry import ModelRegistry
from pipelines.scoring.shadow import begin_shadow, paired, settle_shadow
from tests.sensor_sites import SensorSite, bundle_of, detector
from tests.service_sites import score

NOW = datetime.now(UTC) + timedelta(hours=2)
"""When all files have come that a test writes."""


def home(folder: Path, **given: bool) -> SensorSite:
    """A project with a detector of its own."""
    return SensorSite(folder / "site", bundle_of(folder, **given), retrain={"shadow_days": 3})


def trial(site: SensorSite, challenger: SequenceScorer) -> tuple[Config, str]:
    """A detector is on trial for three days from now on."""
    config = load_config(site.folder)
    registry = ModelRegistry(config.bundle)
    registry.adopt(now=NOW)
    name = registry.add(challenger, facts={}, now=NOW)
    begin_shadow(config, name, reason="It finds more.", now=NOW)
    return config, name


def compared(config: Config, name: str) -> pd.DataFrame:
    """The rows that both have scored, in their order."""
    files = sorted((ModelRegistry(config.bundle).folder / "shadow" / name).glob("*.parquet"))
    found = paired(pd.concat([pd.read_parquet(file) for file in files]), key="id")
    return found.astype({"id": int}).sort_values("id", ignore_index=True)


@pytest.mark.parametrize("trailing", [True, False])
def test_each_scores_rows_as_in_the_whole_series(tmp_path: Path, trailing: bool) -> None:
    """However the rows are cut, and whichever of the two waits for later ones; no row is compared twice."""
    challenger = detector(trailing=trailing, smoothing=1.0).scorer_
    champion = detector(trailing=not trailing).scorer_
    site = home(tmp_path, trailing=not trailing)
    config, name = trial(site, challenger)

    for rows in (3, 40, 1, 77, 30, 60):
        site.add(rows)
        score(site, now=NOW)

    found = compared(config, name)
    assert found["id"].tolist() == list(range(len(found)))
    assert site.written - 2 * 16 <= len(found) < site.written
    for side, scorer in {"champion": champion, "challenger": challenger}.items():
        expected = scorer.measure(site.rows.iloc[: site.written])["risk"].iloc[: len(found)]
        np.testing.assert_allclose(found[f"risk_{side}"], expected, rtol=1e-4, atol=1e-5)
    assert len(site.scores()) >= len(found)
    assert set(site.scores()["model_version"]) != {name}


def test_a_trial_begins_with_the_rows_the_champion_had_kept(tmp_path: Path) -> None:
    """As it would after a promotion, so its first rows are no beginning of a series."""
    challenger = detector(smoothing=1.0).scorer_
    site = home(tmp_path)
    site.add(100)
    score(site, now=NOW)
    config, name = trial(site, challenger)

    site.add(40)
    score(site, now=NOW)

    found = compared(config, name)
    assert found["id"].tolist() == list(range(100, 140))
    expected = challenger.measure(site.rows.iloc[:140])["risk"].iloc[100:]
    np.testing.assert_allclose(found["risk_challenger"], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("flood", "decision"), [(False, "promote"), (True, "keep")])
def test_a_trial_is_settled_by_the_same_rules(tmp_path: Path, flood: bool, decision: str) -> None:
    """One that ranks alike and is as calm serves, and scores what comes next; one that floods people does not."""
    site = home(tmp_path, trailing=False)
    config, name = trial(site, detector(trailing=False, smoothing=1.0).scorer_)
    site.add(200)
    score(site, now=NOW)
    (file,) = (ModelRegistry(config.bundle).folder / "shadow" / name).glob("*.parquet")
    rows = pd.read_parquet(file)
    if flood:
        rows.assign(flagged_champion=False, flagged_challenger=rows["risk_challenger"].rank() > 100).to_parquet(file)

    assert settle_shadow(config, now=NOW + timedelta(days=2)) is None
    assert settle_shadow(config, now=NOW + timedelta(days=3)) == decision

    assert (ModelRegistry(config.bundle).served() == name) is not flood
    before = set(site.scores()["model_version"])
    site.add(100)
    score(site, now=NOW + timedelta(days=4))
    assert len(set(site.scores()["model_version"]) - before) == int(not flood)
    assert site.scores()["id"].is_unique
