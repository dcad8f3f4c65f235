"""Do p-values keep their promise in time? The backtest's promised and realised precision, week by week.

``python -m benchmarks.in_time payments`` simulates card payments and asks the template ``transactions``;
``python -m benchmarks.in_time FOLDER`` reads ``transactions.parquet`` of the Fraud Detection Handbook in FOLDER, with
the same features as far as its columns have them. Each week: learn from four weeks, of whose frauds those are known
that were reported by then (in the Handbook's data, a week after they happened), and flag by the template's policy. The
last line is JSON: the promised and the realised precision over all flagged rows, the mean difference of a week, and the
share of normal rows that is flagged over the share that the policy allows.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd

from pipelines.backtest.plan import Plan
from pipelines.backtest.run import backtest
from pipelines.backtest.summary import weighted
from pipelines.config import FILE_NAME, Config, load_config
from pipelines.config.template import TEMPLATES
from pipelines.simulate import simulate_transactions

PAYMENTS = "payments"
ROWS, DAYS = 75_000, 120
MOST_LEARNT = 60_000
START = datetime(2024, 9, 1)  # noqa: DTZ001 - local time, as rows have it
LEARNT_FROM, DELAY = "28d", "7d"
QUANTILE = 0.998
HANDBOOK: dict[str, Any] = {
    "columns": {
        "key": "transaction_id",
        "time": "tx_datetime",
        "entity": "customer_id",
        "label": "tx_fraud",
        "numeric": ["tx_amount"],
        "others": "ignore",
    },
    "features": {
        "history": [
            "ratio of tx_amount by customer_id over 30d, 90d",
            "zscore of tx_amount by customer_id over 90d",
            "count by customer_id over 1h, 1d",
            "since by customer_id over 90d",
            "new of terminal_id by customer_id over 90d",
            "risk by terminal_id over 1d, 7d, 30d delay 7d",
        ],
        "calendar": ["night", "weekend"],
    },
}


def config_of(folder: Path, given: dict[str, Any], path: Path, calibrate_on: str) -> Config:
    """A configuration in a folder: the template, what differs, and the rows at a path."""
    values = {**TEMPLATES["transactions"], **given, "source": {"path": str(path)}}
    values["policy"] = {"quantile": QUANTILE, "budget": {"rows": 100, "per": "day"}}
    values["train"] = {"rows": MOST_LEARNT, "calibrate_on": calibrate_on, "head": {"enabled": False}}
    values["retrain"] = {"label_delay_days": 7}
    values["tracking"] = {"enabled": False}
    (folder / FILE_NAME).write_text(json.dumps(values), encoding="utf-8")  # JSON is YAML
    return load_config(folder)


def weeks_of(data: str, folder: Path, *, seed: int, calibrate_on: str) -> pd.DataFrame:
    """One line a week: what was promised and what came true."""
    if data == PAYMENTS:
        path = folder / "payments.parquet"
        simulate_transactions(ROWS, seed=seed, start=START, days=DAYS).to_parquet(path)
        config = config_of(folder, {}, path, calibrate_on)
        first, last = START + timedelta(days=56), START + timedelta(days=DAYS)
    else:
        path = Path(data) / "transactions.parquet"
        config = config_of(folder, HANDBOOK, path, calibrate_on)
        times = pd.read_parquet(path, columns=["tx_datetime"])["tx_datetime"]
        first, last = times.min().normalize() + timedelta(days=56), times.max().normalize() + timedelta(days=1)
        first, last = first.to_pydatetime(), last.to_pydatetime()
    plan = Plan(first, last, every="7d", train=LEARNT_FROM, delay=DELAY)
    report = backtest(config, plan, now=datetime(2030, 1, 1, tzinfo=UTC), folder=folder)
    names = ("begin", "rows", "anomalies", "flagged", "precision_predicted", "precision_realised", "recall")
    found = report.periods.reindex(columns=list(names))
    return found.assign(data=PAYMENTS if data == PAYMENTS else "handbook", seed=seed, calibrate_on=calibrate_on)


def summary(weeks: pd.DataFrame) -> dict[str, float]:
    """The numbers of the last line."""
    wrong = (weeks["flagged"] * (1 - weeks["precision_realised"])).sum()
    normal = (weeks["rows"] - weeks["anomalies"]).sum()
    away = (weeks["precision_realised"] - weeks["precision_predicted"]).abs()
    return {
        "promised": weighted(weeks, "precision_predicted", "flagged"),
        "realised": weighted(weeks, "precision_realised", "flagged"),
        "week_difference": float(away.mean()),
        "false_alarms_of_allowed": float(wrong / normal / (1 - QUANTILE)),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.in_time", description=__doc__)
    parser.add_argument("data", help="'payments', or the folder of transactions.parquet")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1], help="of the simulated payments")
    parser.add_argument("--calibrate-on", choices=("known", "all"), default="known")
    parser.add_argument("--output", type=Path, help="CSV file, a line a week; lines are added to it")
    options = parser.parse_args(arguments)
    parts = []
    for seed in options.seeds:
        with tempfile.TemporaryDirectory() as folder:
            parts.append(weeks_of(options.data, Path(folder), seed=seed, calibrate_on=options.calibrate_on))
    weeks = pd.concat(parts, ignore_index=True)
    if options.output is not None:
        new = not options.output.exists()
        weeks.to_csv(options.output, mode="a", header=new, index=False, float_format="%.4f", lineterminator="\n")
    print(weeks.round(3).to_string(index=False))
    print(json.dumps({name: round(value, 4) for name, value in summary(weeks).items()}))


if __name__ == "__main__":
    main()
