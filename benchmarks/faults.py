"""Faults found on simulated machines, and false events per machine and day.

``python -m benchmarks.faults [--seeds 1,2,3]``

45,000 rows of three machines with six sensors a seed; the first two fifths, without faults, train. A fault counts as
found if an event of its machine overlaps it, an event as false if it overlaps no fault. Judged are the default with a
model for all machines, and with one for each and ``quantile=0.999``, each beside its windows alone; and the default
where each sensor is given in a unit of its own, from a thousandth to a thousand times as large. Settings and seeds
are declared here, and nothing is left out after looking. The last line is one JSON object: figures of the default.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.sensors import RESULTS, default_detector
from detector.schema import Schema
from pipelines.simulate.sensors import simulate_sensors

SEEDS = tuple(range(1, 9))
ROWS, MACHINES, SENSORS, TRAINED = 45_000, 3, 6, 0.4
DEFAULT, UNITS = "default", "default, other units"
WINDOWS: dict[str, Any] = {"members": ("reconstruction",)}
OWN: dict[str, Any] = {"models": "entity", "quantile": 0.999}
SETTINGS: dict[str, dict[str, Any]] = {
    DEFAULT: {},
    UNITS: {},
    "windows alone": WINDOWS,
    "a model a machine": OWN,
    "a model a machine, windows alone": OWN | WINDOWS,
}


def faults_of(rows: pd.DataFrame) -> pd.DataFrame:
    """One row a fault: the ``machine``, and its first (``start``) and last (``end``) time.

    >>> times = pd.date_range("2026-01-01", periods=4, freq="min")
    >>> rows = pd.DataFrame({"time": times, "machine": "M1", "anomaly": [0, 1, 1, 0], "anomaly_kind": list(" ss ")})
    >>> faults_of(rows).astype(str).to_numpy().tolist()
    [['M1', '2026-01-01 00:01:00', '2026-01-01 00:02:00']]
    """
    found = []
    for machine, own in rows.groupby("machine"):
        run = (own["anomaly_kind"] != own["anomaly_kind"].shift()).cumsum()
        times = own[own["anomaly"] == 1].groupby(run)["time"].agg(["min", "max"])
        found.append(times.set_axis(["start", "end"], axis=1).assign(machine=machine))
    return pd.concat(found)[["machine", "start", "end"]].reset_index(drop=True)


def count(faults: pd.DataFrame, events: pd.DataFrame) -> tuple[int, int]:
    """How many faults an event of the same machine (``entity``) overlaps, and how many events overlap no fault.

    >>> faults = pd.DataFrame({"machine": ["M1", "M2"], "start": [5, 5], "end": [9, 9]})
    >>> count(faults, pd.DataFrame({"entity": ["M1", "M1"], "start": [8, 20], "end": [11, 21]}))
    (1, 1)
    """
    machine = faults["machine"].to_numpy()[:, None] == events["entity"].to_numpy()
    before = faults["start"].to_numpy()[:, None] <= events["end"].to_numpy()
    after = faults["end"].to_numpy()[:, None] >= events["start"].to_numpy()
    overlap = machine & before & after
    return int(overlap.any(axis=1).sum()), int((~overlap.any(axis=0)).sum())


def measure(seeds: Sequence[int]) -> Iterator[dict[str, object]]:
    """Yield the figures of each seed and setting."""
    for seed in seeds:
        rows = simulate_sensors(ROWS, seed=seed, machines=MACHINES, sensors=SENSORS, normal_share=TRAINED)
        sensors = list(rows.columns[2 : 2 + SENSORS])
        units = 10 ** np.random.default_rng(seed).uniform(-3, 3, size=SENSORS)
        split = int(len(rows) * TRAINED)
        faults = faults_of(rows[split:])
        days = (rows["time"].iloc[-1] - rows["time"].iloc[split]) / pd.Timedelta(days=1) * MACHINES
        schema = Schema(time="time", entity="machine", numeric=tuple(sensors))
        for setting, changed in SETTINGS.items():
            readings = rows[["time", "machine", *sensors]]
            if setting == UNITS:
                readings = readings.assign(**(readings[sensors] * units))
            detector = default_detector(schema=schema, **changed).fit(readings[:split])
            found, false = count(faults, detector.judge(readings[split:]).events)
            yield {
                "seed": seed,
                "setting": setting,
                "faults": len(faults),
                "found": found,
                "false_events": false,
                "machine_days": round(days, 2),
            }


def summarise(results: pd.DataFrame) -> pd.DataFrame:
    """By setting, faults and those found a seed, and false events per machine and day."""
    sums = results.groupby("setting", sort=False).sum().div(results["seed"].nunique())
    sums["false_per_machine_day"] = sums["false_events"] / sums["machine_days"]
    return sums[["faults", "found", "false_per_machine_day"]].round(3)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults", description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", default=",".join(map(str, SEEDS)), help="of the simulator")
    options = parser.parse_args(arguments)
    RESULTS.mkdir(exist_ok=True)
    records: list[dict[str, object]] = []
    for record in measure([int(seed) for seed in options.seeds.split(",")]):
        records.append(record)
        print(record, flush=True)
        pd.DataFrame(records).to_csv(RESULTS / "faults.csv", index=False)
    summary = summarise(pd.DataFrame(records))
    print(f"\n{summary.to_string()}\n\n{json.dumps(summary.loc[DEFAULT].to_dict())}")


if __name__ == "__main__":
    main()
