"""What holds for all tests: quiet libraries, no network, no screen, the same examples every time."""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
# The tests themselves run side by side: threads that wait for each other on a busy machine cost five times the work.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")

import gc
import shutil
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import typer.main
import typer.testing
import yaml
from hypothesis import settings

from detector.detectors.table.detector import TabularDetector
from detector.encoders.table import TableAutoencoder
from detector.schema import Schema
from detector.training.settings import Training
from pipelines.config import Config, load_config
from pipelines.simulate import simulate_transactions
from pipelines.store import Store, open_store
from tests.postgres_server import PostgresServer, running_postgres

collect_ignore_glob = ["fixtures/*"]  # made by another version

settings.register_profile("steady", derandomize=True, deadline=None, max_examples=50)
settings.load_profile("steady")

# A command is built from its functions' signatures for as long as it runs; here the same one runs hundreds of times.
typer.testing._get_command = cache(typer.main.get_command)

# Files of tests that take longest, longest first: begun first, they do not keep one process busy at the end.
LONGEST = (
    "test_spark",
    "test_compiled",
    "test_notebooks",
    "test_site_in_browser",
    "test_retrain",
    "test_sequence",
    "test_tabular",
    "test_encoder_kinds",
    "test_benchmarks",
    "test_resolution",
    "test_api",
    "test_kill",
    "test_absurd_values",
    "test_train",
    "test_topic",
    "test_head_events",
    "test_training",
    "test_earlier_version",
    "test_table_autoencoder",
    "test_console_browser",
    "test_feature_state",
    "test_benchmark_sensors",
    "test_past_on_disk",
    "test_encoders",
    "test_label_changes",
    "test_sensors",
    "test_scale",
    "test_rebuild",
    "test_spool",
    "test_feature_jobs",
    "test_series_late",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest, and leave for another day what takes minutes."""
    place = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.stem, len(place)))
    if not os.environ.get("LONG"):
        for item in items:
            if item.get_closest_marker("long"):
                item.add_marker(pytest.mark.skip(reason="takes minutes: LONG=1 make test"))


@cache
def leave_out_of_garbage(with_keras: bool) -> None:
    """Leave all that is there out of the search for garbage, once before and once after Keras is imported.

    Keras looks for garbage after every fit, among its own modules and TensorFlow's, too.
    """
    gc.collect()
    gc.freeze()


def pytest_collection_finish() -> None:
    """What collecting imported stays."""
    leave_out_of_garbage("keras" in sys.modules)


def pytest_runtest_teardown() -> None:
    """What the first fit imported stays, too."""
    leave_out_of_garbage("keras" in sys.modules)


upgrade = Store.upgrade


@pytest.fixture(scope="session", autouse=True)
def migrated_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The migrations run once for all tests: a new SQLite state begins as a copy of the file that they made."""
    file = tmp_path_factory.mktemp("state") / "empty.db"
    empty = Store(f"sqlite:///{file}")
    upgrade(empty)
    empty.close()

    def _upgrade(self: Store) -> None:
        if self.kind == "sqlite" and self.url.database and not Path(self.url.database).exists():
            shutil.copyfile(file, self.url.database)
        upgrade(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Store, "upgrade", _upgrade)
        yield


@pytest.fixture
def migrating(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new state is made by the migrations all the same."""
    monkeypatch.setattr(Store, "upgrade", upgrade)


def draw_mixed(seed: int, n: int) -> pd.DataFrame:
    """Rows with every kind of column, gaps and a rare category; the amount follows the country, the fee the amount."""
    rng = np.random.default_rng(seed)
    country = rng.choice(["de", "fr", "pl"], n, p=[0.6, 0.35, 0.05])
    amount = rng.lognormal(3.0, 0.3, n) * np.where(country == "pl", 4.0, 1.0)
    rows = pd.DataFrame(
        {
            "id": np.arange(n) + 100,
            "when": pd.Timestamp("2026-03-01") + pd.to_timedelta(rng.integers(8 * 3600, 20 * 3600, n), unit="s"),
            "amount": np.round(amount, 2),
            "fee": np.round(0.02 * amount + rng.normal(0, 0.01, n), 4),
            "weight": rng.normal(70, 8, n),
            "country": country,
            "online": rng.random(n) < 0.3,
            "is_fraud": 0,
        }
    )
    rows.loc[::10, "weight"] = np.nan
    rows.loc[5::50, "country"] = None
    return rows


@pytest.fixture(scope="session")
def mixed_rows() -> pd.DataFrame:
    """A thousand rows of ``draw_mixed``, to learn from."""
    return draw_mixed(5, 1000)


@pytest.fixture(scope="session")
def fresh_rows() -> pd.DataFrame:
    """Two thousand other rows from where ``mixed_rows`` came from; no detector has seen them."""
    return draw_mixed(6, 2000)


@pytest.fixture(scope="session")
def mixed_schema() -> Schema:
    """What the columns of ``mixed_rows`` mean."""
    return Schema(
        key="id",
        time="when",
        label="is_fraud",
        numeric=("amount", "fee", "weight"),
        categorical=("country",),
        boolean=("online",),
        datetime=("when",),
    )


@pytest.fixture(scope="session")
def tiny_autoencoder() -> TableAutoencoder:
    """A network that trains in about a second."""
    return TableAutoencoder(
        hidden=(32,), code=16, groups=2, training=Training(epochs=6, least_steps=30, batch_size=64, learning_rate=5e-3)
    )


@pytest.fixture(scope="session")
def fitted(mixed_rows: pd.DataFrame, mixed_schema: Schema, tiny_autoencoder: TableAutoencoder) -> TabularDetector:
    """A detector with all members, fitted once for the whole session; tests must not change it."""
    return TabularDetector(schema=mixed_schema, autoencoder=tiny_autoencoder, trees=50, name="mixed").fit(mixed_rows)


@pytest.fixture(scope="session")
def quick() -> TabularDetector:
    """A detector fitted without TensorFlow, for tests that need any fitted detector."""
    rng = np.random.default_rng(0)
    rows = pd.DataFrame({"amount": rng.normal(40, 5, 400), "fee": rng.normal(1, 0.1, 400)})
    return TabularDetector(members=("forest", "neighbours"), trees=50).fit(rows)


@pytest.fixture(scope="session")
def payments() -> pd.DataFrame:
    """1,500 simulated card payments of three weeks, one in 25 a fraud."""
    columns = ["transaction_id", "time", "card_id", "merchant_category", "channel", "country", "amount", "is_fraud"]
    return simulate_transactions(1500, seed=3, days=21, fraud_rate=0.04)[columns]


@pytest.fixture(scope="session")
def configure() -> Callable[..., Config]:
    """Write a small ``detector.yaml`` to a folder and read it; sections given replace those here."""

    def _configure(folder: Path, **sections: Any) -> Config:
        columns = {"key": "transaction_id", "time": "time", "entity": "card_id", "label": "is_fraud"}
        values = {
            "name": "payments",
            "source": {"path": "payments.parquet"},
            "columns": columns | {"datetime": ["time"]},
            "train": {"autoencoder": {"hidden": [16], "code": 8, "training": {"epochs": 2}}, "forest": {"trees": 50}},
            "policy": {"quantile": 0.99},
            "tracking": {"enabled": False},
        }
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "detector.yaml").write_text(yaml.safe_dump(values | sections), encoding="utf-8")
        return load_config(folder)

    return _configure


@pytest.fixture(scope="session")
def trained_once(
    tmp_path_factory: pytest.TempPathFactory, payments: pd.DataFrame, configure: Callable[..., Config]
) -> Path:
    """A folder with the payments, a configuration and a detector trained on them; tests must not change it."""
    from pipelines.training.train import train

    folder = tmp_path_factory.mktemp("trained")
    payments.to_parquet(folder / "payments.parquet")
    train(configure(folder), now=datetime(2026, 3, 1, tzinfo=UTC))
    return folder


@pytest.fixture
def trained(trained_once: Path, tmp_path: Path) -> Path:
    """A copy of that folder, to do anything with."""
    return Path(shutil.copytree(trained_once, tmp_path / "project"))


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved detector of one small forest, for the tests of the service."""
    from benchmarks.soak import train

    return train(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server of this test run's own."""
    with running_postgres() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def each_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """A new state of the service in each database that may hold one."""
    url = f"sqlite:///{tmp_path}/service.db"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres").url(f"test_{abs(hash(tmp_path))}")
    store = open_store(url)
    yield store
    store.close()
