"""How often the true cause is among the first three reasons, and how fast reasons are computed.

``python -m benchmarks.reasons [--rows 6000] [--skip sensors]``

- *Tables*: simulated payments with their history; a detector learns from normal rows. In fresh normal rows one cell
  each is spoilt: a number is put beyond 99.9 % of those seen (and 4 interquartile ranges), a category becomes the
  rarest one. Of the rows that are flagged now (p-value of at most 0.01) and were not before, so that the spoilt cell
  is the cause, it is counted in how many its column is among the reasons.
- *Sensors*: simulated machines with faults of known kind and sensor; rows that are at fault and flagged are counted.

The rate is the best of five. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import numpy as np
import pandas as pd

from detector.cleaning.clean import clean
from detector.detectors.series.detector import SequenceDetector
from detector.detectors.table.detector import TabularDetector
from detector.encoders.table import TableAutoencoder
from detector.schema import Schema
from detector.training.settings import Training
from pipelines.simulate import simulate_transactions, with_history
from pipelines.simulate.sensors import simulate_sensors

TOP = 3
REPEATS = 5
IGNORED = ("terminal_id", "scenario", "reported_at", "device_id", "is_fraud", "transaction_id", "time", "card_id")


def spoil(rows: pd.DataFrame, schema: Schema, *, seed: int) -> tuple[pd.DataFrame, pd.Series]:
    """Spoil one cell of each row; the rows, and the column that was spoilt in each."""
    rng = np.random.default_rng(seed)
    columns = [name for name in (*schema.numeric, *schema.categorical) if rows[name].nunique() > 1]
    spoilt, cause = rows.copy(), pd.Series(rng.choice(columns, len(rows)), index=rows.index)
    for name in columns:
        chosen = cause == name
        if name in schema.numeric:
            low, middle, high = rows[name].quantile([0.25, 0.5, 0.75])
            spread = (high - low) or rows[name].std() or 1.0
            largest = max(rows[name].quantile(0.999) - middle, 4 * spread)
            moved = middle + largest * rng.uniform(1, 2, int(chosen.sum()))
            spoilt[name] = spoilt[name].astype("float64")
            spoilt.loc[chosen, name] = moved
        else:
            spoilt.loc[chosen, name] = rows[name].value_counts().index[-1]
    unchanged = pd.Series(
        [str(spoilt.at[i, cause[i]]) == str(rows.at[i, cause[i]]) for i in rows.index], index=rows.index
    )
    return spoilt[~unchanged], cause[~unchanged]


def tables(rows: int, *, seed: int) -> dict[str, Any]:
    """The part about tables."""
    frame = with_history(simulate_transactions(3 * rows, seed=seed, days=60, fraud_rate=0.0))
    frame = frame.drop(columns=[name for name in IGNORED if name in frame])
    schema = Schema.infer(frame)
    network = TableAutoencoder(training=Training(epochs=15))
    scorer = TabularDetector(schema=schema, autoencoder=network).fit(frame.iloc[:rows]).scorer_
    normal = clean(frame.iloc[2 * rows :], schema).rows
    spoilt, cause = spoil(normal, schema, seed=seed)
    measures = scorer.measure(spoilt)
    before = scorer.measure(normal.loc[spoilt.index])
    flagged = ((measures["p_value"] <= 0.01) & (before["p_value"] > 0.01)).to_numpy()
    chosen, truth = spoilt[flagged], cause[flagged]
    named = [[reason.feature for reason in each] for each in scorer.explain(chosen, top=TOP)]
    hits = np.array([wanted in given for wanted, given in zip(truth, named, strict=True)])
    first = np.array([wanted == given[0] for wanted, given in zip(truth, named, strict=True)])
    worst = pd.Series(hits, index=truth.to_numpy()).groupby(level=0).agg(["mean", "size"])
    print(worst.round(3).sort_values("mean").to_string(), flush=True)
    many = chosen.iloc[np.resize(np.arange(len(chosen)), 4_000)].reset_index(drop=True)
    rate, core = 0.0, 0.0
    for _ in range(REPEATS):
        started, worked = time.perf_counter(), time.process_time()
        scorer.explain(many, top=TOP)
        rate = max(rate, len(many) / (time.perf_counter() - started))
        core = max(core, len(many) / (time.process_time() - worked))
    return {
        "table_rows_spoilt": len(spoilt),
        "table_rows_flagged": int(flagged.sum()),
        "table_cause_in_first_three": round(float(hits.mean()), 4),
        "table_cause_first": round(float(first.mean()), 4),
        "table_reasons_rows_a_second": round(rate),
        "table_reasons_rows_a_second_of_one_core": round(core),
    }


def sensors(rows: int, *, seed: int) -> dict[str, Any]:
    """The part about sensors."""
    frame = simulate_sensors(rows, seed=seed, sensors=8)
    truth = frame[["anomaly", "anomaly_kind", "anomaly_sensor"]]
    table = frame.drop(columns=truth.columns)
    names = tuple(name for name in table.columns if name not in ("time", "machine"))
    schema = Schema(time="time", entity="machine", numeric=names)
    first = int(0.4 * rows)
    detector = SequenceDetector(schema=schema).fit(table.iloc[:first])
    started = time.perf_counter()
    verdicts = detector.scorer_.score_frame(table.iloc[first:]).frame
    seconds = time.perf_counter() - started
    joined = verdicts.merge(frame[["time", "machine", *truth.columns]], on=["time", "machine"])
    right = joined[joined["flagged"] & (joined["anomaly"] == 1)]
    named = [{reason.feature for reason in reasons[:TOP]} for reasons in right["reasons"]]
    hits = np.array(
        [bool(set(wanted.split(",")) & given) for wanted, given in zip(right["anomaly_sensor"], named, strict=True)]
    )
    of_kind = pd.Series(hits, index=right["anomaly_kind"].to_numpy()).groupby(level=0).agg(["mean", "size"])
    print(of_kind.round(3).to_string(), flush=True)
    return {
        "sensor_rows_flagged_at_fault": len(right),
        "sensor_cause_in_first_three": round(float(hits.mean()), 4) if len(hits) else None,
        "sensor_judged_rows_a_second": round(len(verdicts) / seconds),
    }


def main() -> None:
    """Run both parts, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=6_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--skip", choices=("tables", "sensors"), action="append", default=[])
    chosen = parser.parse_args()
    found: dict[str, Any] = {}
    if "tables" not in chosen.skip:
        found |= tables(chosen.rows, seed=chosen.seed)
    if "sensors" not in chosen.skip:
        found |= sensors(2 * chosen.rows, seed=chosen.seed)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
