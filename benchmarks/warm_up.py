"""What it costs to learn from rows whose past is too short: simulated payments, with and without them.

``python -m benchmarks.warm_up [--rows N] [--seeds N]``. A forest on the features of the template ``transactions``
learns from the first 60 % of the days, once from all rows and once from those that ``pipelines.features.burn_in``
keeps, and judges the next 25 %. Of honest rows a hundredth should have a p-value of at most .01. No label is shown
to it. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json

import numpy as np
import pandas as pd
from sklearn.metrics import average_precision_score

from detector.detectors.table.detector import TabularDetector
from detector.schema import Schema
from pipelines.config.data import ColumnsSection
from pipelines.config.features import FeaturesSection
from pipelines.config.template import TEMPLATES
from pipelines.features.burn_in import warm
from pipelines.simulate import simulate_transactions

LEVEL = 0.01


def one(rows: int, seed: int) -> dict[str, float]:
    """Both detectors on one table."""
    template = TEMPLATES["transactions"]
    features = FeaturesSection(**template["features"]).feature_set(ColumnsSection(**template["columns"]))
    frame = simulate_transactions(rows, seed=seed)
    known = pd.Series(frame["reported_at"].to_numpy(), index=frame.index)
    assert features.turns is not None
    since, back, again = features.turns
    frame = features.compute(frame.assign(**{since: known, back: pd.NaT, again: pd.NaT}))
    first, span = frame["time"].min(), frame["time"].max() - frame["time"].min()
    past = frame[frame["time"] < first + 0.6 * span]
    later = frame[(frame["time"] >= first + 0.6 * span) & (frame["time"] < first + 0.85 * span)]
    kept, _ = warm(past, "time", first + pd.Timedelta(microseconds=features.reach))
    schema = Schema(numeric=("amount", *features.names), categorical=("merchant_category", "channel"))
    found: dict[str, float] = {}
    fraud = (later["is_fraud"] == 1).to_numpy()
    for name, learnt in (("all", past), ("warm", kept)):
        detector = TabularDetector(schema=schema, members=("forest",), random_state=seed).fit(learnt)
        measures = detector.scorer_.measure(later)
        small = (measures["p_value"] <= LEVEL).to_numpy()
        found |= {
            f"{name}_rows": float(len(learnt)),
            f"{name}_ap": float(average_precision_score(fraud, measures["risk"])),
            f"{name}_honest_below": float(small[~fraud].mean()),
            f"{name}_frauds_below": float(small[fraud].mean()),
        }
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    found = []
    for seed in range(options.seeds):
        found.append(one(options.rows, seed))
        print(f"seed {seed}  " + "  ".join(f"{name} {value:.4g}" for name, value in found[-1].items()), flush=True)
    print(json.dumps({name: round(float(np.mean([each[name] for each in found])), 4) for name in found[0]}))


if __name__ == "__main__":
    main()
