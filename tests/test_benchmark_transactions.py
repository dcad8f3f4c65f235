"""The protocol of the transactions benchmark, and that its measurements run."""

import json
import sys

import numpy as np
import pandas as pd
import pytest

from benchmarks import features as speed
from benchmarks.transactions import DAYS, card_precision, features, split


def test_split_waits_for_labels_and_drops_known_cards():
    """A week to learn, a week of delay, a week to test; cards known by the day before leave."""
    day = np.arange(21)
    frame = pd.DataFrame({"tx_datetime": pd.Timestamp("2024-01-01") + pd.to_timedelta(day, unit="D")})
    frame = pd.concat([frame.assign(customer_id=card) for card in (1, 2, 3)], ignore_index=True)
    frame["tx_fraud"] = 0
    fraud_days = {
        1: 3,
        2: 9,
    }  # card 1 in the week learnt from, card 2 on the tenth day, known when the fourth is tested
    for card, fraud in fraud_days.items():
        at = (frame["customer_id"] == card) & (
            frame["tx_datetime"] == pd.Timestamp("2024-01-01") + pd.Timedelta(fraud, "D")
        )
        frame.loc[at, "tx_fraud"] = 1

    train, test = split(frame, pd.Timestamp("2024-01-01"))

    assert len(train) == 3 * DAYS
    assert test["customer_id"].value_counts().to_dict() == {3: 7, 2: 3}


def test_card_precision_counts_a_card_once():
    """A card caught on the first day leaves the second."""
    test = pd.DataFrame(
        {
            "customer_id": [1, 2, 1, 3],
            "tx_fraud": [1, 0, 1, 1],
            "tx_datetime": pd.to_datetime(["2024-01-01"] * 2 + ["2024-01-02"] * 2),
        }
    )
    assert card_precision(test, np.array([0.9, 0.1, 0.8, 0.2]), k=1) == 1.0


def test_features_of_the_benchmark_are_all_different():
    """No feature is listed twice, and labels are delayed by a week."""
    measured = features()
    assert len(set(measured.names)) == len(measured.names)
    assert all(feature.delay for feature in measured.all if feature.needs_label)


def test_speed_is_measured_against_the_same_numbers(monkeypatch, capsys):
    """The benchmark's windows are those of pandas, and its last line is JSON."""
    frame = speed.payments(2_000, entities=20)
    frame["time"] += pd.to_timedelta(frame["id"], unit="us")  # pandas orders ties in its own way
    ours = speed.FeatureSet(("mean of amount by card_id over 7d",), time="time", key="id").compute(frame)
    rolling = frame.set_index("time").groupby("card_id")["amount"].rolling("7D", closed="left").mean()
    in_order = ours.sort_values(["card_id", "time"])["amount_mean_7d_by_card_id"]
    assert in_order.to_numpy() == pytest.approx(rolling.to_numpy(), nan_ok=True)

    monkeypatch.setattr(sys, "argv", ["features", "--rows", "5000", "--entities", "2000"])
    speed.main()
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["features"] == 12
    assert found["gb_packed"] > 0
