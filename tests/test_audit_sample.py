"""Rows drawn at random: the same ones again, with a known chance, within the budget; and what they say is missed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from benchmarks.soak import KILLED, Site, draw, run
from detector.decide.audit_sample import AuditSample, missed
from detector.detectors.table.detector import TabularDetector
from detector.errors import SettingError, ShapeError
from detector.persist.bundle import save
from detector.schema import Schema
from pipelines.config import Config, load_config
from pipelines.training.evaluate import _missed
from tests.service_sites import NOTHING_WRONG, score

BUDGET = {"rows": 10, "per": "batch"}


def explored(site: Site) -> pd.DataFrame:
    """The scores of a site, by key."""
    frame = pd.concat([pd.read_parquet(part) for part in sorted((site.folder / "scores").glob("*.parquet"))])
    return frame.sort_values("id" if "id" in frame else ["file", "row"]).reset_index(drop=True)


def site_of(folder: Path, bundle: Path, policy: dict[str, Any]) -> Site:
    return Site(folder, bundle, "files to files", policy=policy)


def test_lots_are_even_and_follow_names_and_seed() -> None:
    """As many rows as the chance says are below it; the order of the rows does not matter, the seed does."""
    drawing = AuditSample(rows=50, among=1_000)
    names = np.arange(20_000)

    lots = drawing.uniform(names)

    assert np.quantile(lots, [0.05, 0.5, 0.95]) == pytest.approx([0.05, 0.5, 0.95], abs=0.01)
    np.testing.assert_array_equal(drawing.uniform(names[::-1])[::-1], lots)
    assert abs(np.corrcoef(lots, AuditSample(rows=50, random_state=1).uniform(names))[0, 1]) < 0.03


def test_missed_is_right_on_average() -> None:
    """Over many draws the estimate is the number of anomalies that nothing flags, also if some answers are missing."""
    rng = np.random.default_rng(0)
    truth = (rng.random(2_000) < 0.05).astype(float)
    truth[:100] = 1.0
    flagged = np.arange(2_000) < 100
    for answered in (1.0, 0.3):
        estimates = []
        for seed in range(300):
            drawing = AuditSample(rows=200, random_state=seed)
            chance = drawing.chance(len(truth))
            drawn = ~flagged & (drawing.uniform(range(len(truth))) < chance)
            known = np.where(rng.random(drawn.sum()) < answered, truth[drawn], np.nan)
            estimates.append(missed(known, np.full(len(known), chance)))
        assert np.mean(estimates) == pytest.approx(truth[~flagged].sum(), rel=0.05)


def test_missed_without_a_label_is_unknown() -> None:
    """It is not zero."""
    assert np.isnan(missed(np.array([np.nan]), np.array([0.1])))


@pytest.mark.parametrize("chance", [np.ones(4), np.array([0.5, 0.0])], ids=["another number", "zero"])
def test_chances_must_fit(chance: np.ndarray) -> None:
    """One positive chance a row."""
    with pytest.raises(ShapeError, match="one positive chance for each of 2 drawn rows"):
        missed(np.ones(2), chance)


@pytest.mark.parametrize("setting", [{"rows": 0}, {"rows": 1, "among": 0}], ids=str)
def test_settings_without_meaning_are_refused(setting: dict[str, Any]) -> None:
    """Nothing is drawn, or of nothing."""
    with pytest.raises(SettingError, match="Expected positive numbers"):
        AuditSample(**setting)


@pytest.mark.parametrize(
    ("policy", "complaint"),
    [
        ({"quantile": 0.9, "explore": 0.1}, "larger than what is drawn"),
        ({"budget": {"rows": 1}, "explore": 0.1, "rows_a_day": 9}, "larger than what is drawn"),
        ({"budget": {"rows": 50}, "explore": 0.1}, "expected `rows_a_day`"),
    ],
    ids=["no budget", "small budget", "no rows a day"],
)
def test_exploring_needs_a_budget_and_a_chance(tmp_path: Path, policy: dict[str, Any], complaint: str) -> None:
    """What is missing is said."""
    (tmp_path / "detector.yaml").write_text(yaml.safe_dump({"source": {"path": "a.csv"}, "policy": policy}))
    with pytest.raises(SettingError, match=complaint):
        load_config(tmp_path)


def test_sensors_are_not_explored(tmp_path: Path) -> None:
    """Their rows are no rows to look at."""
    policy = {"budget": {"rows": 50, "per": "batch"}, "explore": 0.1}
    values = {"kind": "sensors", "source": {"path": "a.csv"}, "policy": policy}
    (tmp_path / "detector.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(SettingError, match="draws rows of tables"):
        load_config(tmp_path)


def test_off_by_default(tiny_bundle: Path, tmp_path: Path) -> None:
    """Scores have no further column, and the whole budget is for what is riskiest."""
    site = site_of(tmp_path / "site", tiny_bundle, {"budget": BUDGET})
    site.add(200)

    score(site)

    frame = explored(site)
    assert not {"explored", "chance"} & set(frame.columns)
    assert frame["flagged"].sum() == 10


@pytest.mark.parametrize(
    ("policy", "chance"),
    [
        ({"budget": BUDGET, "explore": 0.4}, 4 / 300),
        ({"budget": {"rows": 10, "per": "day"}, "explore": 0.4, "rows_a_day": 50}, 4 / 50),
    ],
    ids=["batch", "day"],
)
def test_scores_say_what_was_sampled(tiny_bundle: Path, tmp_path: Path, policy: dict[str, Any], chance: float) -> None:
    """Others than the flagged rows, by their key alone; the budget of the policy is smaller by as much."""
    site = site_of(tmp_path / "site", tiny_bundle, policy)
    site.add(300)

    score(site)

    frame = explored(site)
    lots = AuditSample(rows=1).uniform(frame["id"])
    assert frame["flagged"].sum() == 6
    np.testing.assert_allclose(frame["chance"], np.where(frame["flagged"], 1.0, chance))
    np.testing.assert_array_equal(frame["explored"], (lots < chance) & ~frame["flagged"])
    assert frame["explored"].any()
    assert (frame.loc[frame["explored"], "severity"] == "").all()


def test_budget_is_kept_on_average(tiny_bundle: Path, tmp_path: Path) -> None:
    """Over many batches as many rows are flagged or drawn as the budget has room for."""
    site = site_of(tmp_path / "site", tiny_bundle, {"budget": BUDGET, "explore": 0.4})
    for _ in range(12):
        site.add(100)
        score(site)

    frame = explored(site)

    assert frame["batch"].nunique() == 12
    assert frame["flagged"].sum() == 12 * 6
    assert frame["explored"].sum() == pytest.approx(12 * 4, abs=14)  # two standard deviations


@pytest.mark.parametrize("point", ["score.computed", "score.committed"])
def test_killed_run_draws_the_same_rows_again(tiny_bundle: Path, tmp_path: Path, point: str) -> None:
    """What a run in one piece draws is what is drawn after SIGKILL."""
    policy = {"budget": {"rows": 10, "per": "batch"}, "explore": 0.5}
    killed, whole = (site_of(tmp_path / name, tiny_bundle, policy) for name in ("killed", "whole"))
    for site in (killed, whole):
        site.add(150)

    assert run(killed.folder, f"{point}:1") == KILLED
    score(killed)
    score(whole)

    wanted = ["id", "explored", "chance", "flagged"]
    pd.testing.assert_frame_equal(explored(killed)[wanted], explored(whole)[wanted])
    assert explored(whole)["explored"].any()
    assert killed.count() == NOTHING_WRONG


def test_rows_without_a_key_are_sampled_by_file_and_row(tmp_path: Path) -> None:
    """Where they come from names them, so it does not matter how files are put together to batches."""
    schema = Schema(time="at", numeric=("amount", "fee"))
    detector = TabularDetector(schema=schema, members=("forest",), trees=20).fit(draw(300, first=0, seed=0))
    bundle = save(detector.scorer_, tmp_path / "keyless")
    policy = {"budget": {"rows": 10, "per": "day"}, "explore": 0.5, "rows_a_day": 30}
    drawn = []
    for name, settings in (("together", {}), ("apart", {"batch_rows": 1})):
        site = Site(tmp_path / name, bundle, "files to files", policy=policy, settings=settings)
        file = site.folder / "detector.yaml"
        file.write_text(file.read_text().replace("key: id", "time: at"))
        for _ in range(3):
            site.add(40)
        score(site)
        frame = explored(site)
        drawn.append(frame.loc[(frame["chance"] < 1) & frame["explored"], ["file", "row"]].to_numpy().tolist())
        flagged = frame.loc[frame["flagged"], ["file", "row"]].to_numpy().tolist()

    lots = [(file, row) for file, row in frame[["file", "row"]].itertuples(index=False)]
    wanted = [list(name) for name, lot in zip(lots, AuditSample(rows=1).uniform(lots), strict=True) if lot < 5 / 30]
    assert frame["batch"].nunique() == 3
    assert drawn[1] == [name for name in wanted if name not in flagged] != []
    assert all(name in wanted for name in drawn[0])


def test_evaluation_tells_what_is_missed() -> None:
    """Per day, from labelled rows that were drawn, and never where the chance cannot be known again."""
    n = 30_000
    at = pd.Timestamp("2026-01-01") + pd.to_timedelta(np.arange(n) // 10_000, unit="D")
    rows = pd.DataFrame({"id": np.arange(n), "at": at})
    verdicts = pd.DataFrame({"flagged": np.arange(n) % 100 == 0, "truth": (np.arange(n) % 20 == 1).astype(float)})
    schema = Schema(key="id", time="at", numeric=("amount",))

    def missed_note(**policy: Any) -> str | None:
        config = Config.model_validate({"source": {"path": "a.csv"}, "policy": policy})
        return _missed(rows, verdicts, config=config, schema=schema)

    def _a_day(text: str | None) -> float:
        assert text is not None
        return float(text.split()[1])

    explore = {"budget": {"rows": 5_000, "per": "day"}, "explore": 0.6, "rows_a_day": 10_000}
    assert _a_day(missed_note(**explore)) == pytest.approx(500, rel=0.1)  # of 10,000 rows a day one in 20
    assert missed_note(budget={"rows": 500, "per": "batch"}, explore=0.6) is None
    assert missed_note(quantile=0.9) is None
    verdicts["truth"] = np.nan
    assert "what is missed is unknown" in str(missed_note(**explore))
