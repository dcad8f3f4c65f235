"""The past of entities in the service: it moves with the cursor, survives kills, and can be built anew."""

from __future__ import annotations

import os
import re
import shutil
import time
from pathlib import Path

import pandas as pd
import pytest
import sqlalchemy as sa

from detector.errors import BundleError, DataError
from detector.persist import bundle
from pipelines.features.engine import history_folder
from pipelines.jobs.context import Context, ProcessCache
from pipelines.monitoring.drift import watch
from pipelines.registry.registry import ModelRegistry
from pipelines.scoring.job import score_new
from pipelines.scoring.load import load_scorer
from pipelines.scoring.replay import backfill, replay
from pipelines.scoring.shadow import begin_shadow
from pipelines.service.facts import Facts
from pipelines.store import open_store
from pipelines.training.retrain import retrain
from tests import payment_sites
from tests.payment_sites import (
    LATER,
    PAYMENTS,
    SETTINGS,
    expected,
    put,
    run,
    run_until_killed,
    score_and_restore,
    scores,
    settle,
)
from tests.service_sites import pushed

home, trained = payment_sites.home, payment_sites.trained


def test_batches_go_on_from_the_past_of_training(home: Path) -> None:
    """Every batch is measured as if all rows ever had been measured at once, however the source is cut."""
    config = settle(home)
    for number, begin in enumerate(range(750, 1_500, 250)):
        put(home, f"part{number}", PAYMENTS.iloc[begin : begin + 250].sample(frac=1, random_state=number))
        assert run(config).rows == 250

    pd.testing.assert_series_equal(
        scores(home), expected(config, 750, before=PAYMENTS.iloc[:750]), check_names=False, rtol=1e-6
    )


def test_source_that_begins_earlier_has_its_own_past(home: Path) -> None:
    """Where the source holds the rows that training saw, the past begins with them and not after them."""
    config = settle(home)
    put(home, "all", PAYMENTS)

    assert run(config).facts["quarantined"] == 0
    pd.testing.assert_series_equal(scores(home), expected(config, 0), check_names=False, rtol=1e-6)


def test_late_row_of_the_first_batch_costs_no_state(home: Path) -> None:
    """One row from before the end of training is quarantined; the others are measured against what training saw."""
    config, late = settle(home), PAYMENTS.iloc[[600]].assign(transaction_id="late")
    put(home, "part1", pd.concat([PAYMENTS.iloc[750:1_000], late]))

    assert run(config).facts["quarantined"] == 1

    fresh = expected(config, 750, before=PAYMENTS.iloc[:750], rows=PAYMENTS.iloc[:1_000])
    pd.testing.assert_series_equal(scores(home), fresh, check_names=False, rtol=1e-6)
    (file,) = (home / "scores.quarantine").glob("*.csv")
    assert pd.read_csv(file)["transaction_id"].tolist() == ["late"]


@pytest.mark.parametrize("what", ["missing", "broken", "of other labels"])
def test_scoring_waits_where_the_state_of_training_cannot_be_used(home: Path, what: str) -> None:
    """Never silently without: everything would be new, and many honest rows flagged."""
    file = history_folder(config := settle(home)) / "history.npz"
    if what == "missing":
        file.unlink()
    elif what == "broken":
        file.write_bytes(b"no archive")
    else:
        config = settle(home, columns=SETTINGS["columns"] | {"label": "wrong"})
    put(home, "part1", PAYMENTS.iloc[750:].assign(wrong=0))

    with pytest.raises((BundleError, DataError), match=r"Learn|Train again"):
        run(config)

    assert not list((home / "scores").glob("batch-*"))
    store = open_store(config.service.store)
    facts = Facts(config, store, is_leader=lambda: True, last_beat=time.monotonic)
    ready, found = facts.readiness()
    store.close()
    assert not ready
    assert re.search(r"Learn|Train again", found["detector"])


def test_rows_left_out_at_the_start_are_the_past(home: Path) -> None:
    """``start: new`` scores no old row, and remembers them all."""
    config = settle(home, service={"start": "new"})
    put(home, "old", PAYMENTS.iloc[:1_000])
    assert run(config).rows == 0
    put(home, "new", PAYMENTS.iloc[1_000:])

    assert run(config).rows == 500
    pd.testing.assert_series_equal(
        scores(home), expected(config, 1_000, before=PAYMENTS.iloc[:1_000]), check_names=False, rtol=1e-6
    )


def test_file_that_came_too_late_can_be_scored_after_all(home: Path) -> None:
    """Its rows are quarantined at first, and scored by a backfill as they were at their time; the others stay."""
    config = settle(home)
    for name, rows in (("a", PAYMENTS.iloc[750:1_000]), ("c", PAYMENTS.iloc[1_050:1_100])):
        put(home, name, rows)
        run(config)
    before = scores(home)
    put(home, "b", PAYMENTS.iloc[1_000:1_050])
    assert "too late" in str(run(config).facts["quarantined_by_reason"])
    late = PAYMENTS["transaction_id"].iloc[1_000:1_040]
    assert not scores(home).index.isin(late).any()

    run(config, backfill, files=["b.parquet"])

    found, wanted = scores(home), expected(config, 750)  # measured from the source, which begins there
    assert found.index.is_unique
    assert len(found) == 350
    pd.testing.assert_series_equal(found[late].sort_index(), wanted[late].sort_index(), check_names=False, rtol=1e-6)
    pd.testing.assert_series_equal(found[before.index], before)


@pytest.mark.parametrize(
    "point", ["score.computed", "past.write", "past.written", "past.snapshot", "past.snapped", "score.committed"]
)
def test_killed_run_leaves_the_past_as_it_should_be(home: Path, point: str) -> None:
    """After SIGKILL the same rows are measured against the same past, and the next ones against both."""
    config = settle(home)
    put(home, "part1", PAYMENTS.iloc[750:1_000])
    run_until_killed(home, point)
    put(home, "part2", PAYMENTS.iloc[1_000:])

    run(config)

    pd.testing.assert_series_equal(
        scores(home), expected(config, 750, before=PAYMENTS.iloc[:750]), check_names=False, rtol=1e-6
    )


@pytest.mark.parametrize("lost", ["folder", "snapshot", "batch"])
def test_lost_past_is_built_from_the_source(home: Path, lost: str) -> None:
    """A folder that was deleted, or a file that a power cut has emptied, costs a look at what was scored."""
    config = settle(home)
    put(home, "part1", PAYMENTS.iloc[:1_000])
    run(config)
    folder = history_folder(config)
    if lost == "folder":
        shutil.rmtree(folder)
    else:
        (file,) = (folder / config.name).glob("past-*.npz" if lost == "snapshot" else "batch-*.parquet")
        file.write_bytes(b"")
    put(home, "part2", PAYMENTS.iloc[1_000:])

    run(config)

    pd.testing.assert_series_equal(scores(home), expected(config, 0), check_names=False, rtol=1e-6)


def test_snapshot_ahead_of_a_restored_database_is_not_believed(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It knows rows that the database has not scored."""
    monkeypatch.setattr("pipelines.features.feature_state.BATCHES", 1)
    config = settle(home)
    score_and_restore(home, config)

    run(config)

    pd.testing.assert_series_equal(
        scores(home), expected(config, 0).loc[PAYMENTS["transaction_id"].iloc[800:].sort_values()],
        check_names=False, rtol=1e-6,
    )  # fmt: skip


@pytest.mark.parametrize("lost", [False, True], ids=["kept", "built anew"])
def test_rows_that_come_twice_are_in_the_past_once(home: Path, lost: bool) -> None:
    """A delivery that is repeated changes no count, nor does it where the past is built from the source."""
    config = settle(home, output={"url": f"sqlite:///{home / 'scores.db'}", "table": "scores"})
    put(home, "part1", PAYMENTS.iloc[:1_000])
    run(config)
    put(home, "part2", PAYMENTS.iloc[800:1_200])
    if lost:
        run(config)
        shutil.rmtree(history_folder(config))
    put(home, "part3", PAYMENTS.iloc[1_200:])

    run(config)

    engine = sa.create_engine(str(config.output.url))
    found = pd.read_sql("SELECT transaction_id, risk FROM scores", engine).set_index("transaction_id")["risk"]
    engine.dispose()
    pd.testing.assert_series_equal(found.sort_index(), expected(config, 0), check_names=False, rtol=1e-6)


def test_replay_measures_rows_as_they_were_at_their_time(home: Path) -> None:
    """The past has moved on since; scoring a batch again gives the same scores."""
    config = settle(home)
    for number, begin in enumerate(range(0, 1_500, 500)):
        put(home, f"part{number}", PAYMENTS.iloc[begin : begin + 500])
        run(config)
    before = scores(home)

    assert run(config, replay, batches=[2]).rows == 500

    pd.testing.assert_series_equal(scores(home), before, rtol=1e-6)


def test_table_is_measured_batch_by_batch(home: Path) -> None:
    """A table that grows, from the first row on; rows left out of the past are none."""
    engine = sa.create_engine(f"sqlite:///{home / 'bank.db'}")
    rows = PAYMENTS.assign(number=range(len(PAYMENTS)))
    config = settle(
        home,
        source={"url": str(engine.url), "table": "payments"},
        service={"cursor": "number", "lateness": 100, "batch_rows": 400},
    )
    for begin, end in ((0, 900), (900, 1_500)):
        rows.iloc[begin:end].to_sql("payments", engine, if_exists="append", index=False)
        assert run(config).rows == end - begin
    engine.dispose()

    pd.testing.assert_series_equal(scores(home), expected(config, 0), check_names=False, rtol=1e-6)
    before = scores(home)
    assert run(config, replay, batches=[3]).rows
    pd.testing.assert_series_equal(scores(home), before, rtol=1e-6)


def test_labels_that_come_later_are_learnt(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row found to be fraud after it was scored counts in the risk of the next ones."""
    config = settle(home)
    put(home, "part1", PAYMENTS.iloc[:1_000].assign(is_fraud=None))
    run(config)
    put(home, "part2", PAYMENTS.iloc[1_000:1_001])
    told = PAYMENTS.iloc[:1_000].assign(is_fraud=1)
    monkeypatch.setattr("pipelines.ingest.folder.FollowedFolder.passed", lambda *_: iter([told]))
    seen = pushed(monkeypatch)

    run(config)

    assert seen[-1].rows.iloc[0]["risk_30d_by_merchant_category_delay_1d"] == 1.0


@pytest.mark.parametrize("restarted", [False, True], ids=["in memory", "restarted"])
def test_another_label_column_makes_another_past(home: Path, restarted: bool) -> None:
    """Marks of the column that counted before are gone: the past is built anew by the new one."""
    columns, both = SETTINGS["columns"], PAYMENTS.assign(wrong=1)
    put(home, "part1", both.iloc[:1_000])
    store, cache = open_store((config := settle(home)).service.store), ProcessCache()
    score_new(Context(config, store, LATER, cache=cache))
    put(home, "part2", both.iloc[1_000:])
    config = settle(home, columns=columns | {"label": "wrong"})

    score_new(Context(config, store, LATER, cache=ProcessCache() if restarted else cache))

    store.close()
    fresh = expected(config, 0, rows=both).loc[PAYMENTS["transaction_id"].iloc[1_000:]]
    pd.testing.assert_series_equal(scores(home).loc[fresh.index], fresh, check_names=False, rtol=1e-6)


def test_detector_of_other_features_is_refused(home: Path) -> None:
    """Before anything is scored, with what to do."""
    config = settle(home, features={"history": ["count by card_id over 7d"]})
    put(home, "part1", PAYMENTS)

    with pytest.raises(DataError, match=r"without the feature 'count_7d_by_card_id'.*detector train"):
        run(config)


def test_file_without_a_needed_column_is_quarantined(home: Path) -> None:
    """With the name of the column; the others are scored."""
    config = settle(home)
    put(home, "part1", PAYMENTS.iloc[:800].drop(columns="merchant_category"))
    put(home, "part2", PAYMENTS.iloc[800:])

    outcome = run(config)

    assert outcome.facts["scored"] == 700
    assert "merchant_category" in str(outcome.facts["notices"])


def test_retraining_and_drift_measure_features(home: Path) -> None:
    """A challenger learns from the same features, and drift looks at them."""
    config = settle(home)
    put(home, "all", PAYMENTS)
    run(config)

    report = retrain(config, now=LATER)
    looked = watch(config, now=LATER)

    assert report.challenger
    scorer = bundle.load(ModelRegistry(config.bundle).path_of(report.challenger))
    assert "amount_ratio_30d_by_card_id" in scorer.schema.numeric
    assert "amount_ratio_30d_by_card_id" in {shift.name for shift in looked.shifts}


def test_file_that_scoring_has_quarantined_stops_no_other_job(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    """An empty and a malformed file: scoring goes on without them, and so do retraining and drift, which name them."""
    config = settle(home)
    put(home, "all", PAYMENTS)
    for name, content in (("empty.parquet", b""), ("malformed.parquet", b"PAR1 and no more")):
        (home / "in" / name).write_bytes(content)
        os.utime(home / "in" / name, (0, 0))
    assert run(config).rows == len(PAYMENTS)
    caplog.clear()

    report = retrain(config, now=LATER)
    looked = watch(config, now=LATER)

    assert report.challenger
    assert looked.rows
    named = [text for text in caplog.messages if "quarantined it" in text]
    assert len(named) == 2
    assert all("empty.parquet" in text and "malformed.parquet" in text for text in named)


def test_challenger_in_the_shadow_is_given_the_features(home: Path) -> None:
    """It scores the same rows."""
    config = settle(home, retrain={"shadow_days": 5})
    put(home, "part1", PAYMENTS.iloc[:1_000])
    registry = ModelRegistry(config.bundle)
    registry.adopt(now=LATER)
    begin_shadow(config, str(registry.state().champion), reason="", now=LATER)

    run(config)

    (kept,) = (registry.folder / "shadow").rglob("*.parquet")
    assert len(pd.read_parquet(kept)) == 1_000


def test_judge_speaks_of_the_history(home: Path) -> None:
    """Reasons of the service are in the words of those of `detector score`."""
    judge = load_scorer(settle(home), ProcessCache())
    put(home, "all", PAYMENTS)
    run(settle(home))

    found = pd.concat([pd.read_parquet(path) for path in (home / "scores").glob("*.parquet")])
    assert judge.version == found["model_version"].iloc[0]
    assert found.loc[found["flagged"], "reasons"].str.contains("times its 30-day mean").any()
