"""What the member that reads a row among the events before it adds: average precision with and without it.

``python -m benchmarks.event_sequences [DATA_DIR] [--weeks N] [--rows N] [--seeds N] [--kind KIND]``; without DATA_DIR
on simulated payments, with it on ``transactions.parquet`` by the weekly protocol of ``benchmarks.transactions``. No
label is shown to any detector. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import average_precision_score

from benchmarks import transactions
from detector.detectors.table.detector import TabularDetector
from detector.encoders.events import KINDS, EventAutoencoder
from detector.features import FeatureSet, Money
from detector.features.feature import OF_EVENT
from detector.members.event_sequence import steps_of
from detector.schema import Schema
from detector.training.settings import Training
from pipelines.simulate import simulate_transactions

Split = tuple[str, FeatureSet, tuple[str, ...], pd.DataFrame, pd.DataFrame]
SIMULATED = (
    "ratio of amount by card_id over 30d, 90d",
    "zscore of amount by card_id over 90d",
    "count by card_id over 1h, 1d",
    "new of device by card_id over 90d",
    "speed of latitude, longitude by card_id over 1d",
    "last 8 of amount by card_id over 90d",
    "gap 9 by card_id over 90d",
    "code 8 of merchant_category by card_id over 90d",
    "code 8 of channel by card_id over 90d",
)
SHARED = (
    "ratio of tx_amount by customer_id over 90d",
    "ratio of tx_amount by customer_id over 90d delay 14d",
    "zscore of tx_amount by customer_id over 90d",
    "last 8 of tx_amount by customer_id over 90d",
    "gap 9 by customer_id over 90d",
)


def simulated(rows: int, seeds: int) -> Iterator[Split]:
    """The first half to learn from, the second to test on; a table a seed."""
    features = FeatureSet(SIMULATED, time="time", key="transaction_id", calendar=("night",))
    for seed in range(seeds):
        frame = features.compute(simulate_transactions(rows, seed=seed))
        half = frame["time"].iloc[len(frame) // 2]
        own = ("amount", *(each.name for each in features.all if each.measure not in OF_EVENT), "night")
        frame = frame.rename(columns={"is_fraud": "truth"})
        yield f"seed {seed}", features, own, frame[frame["time"] < half], frame[frame["time"] >= half]


def shared(folder: Path, weeks: int | None) -> Iterator[Split]:
    """The weeks of the Handbook's protocol, the last ones first: there the past is longest."""
    features = FeatureSet(SHARED, time="tx_datetime", key="transaction_id", money=Money("tx_amount"))
    frame = features.compute(pd.read_parquet(folder / "transactions.parquet"))
    own = ("tx_amount", *(each.name for each in features.all if each.measure not in OF_EVENT))
    first, last = frame["tx_datetime"].min().normalize(), frame["tx_datetime"].max().normalize()
    starts = pd.date_range(first, last - pd.Timedelta(days=20), freq="7D")[::-1][:weeks]
    for start in starts:
        train, test = transactions.split(frame, start)
        test = test.rename(columns={"tx_fraud": "truth"})
        yield f"{start:%d %b}", features, own, train, test


def one(split: Split, kind: str, seed: int) -> dict[str, float]:
    """Average precision of the forest, of the member, and of both."""
    _, features, own, train, test = split
    beside = tuple(feature.name for feature in features.all if feature.measure in OF_EVENT)
    detector = TabularDetector(
        schema=Schema(numeric=(*own, *beside)),
        members=("forest", "sequence"),
        events=EventAutoencoder(kind=kind, training=Training(epochs=10, max_steps=2_000, learning_rate=3e-3)),
        steps=steps_of(features.all),
        random_state=seed,
    )
    measured = detector.fit(train).scorer_.measure(test)
    found = {name: measured[name] for name in ("forest", "sequence")} | {"joined": measured["risk"]}
    precision = {name: float(average_precision_score(test["truth"], score)) for name, score in found.items()}
    if "scenario" in test:
        for scenario in sorted(set(test["scenario"]) - {""}):
            kept = test["scenario"].isin(["", scenario]).to_numpy()
            for name, score in found.items():
                precision[f"{name} {scenario}"] = float(
                    average_precision_score(test["truth"][kept], score.to_numpy()[kept])
                )
    return precision


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?", metavar="DATA_DIR")
    parser.add_argument("--weeks", type=int, default=None)
    parser.add_argument("--rows", type=int, default=60_000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--kind", choices=KINDS, default="gru")
    options = parser.parse_args()
    splits = simulated(options.rows, options.seeds) if options.data is None else shared(options.data, options.weeks)
    found = []
    for number, split in enumerate(splits):
        found.append(one(split, options.kind, number))
        print(split[0], "  ".join(f"{name} {value:.3f}" for name, value in found[-1].items()), flush=True)
    means = {name: round(float(np.mean([each[name] for each in found])), 4) for name in found[0]}
    print(json.dumps({"kind": options.kind, "splits": len(found), **means}))


if __name__ == "__main__":
    main()
