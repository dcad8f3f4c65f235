"""Rows whose past is too short do not show what is normal."""

from datetime import UTC, datetime

import pandas as pd
import pytest
import yaml

from pipelines.config import load_config
from pipelines.factory.training_period import recent, split
from pipelines.features.burn_in import LEAST_ROWS, warm
from pipelines.features.engine import FeatureEngine
from pipelines.simulate import simulate_transactions
from pipelines.sources import open_source


def days(size):
    return pd.DataFrame({"at": pd.date_range("2024-01-01", periods=size)})


def test_rows_stand_for_what_is_normal_once_features_can_look_back():
    """A row exactly so old is one of them, in any order, and the others are counted with the date."""
    kept, note = warm(days(200)[::-1], "at", pd.Timestamp("2024-01-21"))

    assert kept["at"].min() == pd.Timestamp("2024-01-21")
    assert note is not None
    assert note.startswith("20 rows before 2024-01-21 00:00 are not used to learn what is normal: ")


@pytest.mark.parametrize("size", [200, 201, 1_000])
def test_at_least_half_of_the_rows_are_kept(size):
    """However far back features look, and also of the first rows of a longer table."""
    kept, _ = warm(days(size), "at", pd.Timestamp("2030-01-01"))
    assert size / 2 <= len(kept) < size


def test_few_rows_are_all_kept():
    """Where nothing could be learnt from what is left."""
    rows = days(2 * LEAST_ROWS - 2)
    assert len(warm(rows, "at", pd.Timestamp("2030-01-01"))[0]) == len(rows)


@pytest.mark.parametrize("whole_from", [None, pd.Timestamp(0)])
def test_nothing_is_said_where_all_are_kept(whole_from):
    """Without features, or where all rows have their past."""
    kept, note = warm(days(300), "at", whole_from)
    assert len(kept) == 300
    assert note is None


def test_a_short_table_can_be_learnt_from_again(tmp_path):
    """Where labels are believed only of its first half, half of those rows are learnt from, not none."""
    payments = simulate_transactions(3_000, seed=1, days=45, fraud_rate=0.05)
    payments.to_parquet(tmp_path / "payments.parquet")
    settings = {
        "name": "payments",
        "source": {"path": "payments.parquet"},
        "columns": {"key": "transaction_id", "time": "time", "label": "is_fraud", "numeric": ["amount"]},
        "features": {"history": ["mean of amount by card_id over 90d"]},
        "policy": {"quantile": 0.98},
    }
    settings["columns"]["others"] = "ignore"
    (tmp_path / "detector.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    config, now = load_config(tmp_path), datetime(2026, 3, 1, tzinfo=UTC)
    engine = FeatureEngine(config)

    frame = recent(open_source(config.source), config, now=now, engine=engine)
    window = split(frame, config, now=now, engine=engine)

    assert len(window.learn) > 300
    (note,) = window.notes
    assert note.endswith("their past is too short for the features.")
