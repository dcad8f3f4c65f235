"""Columns that are filled in after somebody looked, and honest ones that only look so."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from detector.schema import Schema
from pipelines.config import Config
from pipelines.doctor import examine
from pipelines.factory.leakage import suspects_of
from pipelines.training.train import train

NOW = datetime(2026, 6, 1, tzinfo=UTC)
SIZE, PENDING = 4_000, 1_000


def world(seed: int = 0) -> tuple[pd.DataFrame, pd.Series]:
    """Rows in the order of time, the label of the last ones not known yet, and what is true of all."""
    rng = np.random.default_rng(seed)
    fraud = rng.random(SIZE) < 0.05
    rows = pd.DataFrame({"amount": rng.gamma(2, 30, SIZE), "shop": rng.choice(list("abcdef"), SIZE)})
    return rows, pd.Series(fraud.astype(float))


def looked_at() -> np.ndarray:
    return np.arange(SIZE) < SIZE - PENDING


def named(column: Any, *, pending: bool = True, kind: str = "numeric", trusted: tuple[str, ...] = ()) -> bool:
    rows, fraud = world()
    values = column(fraud.to_numpy() == 1, np.random.default_rng(1))
    rows["x"] = values
    label = fraud.where(looked_at()) if pending else fraud
    return bool(suspects_of(rows, label, Schema(**{kind: ("x",)}), trusted=trusted))


LEAKS: dict[str, tuple[str, Any]] = {
    "state of a case": ("categorical", lambda f, r: np.where(f & looked_at(), "closed", "none")),
    "several states": (
        "categorical",
        lambda f, r: np.where(f & looked_at(), r.choice(["a", "b"], SIZE), r.choice(["-", "+"], SIZE)),
    ),
    "refund": ("numeric", lambda f, r: np.where(f & looked_at(), r.gamma(2, 30, SIZE), 0.0)),
    "filled for frauds": ("numeric", lambda f, r: np.where(f & looked_at(), r.gamma(2, 30, SIZE), np.nan)),
    "emptied for frauds": ("numeric", lambda f, r: np.where(f & looked_at(), np.nan, r.gamma(2, 30, SIZE))),
    "code of a state": ("numeric", lambda f, r: np.where(f & looked_at(), 2, r.choice([0, 1, 3], SIZE))),
    "text for frauds": (
        "categorical",
        lambda f, r: np.where(f & looked_at(), [f"case {n}" for n in range(SIZE)], None),
    ),
    "half of the frauds": (
        "boolean",
        lambda f, r: (f & looked_at() & (r.random(SIZE) < 0.6)).astype(float),
    ),
}


@pytest.mark.parametrize("case", LEAKS)
def test_a_column_filled_in_afterwards_is_named(case: str) -> None:
    """By its values, or by being filled; new rows do not have it. One that is trusted is not asked about."""
    kind, column = LEAKS[case]

    assert named(column, kind=kind)
    assert not named(column, kind=kind, trusted=("x",))


@pytest.mark.parametrize("case", [name for name in LEAKS if name != "half of the frauds"])
def test_a_perfect_column_is_named_where_all_labels_are_known(case: str) -> None:
    """Then there is no row to compare with, and only the ranking speaks."""
    kind, column = LEAKS[case]

    rows, fraud = world()
    rows["x"] = column(fraud.to_numpy() == 1, np.random.default_rng(1))

    assert suspects_of(rows[looked_at()], fraud[looked_at()], Schema(**{kind: ("x",)}))


HONEST: dict[str, tuple[str, Any]] = {
    "strong": ("numeric", lambda f, r: np.where(f, r.normal(3.5, 1, SIZE), r.normal(0, 1, SIZE))),
    "very strong": ("numeric", lambda f, r: np.where(f, r.normal(4.2, 1, SIZE), r.normal(0, 1, SIZE))),
    "perfect, and in new rows too": ("numeric", lambda f, r: np.where(f, 9.0, r.normal(0, 1, SIZE))),
    "perfect category, in new rows too": ("categorical", lambda f, r: np.where(f, "x", r.choice(list("abc"), SIZE))),
    "one country": (
        "categorical",
        lambda f, r: np.where(f & (r.random(SIZE) < 0.7), "NG", r.choice(list("ab"), SIZE)),
    ),
    "noise": ("numeric", lambda f, r: r.normal(0, 1, SIZE)),
    "constant lately": ("numeric", lambda f, r: np.where(looked_at(), r.normal(0, 1, SIZE), 0.0)),
    "never repeats": ("categorical", lambda f, r: [f"row {n}" for n in range(SIZE)]),
    "time": ("datetime", lambda f, r: pd.date_range("2026-01-01", periods=SIZE, freq="min")),
}


@pytest.mark.parametrize("case", HONEST)
def test_an_honest_column_is_not_called_a_leak(case: str) -> None:
    """However strong it is, new rows have it as the labelled ones do."""
    kind, column = HONEST[case]

    assert not named(column, kind=kind)


@pytest.mark.parametrize("case", [name for name in HONEST if not name.startswith("perfect")])
def test_a_strong_column_is_not_called_a_leak_where_all_labels_are_known(case: str) -> None:
    """Only what ranks almost perfectly is."""
    kind, column = HONEST[case]

    assert not named(column, kind=kind, pending=False)


def payments(folder: Path) -> pd.DataFrame:
    rows, fraud = world()
    when = pd.Timestamp("2026-03-01") + pd.to_timedelta(np.arange(SIZE) * 90 / SIZE, unit="D")
    due = when < pd.Timestamp(NOW).tz_localize(None) - pd.Timedelta(days=30)
    frame = rows.assign(id=np.arange(SIZE), when=when, fraud=fraud.where(due).astype("Int64"))
    frame["case_state"] = np.where((fraud == 1) & due, "confirmed", "")
    frame.to_parquet(folder / "rows.parquet")
    return frame


@pytest.mark.parametrize("trusted", [(), ("case_state",)])
def test_no_head_decides_by_hindsight_unasked(
    tmp_path: Path, configure: Callable[..., Config], trusted: tuple[str, ...]
) -> None:
    """Training and the doctor name the column and the two ways out; trusted, it counts as any other."""
    payments(tmp_path)
    config = configure(
        tmp_path,
        source={"path": "rows.parquet"},
        columns={"key": "id", "time": "when", "label": "fraud"},
        train={
            "autoencoder": {"enabled": False},
            "neighbours": {"enabled": False},
            "forest": {"trees": 20},
            "head": {"least_anomalies": 50, "trees": 20, "models": 1, "trusted": trusted},
        },
    )

    report = train(config, now=NOW)
    found = [check for check in examine(config, now=NOW) if "filled in afterwards" in check.found]

    text = "\n".join(report.summary())
    assert ("Columns that likely give the label away" in text) is not trusted
    assert ("Labels are not learnt from. A head would decide by hindsight" in text) is (not trusted)
    assert [check.state for check in found] == ([] if trusted else ["problem"])
    if not trusted:
        assert "'case_state'" in text
        assert "columns.ignore: [case_state]" in text
        assert "train.head.trusted" in found[0].advice
