"""Rows of a small world that changes one day, and the configuration that watches it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from pipelines.config import Config, load_config

START = datetime(2026, 1, 1, tzinfo=UTC)
ROWS_A_DAY = 100
FEATURES = ("a", "b", "c")
SETTINGS: dict[str, Any] = {
    "name": "world",
    "source": {"path": "rows.parquet"},
    "columns": {"key": "id", "time": "at", "label": "bad"},
    "train": {"autoencoder": {"enabled": False}, "neighbours": {"enabled": False}, "forest": {"trees": 30}},
    "policy": {"quantile": 0.99},
    "tracking": {"enabled": False},
    "retrain": {"days": 20, "label_delay_days": 2, "least_rows": 200, "least_anomalies": 10},
    "drift": {"least_rows": 50, "batches": 3, "needed": 2, "retrain": True, "retrain_every_days": 5},
}


def after(days: float) -> datetime:
    """A moment of this world."""
    return START + timedelta(days=days)


def world(days: int, *, changes: int = 10_000, seed: int = 0, bad: float = 0.04) -> pd.DataFrame:
    """Rows of whole days; from the day it changes, all columns lie three deviations higher."""
    rng = np.random.default_rng(seed)
    n = days * ROWS_A_DAY
    day = np.arange(n) / ROWS_A_DAY
    truth = (rng.random(n) < bad).astype(int)
    values = rng.normal(0, 1, (n, 3))
    values += 3.5 * truth[:, None] * rng.choice([-1, 1], (n, 3)) + 3.0 * (day >= changes)[:, None]
    frame = pd.DataFrame(values, columns=list(FEATURES))
    frame.insert(0, "at", [pd.Timestamp(START).tz_localize(None) + pd.Timedelta(days=float(each)) for each in day])
    frame.insert(0, "id", [f"r{number:06d}" for number in range(n)])
    return frame.assign(bad=truth)


def settle(folder: Path, rows: pd.DataFrame | None = None, **sections: Any) -> Config:
    """Write rows and configuration; a section given is laid over the usual one."""
    folder.mkdir(parents=True, exist_ok=True)
    if rows is not None:
        rows.to_parquet(folder / "rows.parquet")
    values = dict(SETTINGS)
    for name, section in sections.items():
        values[name] = {**values.get(name, {}), **section} if isinstance(section, dict) else section
    (folder / "detector.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    return load_config(folder)
