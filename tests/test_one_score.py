"""One score on every path: whatever job scores a row, it has the same risk, p-value, decision and reasons."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from detector.cleaning.clean import clean
from detector.decide.policy import Policy
from detector.detectors.table.scorer import TabularScorer
from detector.explain.reason import in_words
from detector.persist import bundle
from pipelines.backtest.plan import Plan
from pipelines.backtest.run import backtest
from pipelines.config import Config, load_config
from pipelines.factory.training_period import TrainingPeriod
from pipelines.jobs.context import Context
from pipelines.monitoring.drift import watch
from pipelines.registry.registry import ModelRegistry
from pipelines.scoring.job import score_new
from pipelines.scoring.one_off import score
from pipelines.scoring.replay import backfill, replay
from pipelines.scoring.shadow import begin_shadow
from pipelines.store import open_store
from pipelines.training.comparison import compare_on
from pipelines.training.evaluate import evaluate
from pipelines.training.review import review_table
from pipelines.training.series_review import review_series
from tests.sensor_sites import NAMES, SensorSite, bundle_of, detector, pump_rows

NOW = datetime(2027, 1, 1, tzinfo=UTC)
POLICY = {"quantile": 0.95, "budget": {"rows": 4, "per": "day"}}
SCORE = ["risk", "p_value", "flagged", "reasons"]


@pytest.fixture
def site(trained: Path, configure: Callable[..., Config], payments: pd.DataFrame) -> Config:
    """A trained project whose source is a folder that holds all payments."""
    (trained / "in").mkdir()
    payments.to_parquet(trained / "in" / "all.parquet")
    os.utime(trained / "in" / "all.parquet", (0, 0))
    service = {"store": "sqlite:///service.db", "settle": 0, "port": 0}
    return configure(trained, source={"path": "in"}, policy=POLICY, service=service, retrain={"shadow_days": 3})


@pytest.fixture
def expected(site: Config, payments: pd.DataFrame) -> pd.DataFrame:
    """What the detector says of all rows in one call, by key."""
    scorer = bundle.load(site.bundle)
    assert isinstance(scorer, TabularScorer)
    found = scorer.score(clean(payments, scorer.schema).rows, policy_of(scorer))
    assert 10 < found["flagged"].sum() < len(found) / 4
    return by_key(found.assign(reasons=[in_words(each) for each in found["reasons"]]))


def policy_of(scorer: Any) -> Policy:
    from pipelines.config.policy import PolicySection
    from pipelines.factory.detector import policy_of as made

    return made(PolicySection.model_validate(POLICY), scorer.schema)


def by_key(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.set_index("transaction_id")[SCORE].sort_index()


def same(found: pd.DataFrame, expected: pd.DataFrame, *, without: tuple[str, ...] = ()) -> None:
    """The same numbers to the last digit that a file keeps, and the same decisions and reasons."""
    names = [name for name in expected if name not in without]
    pd.testing.assert_frame_equal(found[names], expected.loc[found.index, names], check_dtype=False, rtol=1e-12)


def run(config: Config, job: Any, **arguments: Any) -> None:
    store = open_store(config.service.store)
    try:
        job(Context(config, store, NOW, arguments=arguments))
    finally:
        store.close()


def service_scores(config: Config) -> pd.DataFrame:
    files = sorted((config.bundle.parent / "scores").glob("batch-*.parquet"))
    return by_key(pd.concat([pd.read_parquet(file) for file in files]))


def test_command_and_service_score_alike(site: Config, expected: pd.DataFrame) -> None:
    """``detector score``, the service, a replay; each over all rows at once."""
    same(by_key(pd.read_parquet(score(site, now=NOW).output)), expected)

    run(site, score_new)
    same(service_scores(site), expected)

    run(site, replay)
    same(service_scores(site), expected)


def test_backfill_scores_alike(trained: Path, site: Config, expected: pd.DataFrame) -> None:
    """Rows that were there before the service began."""
    values = yaml.safe_load((trained / "detector.yaml").read_text(encoding="utf-8"))
    values["service"]["start"] = "new"
    (trained / "detector.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    late = load_config(trained)

    run(late, score_new)
    run(late, backfill)

    same(service_scores(late), expected)


def test_days_that_come_in_parts_keep_their_budget(
    trained: Path, site: Config, payments: pd.DataFrame, expected: pd.DataFrame
) -> None:
    """Cut into batches, rows have the same risks, and champion and challenger flag as many of a day as allowed."""
    (trained / "in" / "all.parquet").unlink()
    for number in range(4):
        file = trained / "in" / f"{number}.parquet"
        payments.iloc[number::4].to_parquet(file)
        os.utime(file, (number, number))
    values = yaml.safe_load((trained / "detector.yaml").read_text(encoding="utf-8"))
    values["service"]["batch_rows"] = 300
    (trained / "detector.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    parted = load_config(trained)
    shelf = ModelRegistry(parted.bundle)
    shelf.adopt(now=NOW)
    begin_shadow(parted, str(shelf.state().champion), reason="", now=NOW)

    run(parted, score_new)

    found = service_scores(parted)
    same(found, expected, without=("flagged", "reasons"))
    trial = pd.concat([pd.read_parquet(file) for file in (shelf.folder / "shadow").rglob("*.parquet")])
    trial = trial.set_index("transaction_id").sort_index()
    assert len(trial) == len(payments)
    assert trial["flagged_challenger"].equals(trial["flagged_champion"])
    a_day = trial[trial["flagged_challenger"]].groupby(trial["time"].dt.date).size()
    assert a_day.max() == POLICY["budget"]["rows"]


def test_shadow_scores_alike(site: Config, expected: pd.DataFrame) -> None:
    """A challenger that is the champion says what the champion says."""
    shelf = ModelRegistry(site.bundle)
    shelf.adopt(now=NOW)
    begin_shadow(site, str(shelf.state().champion), reason="", now=NOW)

    run(site, score_new)

    (file,) = (shelf.folder / "shadow").rglob("*.parquet")
    both = pd.read_parquet(file).set_index("transaction_id").sort_index()
    for side in ("challenger", "champion"):
        found = both[[f"{name}_{side}" for name in SCORE[:3]]].set_axis(SCORE[:3], axis=1)
        same(found, expected, without=("reasons",))


def test_reviews_score_alike(site: Config, expected: pd.DataFrame, payments: pd.DataFrame) -> None:
    """A review and an evaluation; their reasons are those of the riskiest flagged rows."""
    scorer = bundle.load(site.bundle)
    reviews = [
        review_table(scorer, clean(payments, scorer.schema).rows, policy=policy_of(scorer)),
        evaluate(site, input=str(site.source.path), now=NOW).reviewed,
    ]

    for found in reviews:
        same(found.scored.set_index("transaction_id").sort_index(), expected, without=("reasons",))
        alerts = found.alerts.set_index("transaction_id")
        assert [in_words(each) for each in found.reasons] == expected.loc[alerts.index, "reasons"].tolist()


def test_comparison_scores_alike(site: Config, expected: pd.DataFrame, payments: pd.DataFrame) -> None:
    """A detector compared with itself."""
    scorer = bundle.load(site.bundle)
    rows = clean(payments, scorer.schema).rows
    window = TrainingPeriod(scorer.schema, rows, rows, payments, np.full(len(rows), np.nan), 0, "", "", 21.0, None, 0)

    found = compare_on(window, scorer, scorer, site)

    keys = pd.Index(rows["transaction_id"])
    for side in (found.champion, found.challenger):
        assert side.alerts == pytest.approx(expected["flagged"].sum() / 21)
        scores = pd.DataFrame({"risk": side.risk, "p_value": side.p_value}, index=keys).sort_index()
        same(scores, expected[["risk", "p_value"]])


def test_drift_and_backtest_score_by_the_same_way(
    site: Config, expected: pd.DataFrame, payments: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Drift has the serving detector score; a backtest its own, which is scored here once more."""
    seen: list[tuple[TabularScorer, pd.DataFrame, pd.DataFrame]] = []
    original = TabularScorer.score

    def watched(self: TabularScorer, rows: pd.DataFrame, policy: Policy, **given: Any) -> pd.DataFrame:
        found = original(self, rows, policy, **given)
        seen.append((self, rows, found))
        return found

    monkeypatch.setattr(TabularScorer, "score", watched)
    shelf = ModelRegistry(site.bundle)
    shelf.adopt(now=NOW)
    (shelf.folder / "drift.json").write_text('{"looked_until": "2000-01-01T00:00:00"}', encoding="utf-8")

    report = watch(site, now=NOW)

    ((_, _, found),) = seen
    same(by_key(found), expected, without=("reasons",))
    assert report.alerts_a_day == pytest.approx(found["flagged"].sum() / span_in_days(payments))
    seen.clear()
    first = payments["time"].min().normalize()
    plan = Plan(first + pd.Timedelta(14, "D"), first + pd.Timedelta(17, "D"), every="3d", train="7d", delay="2d", k=5)
    backtest(site, plan, now=NOW)
    assert seen
    for scorer, rows, found in seen:
        expected = scorer.measure(rows)
        assert np.array_equal(found["risk"], expected["risk"])
        flagged = policy_of(scorer).decide(expected["p_value"], expected["risk"], day=rows["time"])
        assert np.array_equal(found["flagged"], flagged)


def span_in_days(payments: pd.DataFrame) -> float:
    return (payments["time"].max() - payments["time"].min()).total_seconds() / 86_400


def test_series_score_alike_on_every_path(tmp_path: Path) -> None:
    """Readings scored whole, in batches, reviewed and compared."""
    site = SensorSite(tmp_path / "site", bundle_of(tmp_path))
    site.rows = pump_rows(300)
    site.rows.loc[300:320, "flow"] = 20.0
    config, policy = load_config(site.folder), Policy(quantile=0.998)
    scorer = detector().scorer_
    rows = clean(site.rows, scorer.schema).rows
    found = scorer.score(rows, policy)
    expected = found.assign(reasons=[in_words(each) for each in found["reasons"]]).set_index("id")[SCORE]
    assert 5 < expected["flagged"].sum() < 200
    for start in range(0, 600, 150):
        site.put(site.rows.iloc[start : start + 150])

    report = score(config, input=str(site.input), now=NOW)
    run(config, score_new)

    def close(found: pd.DataFrame, names: list[str]) -> None:
        pd.testing.assert_frame_equal(
            found.astype({"id": int}).set_index("id").sort_index()[names],
            expected[names],
            check_dtype=False,
            rtol=1e-4,
            atol=1e-5,
        )

    close(pd.read_parquet(report.output), SCORE)
    close(site.scores(), SCORE)
    reviewed, _ = review_series(scorer, rows, policy=policy, join=0)
    close(reviewed.scored.assign(id=rows["id"]), SCORE[:3])
    window = TrainingPeriod(scorer.schema, rows, rows, site.rows, np.full(len(rows), np.nan), 0, "", "", 1.0, None, 0)
    same_twice = compare_on(window, scorer, scorer, config)
    assert same_twice.champion.alerts == expected["flagged"].sum()
    assert len(NAMES) == 2


def test_series_in_groups_score_each_key_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that came in another group of machines is told and left out, as where all are scored at once."""
    site = SensorSite(tmp_path / "site", bundle_of(tmp_path))
    rows = pump_rows(100)
    of_a, of_b = (rows.index[rows["pump"] == name] for name in NAMES)
    rows.loc[of_b[-1], "id"] = rows.loc[of_a[-1], "id"]
    rows.to_csv(tmp_path / "rows.csv", index=False)
    config, said = load_config(site.folder), []
    for most in (10**6, 150):
        monkeypatch.setattr("pipelines.scoring.series_spool.ROWS_AT_ONCE", most)
        place = str(tmp_path / f"{most}.parquet")
        report = score(config, input=str(tmp_path / "rows.csv"), output=place, now=NOW)
        scored, left_out = pd.read_parquet(place), pd.read_csv(report.quarantine)
        assert (report.scored, scored["id"].nunique(), len(left_out)) == (199, 199, 1)
        said.append(left_out["reason"].iloc[0])

    assert all("appears again" in reason for reason in said)
    assert "earlier part" in said[1]
