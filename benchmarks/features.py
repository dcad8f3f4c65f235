"""Speed and size of point-in-time features: batch beside pandas, one event at a time, and memory of many entities.

``python -m benchmarks.features [--rows N] [--entities N]``; the last line is JSON.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from detector.features import FeatureSet, History

LINES = (
    "count by card_id over 1d, 7d, 30d",
    "mean of amount by card_id over 1d, 7d, 30d",
    "std of amount by card_id over 30d",
    "max of amount by card_id over 7d",
    "sum of amount by card_id over 1d",
    "count by terminal_id over 1d, 30d",
    "mean of amount by terminal_id over 7d",
)
IN_PANDAS = (
    ("card_id", "count", "1D"),
    ("card_id", "count", "7D"),
    ("card_id", "count", "30D"),
    ("card_id", "mean", "1D"),
    ("card_id", "mean", "7D"),
    ("card_id", "mean", "30D"),
    ("card_id", "std", "30D"),
    ("card_id", "max", "7D"),
    ("card_id", "sum", "1D"),
    ("terminal_id", "count", "1D"),
    ("terminal_id", "count", "30D"),
    ("terminal_id", "mean", "7D"),
)
DAYS = 120
WINDOW_DAYS = 30  # the longest window: all events of a card are kept
EVENTS_AN_ENTITY = 20


def payments(rows: int, *, entities: int, seed: int = 0, days: int = DAYS) -> pd.DataFrame:
    """Payments of so many cards at twice as many terminals, at random times."""
    rng = np.random.default_rng(seed)
    seconds = np.sort(rng.integers(0, days * 86_400, rows))
    return pd.DataFrame(
        {
            "id": np.arange(rows),
            "time": np.datetime64("2024-01-01", "us") + seconds.astype("timedelta64[s]"),
            "card_id": rng.integers(0, entities, rows),
            "terminal_id": rng.integers(0, 2 * entities, rows),
            "amount": np.round(rng.lognormal(3.5, 1.0, rows), 2),
        }
    )


def in_pandas(frame: pd.DataFrame) -> pd.DataFrame:
    """The same windows as people write them today."""
    found = {}
    for entity, statistic, window in IN_PANDAS:
        rolling = frame.set_index("time").groupby(entity)["amount"].rolling(window, closed="left")
        found[f"{entity}_{statistic}_{window}"] = getattr(rolling, statistic)().to_numpy()
    return pd.DataFrame(found)


def in_polars(frame: pd.DataFrame, *, repeat: int = 2) -> float:
    """Seconds of the same windows by the rolling expressions of Polars, on all cores; its order of ties is another."""
    import polars as pl

    rows, columns = pl.from_pandas(frame), []
    for entity, statistic, window in IN_PANDAS:
        over = {"window_size": window.lower(), "closed": "left"}
        source = "one" if statistic == "count" else "amount"
        rolling = getattr(pl.col(source), f"rolling_{'sum' if statistic == 'count' else statistic}_by")
        columns.append(rolling("time", **over).over(entity).alias(f"{entity}_{statistic}_{window}"))
    return seconds(lambda: rows.with_columns(pl.lit(1.0).alias("one")).select(columns), repeat=repeat)


def seconds(work: Callable[[], Any], *, repeat: int = 1) -> float:
    """The least of the times that some work took."""
    taken = []
    for _ in range(repeat):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return min(taken)


def one_event(features: FeatureSet, frame: pd.DataFrame, *, events: int = 2_000) -> float:
    """Milliseconds for the features and the update of one event: the median."""
    history = History(features)
    history.learn(frame.iloc[:-events])
    taken = []
    for row in frame.iloc[-events:].to_dict("records"):
        start = time.perf_counter()
        history.push_one(row)
        taken.append(time.perf_counter() - start)
    return 1000 * float(np.median(taken))


def pushed(features: FeatureSet, frame: pd.DataFrame, *, batch: int = 1_000, batches: int = 10) -> float:
    """Rows a second where they come in small batches and go to the past: the median."""
    history = History(features)
    history.learn(frame.iloc[: -batch * batches])
    taken = []
    for number in range(batches, 0, -1):
        rows = frame.iloc[len(frame) - batch * number : len(frame) - batch * (number - 1)]
        taken.append(seconds(partial(history.push, rows)))
    return batch / float(np.median(taken))


def resident() -> int:
    """Bytes of memory this process holds."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * int(status.split("VmRSS:")[1].split()[0])


def memory(entities: int) -> tuple[float, float]:
    """Gigabytes that cards of twenty events each take, in memory and as packed events."""
    features = FeatureSet(tuple(line for line in LINES if "card_id" in line), time="time")
    history = History(features)
    block = 100_000
    before = resident()
    for start in range(0, entities, block):
        size = min(block, entities - start)
        frame = payments(size * EVENTS_AN_ENTITY, entities=size, seed=start, days=WINDOW_DAYS)
        frame["card_id"] += start
        part = History(features)
        part.learn(frame)
        history.merge(part)
    packed = history.events * next(iter(history.stores.values())).layout.dtype.itemsize
    return (resident() - before) / 1e9, packed / 1e9


def speed(rows: int) -> dict[str, float]:
    """Rows a second in batch, beside pandas, and the milliseconds of one event."""
    frame = payments(rows, entities=max(1, rows // 260))
    features = FeatureSet(LINES, time="time", key="id")
    batch = seconds(lambda: features.compute(frame), repeat=3)
    peer = seconds(lambda: in_pandas(frame))
    other = {"times_polars": round(in_polars(frame) / batch, 1)} if importlib.util.find_spec("polars") else {}
    recent = frame.iloc[-min(rows, 300_000) :]
    return {
        "rows": rows,
        "features": len(features.names),
        "rows_per_second": round(rows / batch),
        "times_pandas": round(peer / batch, 1),
        **other,  # Polars is part of the extra `bench`
        "ms_per_event": round(one_event(features, recent), 3),
        "rows_per_second_pushed": round(pushed(features, recent, batch=max(1, min(1_000, rows // 20)))),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_300_000)
    parser.add_argument("--entities", type=int, default=1_000_000)
    options = parser.parse_args()
    found = speed(options.rows)
    found["entities"] = options.entities
    found["gb_in_memory"], found["gb_packed"] = (round(value, 6) for value in memory(options.entities))
    for name, value in found.items():
        print(f"{name:<24} {value:>14,}")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
