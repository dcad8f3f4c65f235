"""A season of operation in some minutes: simulated payments, retrainings, a promotion, a rejection and a way back.

``python -m benchmarks.day FOLDER`` plays 75 days in steps of days. The clock is an argument of every job, so nothing
waits. The detector is a forest alone, which is fitted in a second. At the end MLflow holds the whole story; the last
line says how to look at it.

The world changes on day 40: people begin to pay abroad and online, and spend twice as much.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from detector.persist import bundle
from pipelines.config import Config, load_config
from pipelines.monitoring.drift import watch
from pipelines.registry.registry import ModelRegistry
from pipelines.simulate import simulate_transactions
from pipelines.tracking import open_command
from pipelines.training.registry_commands import rollback_model
from pipelines.training.retrain import retrain

START = datetime(2026, 1, 1)  # noqa: DTZ001 - the simulator's days have no time zone
CHANGE, LAST = 40, 75
ROWS_A_DAY = 300
COLUMNS = ["transaction_id", "time", "card_id", "merchant_category", "channel", "country", "amount", "is_fraud"]
SETTINGS = {
    "name": "payments",
    "source": {"path": "payments.parquet"},
    "columns": {"key": "transaction_id", "time": "time", "entity": "card_id", "label": "is_fraud"},
    "train": {"autoencoder": {"enabled": False}, "neighbours": {"enabled": False}},
    "policy": {"quantile": 0.99, "budget": {"rows": 10, "per": "day"}},
    "retrain": {"days": 30, "label_delay_days": 3, "compare_share": 0.3},
    "drift": {"batches": 4, "needed": 2, "retrain": True, "retrain_every_days": 10},
}


@dataclass
class Season:
    """What happened, in order."""

    lines: list[str] = field(default_factory=list)
    decisions: list[str] = field(default_factory=list)
    served: list[str] = field(default_factory=list)

    def note(self, day: int, text: str) -> None:
        """Print it and keep it."""
        self.lines.append(f"day {day:>3}  {text}")
        print(self.lines[-1], flush=True)


def payments(*, rows_a_day: int = ROWS_A_DAY, seed: int = 4) -> pd.DataFrame:
    """All payments of the season; from the day the world changes, another mixture and twice the amounts."""
    table = simulate_transactions(rows_a_day * LAST, seed=seed, start=START, days=LAST, fraud_rate=0.02)[COLUMNS]
    changed = (table["time"] >= pd.Timestamp(START) + pd.Timedelta(days=CHANGE)).to_numpy()
    rng = np.random.default_rng(seed)
    table.loc[changed, "amount"] = (table.loc[changed, "amount"] * 2).round(2)
    abroad = changed & (table["is_fraud"] == 0).to_numpy() & (rng.random(len(table)) < 0.5)
    table.loc[abroad, ["channel", "country"]] = table.loc[abroad, ["channel", "country"]].assign(channel="online")
    table.loc[abroad, "country"] = rng.choice(table["country"].dropna().unique(), int(abroad.sum()))
    return table


def play(folder: Path, *, rows_a_day: int = ROWS_A_DAY, uri: str | None = None, step: int = 5) -> Season:
    """Play the season.

    Parameters
    ----------
    folder : Path
        For the rows, the detectors and the runs.
    rows_a_day : int
        Payments a day.
    uri : str, optional
        An MLflow server; a file in the folder by default.
    step : int
        Days between two looks at drift.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tracking = {"uri": uri} if uri else {}
    (folder / "detector.yaml").write_text(yaml.safe_dump(SETTINGS | {"tracking": tracking}), encoding="utf-8")
    config, table, season = load_config(folder), payments(rows_a_day=rows_a_day), Season()
    regular = {30, 38, 65}
    for day in sorted({*range(30, LAST + 1, step), *regular}):
        now = (START + timedelta(days=day)).replace(tzinfo=UTC)
        _come(folder, table, now)
        asked = False
        if config.bundle.exists():
            report = watch(config, now=now)
            asked = report.retrain
            season.note(day, f"drift: {report.note}")
        if asked or day in regular:
            done = retrain(config, now=now, trigger="drift" if asked else "schedule")
            season.decisions.append(done.decision.outcome)
            season.note(day, f"retrain ({'drift' if asked else 'schedule'}): {done.decision.reason}")
        season.served.append(bundle.fingerprint(config.bundle))
    now = (START + timedelta(days=LAST, hours=9)).replace(tzinfo=UTC)
    season.note(LAST, rollback_model(config, reason="The team wants the earlier reasons back.", now=now)[0])
    season.served.append(bundle.fingerprint(config.bundle))
    _close(config, season)
    return season


def _come(folder: Path, table: pd.DataFrame, now: datetime) -> None:
    """Let the rows up to now arrive."""
    table[table["time"] < pd.Timestamp(now).tz_localize(None)].to_parquet(folder / "payments.parquet")


def _close(config: Config, season: Season) -> None:
    moves = ModelRegistry(config.bundle).state().promotions
    season.note(LAST, f"{len(season.decisions)} retrainings: {', '.join(season.decisions)}; {len(moves)} moves.")
    print(open_command(config.tracking.uri) or config.tracking.uri)


if __name__ == "__main__":
    begun = time.perf_counter()
    play(Path(sys.argv[1]))
    print(f"{time.perf_counter() - begun:.0f} s")
