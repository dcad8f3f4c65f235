"""The simulator's history columns: point in time, equal to a slow and obvious computation."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from detector.errors import DataError, SchemaError
from pipelines.simulate.history import HISTORY_COLUMNS, with_history
from pipelines.simulate.transactions import simulate

COLUMNS = list(HISTORY_COLUMNS)


def distance(row: pd.Series, past: pd.DataFrame) -> float:
    """Kilometres between two places by the law of cosines, which the code does not use."""
    here = np.radians([row["latitude"], row["longitude"]])
    there = np.radians([past["latitude"].mean(), past["longitude"].mean()])
    cosine = np.sin(here[0]) * np.sin(there[0]) + np.cos(here[0]) * np.cos(there[0]) * np.cos(here[1] - there[1])
    return float(6371.0 * np.arccos(np.clip(cosine, -1, 1)))


def oracle(table: pd.DataFrame) -> pd.DataFrame:
    """Compute the history columns row by row, slowly and plainly."""
    ordered = table.sort_values(["time", "transaction_id"])
    found = {}
    for position, (label, row) in enumerate(ordered.iterrows()):
        past = ordered.iloc[:position]
        past = past[past["card_id"] == row["card_id"]]
        devices = past["device"].dropna().tolist()
        first = past.loc[past["device"] == row["device"], "time"].min()
        first = row["time"] if pd.isna(first) else first
        other = isinstance(row["device"], str) and devices != [] and devices[0] != row["device"]
        found[label] = (
            row["amount"] / past["amount"].mean() if len(past) else math.nan,
            (row["time"] - past["time"].max()).total_seconds() / 60 if len(past) else math.nan,
            (past["time"] >= row["time"] - pd.Timedelta(hours=1)).sum(),
            distance(row, past),
            int(other and row["time"] - first <= pd.Timedelta(days=1)),
        )
    return pd.DataFrame.from_dict(found, orient="index", columns=COLUMNS).loc[table.index]


@pytest.mark.parametrize("step", ["20min", "1s"])
def test_history_agrees_with_a_slow_oracle(step: str) -> None:
    """Few cards, many payments at the same time, rows in any order."""
    table = simulate(220, seed=9, days=3, fraud_rate=0.2)
    table["time"] = table["time"].dt.floor(step)
    table["card_id"] = table["card_id"].where(table.index % 3 > 0, "C_busy")
    table = table.sample(frac=1, random_state=0)

    made = with_history(table)[COLUMNS]

    assert made.index.equals(table.index)
    np.testing.assert_allclose(made.to_numpy(float), oracle(table).to_numpy(float), rtol=1e-6, atol=0.2)
    assert made["new_device"].sum() > 5
    assert made["payments_past_hour"].max() > 2


def test_history_does_not_see_the_future() -> None:
    """Later rows, changed or cut off, leave the earlier ones as they are."""
    table = simulate(2000, seed=4)
    changed = table.copy()
    changed.loc[1000:, "amount"] *= 50
    changed.loc[1000:, ["is_fraud", "device", "latitude"]] = [1, "D_other", 0.0]

    whole, cut, other = with_history(table), with_history(table[:1000]), with_history(changed)

    pd.testing.assert_frame_equal(whole[:1000], cut)
    pd.testing.assert_frame_equal(whole[:1000], other[:1000])
    assert not whole[1000:].equals(other[1000:])


def test_history_knows_no_labels() -> None:
    """Without the truth the same columns come out."""
    table = simulate(500, seed=4)

    made = with_history(table.drop(columns=["is_fraud", "scenario", "reported_at"]))

    pd.testing.assert_frame_equal(made[COLUMNS], with_history(table)[COLUMNS])


def test_the_past_hour_is_exact_over_a_century() -> None:
    """Many cards, long apart, with a payment a microsecond within and one a microsecond outside the hour."""
    time = ["1900-01-01", "2020-01-01T10:00:00.000001", "2020-01-01T11:00:00", "2020-01-01T11:00:00.000002"]
    cards = 3000
    table = pd.DataFrame({"time": pd.to_datetime(time * cards, format="ISO8601"), "device": "D", "amount": 1.0})
    table = table.assign(latitude=1.0, longitude=1.0, card_id=[f"C{row // 4}" for row in range(4 * cards)])
    table["transaction_id"] = [f"T{number:09d}" for number in range(len(table))]

    made = with_history(table)["payments_past_hour"].to_numpy().reshape(cards, 4)

    assert (made == [0, 0, 1, 1]).all()


def test_history_keeps_an_empty_table() -> None:
    """No rows in, no rows out, with the columns."""
    made = with_history(simulate(5, seed=1)[:0])

    assert len(made) == 0
    assert set(COLUMNS) <= set(made.columns)


def test_history_names_a_missing_column() -> None:
    """The message says which and what it was probably called."""
    table = simulate(10, seed=1).rename(columns={"amount": "amuont"})

    with pytest.raises(SchemaError, match="column 'amount'. Did you mean 'amuont'"):
        with_history(table)


@pytest.mark.parametrize(
    "spoil", [lambda time: time.astype("str"), lambda time: time.where(time.index > 0)], ids=["text", "gap"]
)
def test_history_needs_dates(spoil: Callable[[pd.Series], pd.Series]) -> None:
    """Times as text or missing are refused."""
    table = simulate(10, seed=1)
    table["time"] = spoil(table["time"])

    with pytest.raises(DataError, match="expected a date in every row of 'time'"):
        with_history(table)
