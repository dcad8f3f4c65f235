"""Projects whose detector scores payments with features of each card's past, and what became of the payments."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from detector.persist import bundle
from pipelines.config import Config, load_config
from pipelines.features.engine import FeatureEngine
from pipelines.jobs.context import Context, JobOutcome
from pipelines.scoring.job import score_new
from pipelines.simulate import simulate_transactions
from pipelines.store import open_store
from pipelines.training.train import train

START = datetime(2026, 3, 1, tzinfo=UTC)
SETTINGS: dict[str, Any] = {
    "name": "payments",
    "source": {"path": "in/*.parquet"},
    "columns": {
        "key": "transaction_id",
        "time": "time",
        "entity": "card_id",
        "label": "is_fraud",
        "numeric": ["amount"],
        "others": "ignore",
    },
    "features": {
        "history": [
            "count by card_id over 1d",
            "ratio of amount by card_id over 30d",
            "risk by merchant_category over 30d delay 1d",
        ]
    },
    "train": {"autoencoder": {"enabled": False}, "neighbours": {"enabled": False}, "forest": {"trees": 20}},
    "policy": {"quantile": 0.98},
    "output": {"path": "scores.parquet"},
    "retrain": {"days": 10, "least_rows": 50, "label_delay_days": 1},
    "drift": {"least_rows": 50},
    "tracking": {"enabled": False},
    "alerts": {"enabled": False},
}
PAYMENTS = simulate_transactions(1_500, start=START.replace(tzinfo=None), days=30, seed=3)
LATER = START + timedelta(days=60)


def settle(folder: Path, **sections: Any) -> Config:
    (folder / "in").mkdir(parents=True, exist_ok=True)
    (folder / "detector.yaml").write_text(yaml.safe_dump(SETTINGS | sections), encoding="utf-8")
    return load_config(folder)


def put(folder: Path, name: str, rows: pd.DataFrame) -> None:
    path = folder / "in" / f"{name}.parquet"
    rows.to_parquet(path)
    moment = LATER.timestamp() - 3_600
    os.utime(path, (moment, moment))


def run(config: Config, job: Any = score_new, **arguments: Any) -> JobOutcome:
    """One run as after a restart: nothing is left in memory."""
    store = open_store(config.service.store)
    try:
        outcome: JobOutcome = job(Context(config, store, LATER, arguments=arguments))
        return outcome
    finally:
        store.close()


def score_and_restore(home: Path, config: Config) -> None:
    """Score two parts, put back the database as it was after the first, and bring the second again with the rest."""
    put(home, "part1", PAYMENTS.iloc[:800])
    run(config)
    shutil.copy(home / "service.db", home / "backup.db")
    put(home, "part2", PAYMENTS.iloc[800:1_200])
    run(config)
    shutil.copy(home / "backup.db", home / "service.db")
    for leftover in home.glob("service.db-*"):
        leftover.unlink()
    shutil.rmtree(home / "scores")
    put(home, "part2", PAYMENTS.iloc[800:])


def run_until_killed(folder: Path, point: str) -> None:
    """Score in a process that is killed at a failpoint, with a snapshot of the past after each batch."""
    code = (
        "import sys\nfrom tests import payment_sites\nfrom pathlib import Path\n"
        "from pipelines.features import feature_state\n"
        "feature_state.BATCHES = 1\n"
        "payment_sites.run(payment_sites.load_config(Path(sys.argv[1])))\n"
    )
    # The first snapshot is the one before the first batch; the second is the one after it.
    number = 2 if point.startswith("past.snap") else 1
    killed = subprocess.run(
        [sys.executable, "-c", code, str(folder)],
        cwd=Path(__file__).parents[1],
        check=False,
        env=os.environ | {"DETECTOR_FAULT": f"{point}:{number}"},
    )
    assert killed.returncode == -signal.SIGKILL


def scores(folder: Path) -> pd.Series:
    found = [pd.read_parquet(path) for path in (folder / "scores").glob("*.parquet")]
    return pd.concat(found).set_index("transaction_id")["risk"].sort_index()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a detector that learnt from the first half of the payments, which lie elsewhere."""
    folder = tmp_path_factory.mktemp("trained")
    config = settle(folder, source={"path": "past.parquet"})
    PAYMENTS.iloc[:750].to_parquet(folder / "past.parquet")
    train(config, now=LATER)
    return folder


@pytest.fixture
def home(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "home", symlinks=True))


def expected(
    config: Config, begin: int, *, before: pd.DataFrame | None = None, rows: pd.DataFrame = PAYMENTS
) -> pd.Series:
    """The risk of payments from one on, their features measured in one go."""
    engine = FeatureEngine(config)
    known = None if before is None else engine.typed(before)
    rows = engine.compute(rows.iloc[begin:], before=known).rows
    scorer = bundle.load(config.bundle)
    risk = scorer.measure(rows.reset_index(drop=True))["risk"]
    return pd.Series(risk.to_numpy(), index=rows["transaction_id"].to_numpy(), name="risk").sort_index()
