"""What holds for all tests: quiet libraries, no network, no screen, the same examples every time."""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")

import numpy as np
import pandas as pd
import pytest
from hypothesis import settings

from detector.encoders.dense import DenseAutoencoder
from detector.schema import Schema
from detector.tabular import TabularDetector
from detector.training import Training

settings.register_profile("steady", derandomize=True, deadline=None, max_examples=50)
settings.load_profile("steady")


@pytest.fixture(scope="session")
def mixed_rows() -> pd.DataFrame:
    """A thousand rows with every kind of column, gaps and a rare category; the amount follows the country."""
    rng = np.random.default_rng(5)
    n = 1000
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
def tiny_autoencoder() -> DenseAutoencoder:
    """A network that trains in about a second."""
    return DenseAutoencoder(
        hidden=(32,), code=16, groups=2, training=Training(epochs=6, least_steps=30, batch_size=64, learning_rate=5e-3)
    )


@pytest.fixture(scope="session")
def fitted(mixed_rows: pd.DataFrame, mixed_schema: Schema, tiny_autoencoder: DenseAutoencoder) -> TabularDetector:
    """A detector with all members, fitted once for the whole session; tests must not change it."""
    return TabularDetector(schema=mixed_schema, autoencoder=tiny_autoencoder, trees=50, name="mixed").fit(mixed_rows)


@pytest.fixture(scope="session")
def quick() -> TabularDetector:
    """A detector fitted without TensorFlow, for tests that need any fitted detector."""
    rng = np.random.default_rng(0)
    rows = pd.DataFrame({"amount": rng.normal(40, 5, 400), "fee": rng.normal(1, 0.1, 400)})
    return TabularDetector(members=("forest", "neighbours"), trees=50).fit(rows)
