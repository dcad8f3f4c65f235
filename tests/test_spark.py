"""Scoring on Spark, beside scoring on this machine alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from pipelines.config import Config, load_config
from pipelines.simulate import simulate_transactions
from pipelines.training.train import train
from tests.spark_sites import MISSING, NOW, PARTITIONS, assert_as_local, local_spark

pytestmark = [pytest.mark.slow, pytest.mark.skipif(MISSING is not None, reason=str(MISSING))]

COLUMNS = ["transaction_id", "time", "card_id", "terminal_id", "channel", "country", "amount", "is_fraud"]
SETTINGS: dict[str, Any] = {
    "name": "payments",
    "source": {"path": "past.parquet"},
    "columns": {
        "key": "transaction_id",
        "time": "time",
        "entity": "card_id",
        "label": "is_fraud",
        "numeric": ["amount"],
        "categorical": ["channel", "country"],
        "others": "ignore",
    },
    "train": {"autoencoder": {"enabled": False}, "forest": {"trees": 30}},
    "policy": {"quantile": 0.98},
    "tracking": {"enabled": False},
}
FEATURES = {
    "history": [
        "count by card_id over 1d, 7d",
        "ratio of amount by card_id over 30d",
        "new of terminal_id by card_id over 30d",
        "mean of amount by terminal_id over 7d",
        "risk by terminal_id over 14d delay 2d",
        "count by card_id, terminal_id over 30d",
    ],
    "calendar": ["night", "weekday_sin"],
}


@pytest.fixture(scope="module", autouse=True)
def spark() -> Iterator[Any]:
    """One Spark for all these tests."""
    with local_spark() as session:
        yield session


def site(folder: Path, **sections: Any) -> Config:
    (folder / "detector.yaml").write_text(yaml.safe_dump(SETTINGS | sections), encoding="utf-8")
    return load_config(folder)


def skewed(payments: pd.DataFrame) -> pd.DataFrame:
    """Payments of which four in ten are of one card, and one in ten are of none."""
    rng = np.random.default_rng(4)
    draw = rng.random(len(payments))
    return payments.assign(
        card_id=np.where(draw < 0.4, payments["card_id"].iloc[0], np.where(draw > 0.9, None, payments["card_id"]))
    )


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A detector without features, and new rows in eight files."""
    folder = tmp_path_factory.mktemp("plain")
    payments = simulate_transactions(2_600, seed=3, days=21, fraud_rate=0.04)[COLUMNS]
    payments.iloc[:1_400].to_parquet(folder / "past.parquet")
    (folder / "fresh").mkdir()
    for number, part in enumerate(np.array_split(np.arange(1_400, 2_600), PARTITIONS)):
        payments.iloc[part].to_parquet(folder / "fresh" / f"part-{9 - number}.parquet")
    train(site(folder), now=NOW)
    return folder


@pytest.fixture(scope="module")
def featured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A detector with features by card, by terminal and by both."""
    folder = tmp_path_factory.mktemp("featured")
    payments = skewed(simulate_transactions(3_000, seed=3, days=40, fraud_rate=0.03))[COLUMNS]
    payments.iloc[:2_000].to_parquet(folder / "past.parquet")
    payments.iloc[2_000:].to_parquet(folder / "fresh.parquet")
    train(site(folder, features=FEATURES), now=NOW)
    return folder


@pytest.mark.parametrize(
    "policy",
    [
        {"quantile": 0.98},
        {"budget": {"rows": 7, "per": "batch"}},
        {"quantile": 0.9, "budget": {"rows": 2, "per": "day"}, "explore": 0.5},
        {"fdr": 0.3},
        {"fdr": 0.0001},
        {"quantile": 0.9, "fdr": 0.5, "budget": {"rows": 3, "per": "day"}},
    ],
    ids=str,
)
def test_every_policy_flags_what_it_flags_locally(plain: Path, tmp_path: Path, policy: dict[str, Any]) -> None:
    """Budgets and rates are those of all rows, not of a partition; risks, reasons and notes are the same, too."""
    local, spark = assert_as_local(
        site(plain, policy=policy), tmp_path, input=str(plain / "fresh"), by="transaction_id"
    )

    assert local.scored == 1_200
    assert spark.neighbours == ({} if "fdr" in policy else local.neighbours)
    assert local.flagged > 0
