"""A past built in parts is that of all rows at once, to the last bit, whatever the order of the rows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from detector.errors import SchemaError
from pipelines.features import rebuild
from pipelines.features.engine import FeatureEngine
from tests.payment_sites import PAYMENTS, settle
from tests.test_spill import content

FEATURES = [
    "count by card_id over 1d",
    "ratio of amount by card_id, merchant_category over 30d",
    "risk by merchant_category over 10d delay 1d",
]


def engine_of(folder: Path, *, key: str | None = "transaction_id", **given: Any) -> FeatureEngine:
    columns = {"key": key, "time": "time", "entity": "card_id", "label": "is_fraud", "others": "ignore"}
    features = {"history": FEATURES if key else FEATURES[:2], "lateness": 86_400, "most_events": 5} | given
    return FeatureEngine(settle(folder, columns=columns, features=features))


def unlike(seed: int) -> pd.DataFrame:
    """Payments with what makes a build hard: keys that come again for other cards and times, gaps, one moment."""
    rng = np.random.default_rng(seed)
    again = PAYMENTS.sample(100, random_state=seed).assign(card_id="another", time=PAYMENTS["time"].max())
    again["time"] += pd.Timedelta("1D")  # later than any row that counts
    rows = pd.concat([PAYMENTS, again, PAYMENTS.sample(50, random_state=seed)], ignore_index=True)
    rows["time"] = rows["time"].dt.floor("6h")
    rows.loc[rng.choice(len(rows), 30), "card_id"] = None
    rows.loc[rng.choice(len(rows), 30), "transaction_id"] = None
    return rows


def cut(rows: pd.DataFrame, sizes: Iterator[int] | list[int]) -> Iterator[pd.DataFrame]:
    at = 0
    for size in sizes:
        yield rows.iloc[at : at + size]
        at += size
    yield rows.iloc[at:]


@pytest.mark.parametrize("key", ["transaction_id", None])
@pytest.mark.parametrize("order", ["in time", "backwards", "shuffled"])
@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_parts_are_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str | None, order: str, processes: int
) -> None:
    """Rows in any order, in frames of any size, with keys that come again: the same events, bytes and open keys."""
    engine, rows = engine_of(tmp_path, key=key, most_megabytes=0), unlike(1)
    if order == "backwards":
        rows = rows[::-1]
    elif order == "shuffled":
        rows = rows.sample(frac=1, random_state=2)
    wanted, count = rebuild.from_source(engine, cut(rows, [100, 1, 300, 0, 5]), tmp_path / "past")
    monkeypatch.setattr(rebuild, "MOST_HELD", 50)
    monkeypatch.setattr(rebuild, "PART", 200)

    found, _ = rebuild.from_source(engine, cut(rows, [40, 700, 3, 11]), tmp_path / "past", processes=processes)

    assert count
    assert wanted is not None
    assert found is not None
    assert found.is_spilled
    assert content(found) == content(wanted)
    assert any(wanted.stores["card_id",].tails) == (key is not None)


def test_small_past_of_many_rows_is_kept_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is left on disk."""
    engine = engine_of(tmp_path)
    wanted, _ = rebuild.from_source(engine, [PAYMENTS], tmp_path / "past")
    monkeypatch.setattr(rebuild, "MOST_HELD", 50)

    found, rows = rebuild.from_source(engine, cut(PAYMENTS, [100] * 10), tmp_path / "past", processes=1)

    assert rows == len(PAYMENTS)
    assert found is not None
    assert not found.is_spilled
    assert content(found) == content(wanted)
    assert not list((tmp_path / "past").iterdir())


def test_source_without_usable_rows_has_no_past(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither where it is empty, nor where all lack what a past knows them by."""
    monkeypatch.setattr(rebuild, "MOST_HELD", 50)
    engine = engine_of(tmp_path)

    assert rebuild.from_source(engine, [], tmp_path / "past") == (None, 0)
    nobody = PAYMENTS.assign(transaction_id=None)
    assert rebuild.from_source(engine, [nobody], tmp_path / "past", processes=1)[0] is None


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_error_of_a_part_is_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processes: int) -> None:
    """From whichever process it comes; the spool is cleared away."""
    monkeypatch.setattr(rebuild, "MOST_HELD", 50)
    frames = [PAYMENTS[:100], PAYMENTS[100:200].drop(columns="amount")]

    with pytest.raises(SchemaError, match="amount"):
        rebuild.from_source(engine_of(tmp_path), frames, tmp_path / "past", processes=processes)

    assert not list((tmp_path / "past").iterdir())
