"""What reports and verdicts say of rows, in the features of every job: as it was known at each row's time."""

from __future__ import annotations

import os
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from detector.persist import bundle
from pipelines.config import Config, load_config
from pipelines.factory.training_period import recent
from pipelines.features.engine import FeatureEngine, history_folder
from pipelines.features.feature_state import feature_state_of
from pipelines.features.featured_rows import FeaturedRows
from pipelines.jobs.context import Context, JobOutcome, ProcessCache
from pipelines.monitoring.drift import watch
from pipelines.scoring.job import score_new
from pipelines.scoring.one_off import score
from pipelines.scoring.replay import replay
from pipelines.sources import open_source
from pipelines.store import Store, open_store
from pipelines.training.retrain import retrain
from pipelines.training.train import train
from tests.payment_sites import PAYMENTS, SETTINGS
from tests.service_sites import pushed
from tests.test_labels import say

RISK = ["risk_30d_by_merchant_category_delay_1d", "frauds_30d_by_card_id_delay_2d"]
LEARNT, EVERY = 500, 250
UNLABELLED: dict[str, Any] = SETTINGS | {
    "columns": {name: value for name, value in SETTINGS["columns"].items() if name != "label"},
    "features": {
        "history": ["risk by merchant_category over 30d delay 1d", "frauds by card_id over 30d delay 2d"],
    },
    "train": SETTINGS["train"]
    | {"head": {"enabled": False, "reports": {"source": {"path": "chargebacks.csv"}, "key": "transaction_id"}}},
}


def statements() -> pd.DataFrame:
    """Of a third of all payments a chargeback, some days later; people say of some that they are fine, or fraud."""
    rng = np.random.default_rng(1)
    keys = PAYMENTS["transaction_id"].to_numpy()
    chosen = PAYMENTS[rng.random(len(PAYMENTS)) < 1 / 3]

    def about(rows: pd.DataFrame, said: str, by: str) -> pd.DataFrame:
        at = rows["at"] + pd.to_timedelta(rng.integers(3_600, 6 * 86_400, len(rows)), unit="s")
        return pd.DataFrame({"transaction_id": rows["transaction_id"], "said": said, "by": by, "at": at.dt.floor("s")})

    reports = about(chosen.assign(at=chosen["time"]), "fraud", "report")
    cleared = about(reports.sample(frac=0.3, random_state=1), "fine", "verdict")
    after_all = about(cleared.sample(frac=0.4, random_state=2), "fraud", "verdict")
    unknown = pd.DataFrame({"transaction_id": ["nobody"], "said": "fraud", "by": "report", "at": reports["at"].min()})
    assert set(reports["transaction_id"]) < set(keys)
    return pd.concat([reports, reports.head(20), cleared, after_all, unknown], ignore_index=True)


SAID = statements()


def settle(folder: Path, values: dict[str, Any], **sections: Any) -> Config:
    (folder / "in").mkdir(parents=True, exist_ok=True)
    (folder / "detector.yaml").write_text(yaml.safe_dump(values | sections), encoding="utf-8")
    return load_config(folder)


def tell(folder: Path, config: Config, *, until: pd.Timestamp = SAID["at"].max()) -> None:  # noqa: B008 - never changes
    """What is said up to a moment: the chargebacks as a whole, the answers that are new."""
    known, mark = SAID[SAID["at"] <= until], folder / "told.txt"
    after = pd.Timestamp(mark.read_text()) if mark.exists() else pd.Timestamp(0)
    mark.write_text(str(max(after, until)))
    reports = known[known["by"] == "report"].rename(columns={"at": "reported_at"})
    reports[["transaction_id", "reported_at"]].to_csv(folder / "chargebacks.csv", index=False)
    for _, each in known[(known["by"] == "verdict") & (known["at"] > after)].sort_values("at").iterrows():
        say(config, each["transaction_id"], each["said"], each["at"].to_pydatetime().replace(tzinfo=UTC))


def run(config: Config, now: pd.Timestamp, job: Any = score_new, **arguments: Any) -> JobOutcome:
    """One run as after a restart."""
    store = open_store(config.service.store)
    try:
        return run_in(store, config, now, job, **arguments)
    finally:
        store.close()


def run_in(
    store: Store,
    config: Config,
    now: pd.Timestamp,
    job: Any = score_new,
    cache: ProcessCache | None = None,
    **arguments: Any,
) -> JobOutcome:
    """One run of a service that goes on."""
    moment = now.to_pydatetime().replace(tzinfo=UTC)
    outcome: JobOutcome = job(Context(config, store, moment, arguments=arguments, cache=cache or ProcessCache()))
    return outcome


def expected(config: Config) -> pd.DataFrame:
    """The features of all payments, measured in one go when all is said that ever will be."""
    rows = FeatureEngine(config).compute(PAYMENTS).rows
    return rows.set_index("transaction_id")[RISK]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A detector without a label column that learnt from the first payments, by what was said until then."""
    folder = tmp_path_factory.mktemp("told")
    config = settle(folder, UNLABELLED, source={"path": "past.parquet"})
    PAYMENTS.iloc[:LEARNT].to_parquet(folder / "past.parquet")
    now = PAYMENTS["time"].iloc[LEARNT - 1]
    tell(folder, config, until=now)
    train(config, now=now.to_pydatetime().replace(tzinfo=UTC))
    return folder


@pytest.fixture
def home(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "home", symlinks=True))


@pytest.mark.parametrize(
    ("begin", "after"),
    [(0, "nothing"), (0, "restart"), (0, "loss"), (LEARNT, "nothing"), (LEARNT, "restart")],
    ids=["own past", "restart", "loss", "past of training", "restart on that"],
)
def test_service_measures_as_one_table_would(
    home: Path, monkeypatch: pytest.MonkeyPatch, begin: int, after: str
) -> None:
    """While reports and verdicts come in, are repeated and taken back, each batch counts what was said before its rows.

    That holds also for what is said of the rows of training, after a restart, and after a loss.
    """
    config = settle(home, UNLABELLED)
    seen = pushed(monkeypatch)
    store, cache = open_store(config.service.store), ProcessCache()
    for number, first in enumerate(range(begin, len(PAYMENTS), EVERY)):
        part = PAYMENTS.iloc[first : first + EVERY]
        until = part["time"].max()
        tell(home, config, until=until)
        path = home / "in" / f"part{number}.parquet"
        part.sample(frac=1, random_state=number).to_parquet(path)
        os.utime(path, (until.replace(tzinfo=UTC).timestamp(),) * 2)
        if after == "loss":
            shutil.rmtree(history_folder(config) / config.name, ignore_errors=True)
        now = until + timedelta(hours=1)
        found = run_in(store, config, now, cache=cache) if after == "nothing" else run(config, now)
        assert found.rows == len(part)
    store.close()
    tell(home, config)

    measured = pd.concat([each.rows for each in seen]).set_index("transaction_id")[RISK]

    whole = expected(config).loc[measured.index]
    assert (whole.iloc[-EVERY:] > 0).mean().min() > 0.3
    pd.testing.assert_frame_equal(measured, whole, check_exact=True)


def test_renamed_file_of_reports_costs_no_state(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What training knew of the cards goes on where the same reports have another name."""
    head = UNLABELLED["train"]["head"]
    reports = head["reports"] | {"source": {"path": "disputes.csv"}}
    config = settle(home, UNLABELLED, train=UNLABELLED["train"] | {"head": head | {"reports": reports}})
    tell(home, config)
    (home / "chargebacks.csv").rename(home / "disputes.csv")
    seen = pushed(monkeypatch)
    part = PAYMENTS.iloc[LEARNT : LEARNT + EVERY]
    part.to_parquet(home / "in" / "part.parquet")
    os.utime(home / "in" / "part.parquet", (0, 0))

    assert run(config, part["time"].max() + timedelta(hours=1)).rows == EVERY

    measured = pd.concat([each.rows for each in seen]).set_index("transaction_id")[RISK]
    assert (measured > 0).mean().min() > 0.2
    pd.testing.assert_frame_equal(measured, expected(config).loc[measured.index], check_exact=True)


def test_replay_knows_what_was_said_by_then(home: Path) -> None:
    """Scored again after all was said, a batch has the scores that it had."""
    config = settle(home, UNLABELLED)
    tell(home, config)
    for number, first in enumerate((0, 1_000)):
        path = home / "in" / f"part{number}.parquet"
        PAYMENTS.iloc[first : first + 1_000].to_parquet(path)
        os.utime(path, (0, 0))
        run(config, SAID["at"].max())

    def scores() -> pd.Series:
        found = [pd.read_parquet(path) for path in (home / "scores").glob("*.parquet")]
        return pd.concat(found).set_index("transaction_id")["risk"].sort_index()

    before = scores()

    assert run(config, SAID["at"].max(), replay, batches=[2]).rows == 500

    pd.testing.assert_series_equal(scores(), before, rtol=1e-6)


def test_scoring_by_hand_knows_what_was_said_since_training(home: Path) -> None:
    """A chargeback of a row that the detector learnt from counts in the scores of later rows."""
    config = settle(home, UNLABELLED)
    tell(home, config)
    fresh = PAYMENTS.iloc[LEARNT:]
    fresh.to_parquet(home / "fresh.parquet")

    score(config, input=str(home / "fresh.parquet"), now=datetime(2026, 6, 1, tzinfo=UTC))

    rows = FeatureEngine(config).compute(PAYMENTS).rows.iloc[LEARNT:]
    risk = bundle.load(config.bundle).measure(rows.reset_index(drop=True))["risk"]
    found = pd.read_parquet(home / "scores.parquet")["risk"]
    np.testing.assert_allclose(found, risk, rtol=1e-6)


def test_retraining_and_drift_know_what_was_said(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They measure the rows as one table would, also without a label column."""
    PAYMENTS.to_parquet(home / "all.parquet")
    config = settle(home, UNLABELLED, source={"path": "all.parquet"}, retrain=SETTINGS["retrain"] | {"days": 20})
    tell(home, config)
    now = datetime(2026, 6, 1, tzinfo=UTC)

    found = recent(open_source(config.source), config, now=now, engine=FeatureEngine(config))

    found = found.set_index("transaction_id")[RISK]
    pd.testing.assert_frame_equal(found, expected(config).loc[found.index], check_exact=True)
    assert retrain(config, now=now).challenger
    looked: list[pd.DataFrame] = []
    compute = FeatureEngine.compute

    def watched(*args: Any, **given: Any) -> FeaturedRows:
        computed = compute(*args, **given)
        looked.append(computed.rows)
        return computed

    monkeypatch.setattr(FeatureEngine, "compute", watched)
    watch(config, now=now)
    (rows,) = looked
    assert rows[RISK].max().min() > 0


def test_verdicts_that_shall_not_count_make_no_features(home: Path) -> None:
    """With ``train.head.verdicts: false`` chargebacks stand, whatever people answered."""
    config = settle(home, UNLABELLED)
    tell(home, config)
    head = UNLABELLED["train"]["head"] | {"verdicts": False}
    deaf = settle(home, UNLABELLED, train=UNLABELLED["train"] | {"head": head})

    assert (expected(deaf)[RISK[1]] >= expected(config)[RISK[1]]).all()
    assert expected(deaf)[RISK[1]].sum() > expected(config)[RISK[1]].sum()


def test_service_goes_on_while_reports_are_missing(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    """No batch fails: what was known before stands, one warning says so, and what comes counts from the next batch."""
    config = settle(home, UNLABELLED)
    file, aside = home / "chargebacks.csv", home / "aside.csv"
    tell(home, config)
    file.rename(aside)
    store, cache = open_store(config.service.store), ProcessCache()
    counts = []

    for number, first in enumerate(range(0, 1_000, EVERY)):
        part = PAYMENTS.iloc[first : first + EVERY]
        part.to_parquet(home / "in" / f"part{number}.parquet")
        os.utime(home / "in" / f"part{number}.parquet", (part["time"].max().replace(tzinfo=UTC).timestamp(),) * 2)
        if number == 2:
            aside.rename(file)
        elif number == 3:
            file.unlink()
        now = part["time"].max() + timedelta(days=number, hours=1)
        assert run_in(store, config, now, cache=cache).rows == EVERY
        reader = feature_state_of(config, store, cache).engine.reader
        counts.append(0 if reader._statements is None else len(reader._statements.reports))
    store.close()

    assert counts[:2] == [0, 0]
    assert counts[2] == counts[3] > 0
    assert sum("what was known before stands" in record.message for record in caplog.records) == 2
