"""The whole job on simulated card payments: simulate, train, log, register, score a fresh batch, explain, compare."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from detector import evaluate
from pipelines.config import FILE_NAME, load_config
from pipelines.progress import progress
from pipelines.score import score
from pipelines.simulate import simulate_transactions, with_history
from pipelines.sinks import FileSink
from pipelines.train import train

SEED = 7
FRESH_SHARE = 0.25
SHOWN = 12
COLOURS = {"critical": "bold red", "high": "red", "medium": "yellow", "low": "cyan"}
CONFIG = """\
# The configuration of `detector demo`: simulated card payments.
name: demo-payments

source:
  path: payments.parquet

columns:
  key: transaction_id
  time: time
  entity: card_id
  label: is_fraud            # used to leave known fraud out of training, and to tell how good the detector is
  ignore: [terminal_id, scenario, reported_at]
  datetime: [time]

policy:
  fdr: 0.2                   # on average at most one false alarm in five ...
  budget: {rows: 60, per: day}   # ... and never more than people can look at

output:
  path: scores.parquet
"""


def run_demo(folder: Path, *, now: datetime, rows: int = 60_000) -> None:
    """Run the whole job in a folder and print what a new user should see.

    Parameters
    ----------
    folder : Path
        Gets the data, the configuration and all results; what an earlier demo left is replaced.
    now : datetime
        When this run happens.
    rows : int
        Transactions to train on; a quarter as many, later ones are scored.
    """
    started = time.perf_counter()
    console = Console(width=None if Console().is_terminal else 140)
    folder.mkdir(parents=True, exist_ok=True)
    past, fresh = _simulate(folder, rows, until=now)
    (folder / FILE_NAME).write_text(CONFIG, encoding="utf-8")
    config = load_config(folder)

    console.rule("[bold]1  Train[/] on what is past")
    console.print(f"{len(past):,} simulated card payments, {int(past['is_fraud'].sum())} of them fraud.")
    trained = train(config, now=now)
    console.print("\n".join(trained.summary()), highlight=False)

    console.rule("[bold]2  Score[/] a fresh batch")
    report = score(config, input=str(folder / "fresh.parquet"), now=now)
    console.print("\n".join(report.summary()), highlight=False)
    scores = pd.read_parquet(folder / "scores.parquet").merge(
        fresh[["transaction_id", "amount", "is_fraud", "scenario"]], on="transaction_id"
    )

    console.rule("[bold]3  Alerts[/], the riskiest row of each card")
    console.print(_alerts(scores))

    console.rule("[bold]4  Against the known truth[/]")
    for line in _against_truth(scores):
        console.print(line, highlight=False)

    console.rule("[bold]5  Where things are[/]")
    console.print(show_places(folder, config.report, trained.logged, template="table"))
    console.print(f"Done in {time.perf_counter() - started:.0f} s.", highlight=False)


def _simulate(folder: Path, rows: int, *, until: datetime) -> tuple[pd.DataFrame, pd.DataFrame]:
    total = rows + round(FRESH_SHARE * rows)
    days = max(14, min(120, total // 600))
    start = until.replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None) - timedelta(days=days)
    with progress("Simulating payments", total=None):
        frame = with_history(simulate_transactions(total, seed=SEED, start=start, days=days))
    past, fresh = frame.iloc[:rows], frame.iloc[rows:]
    for name, part in (("payments", past), ("fresh", fresh)):
        with FileSink(folder / f"{name}.parquet") as sink:
            sink.write(part)
    return past, fresh


def _alerts(scores: pd.DataFrame) -> Table:
    flagged = scores[scores["flagged"]].sort_values("risk", ascending=False)
    rows_of = flagged["card_id"].value_counts()
    flagged = flagged.drop_duplicates("card_id").head(SHOWN)
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for name in ("time", "card", "rows", "severity", "p-value", "truth"):
        table.add_column(name, no_wrap=True)
    table.add_column("reasons")
    for row in flagged.itertuples():
        severity = f"[{COLOURS[row.severity]}]{row.severity}[/]"
        truth = f"[green]{row.scenario.replace('_', ' ')}[/]" if row.is_fraud else "[dim]honest[/]"
        values = [
            f"{row.time:%d %b %H:%M}",
            escape(str(row.card_id)),
            str(rows_of[row.card_id]),
            severity,
            f"{row.p_value:.1g}",
            truth,
        ]
        table.add_row(*values, escape(row.reasons.replace(" of the risk", "")))
    return table


def _against_truth(scores: pd.DataFrame) -> Sequence[str]:
    ranked = evaluate.ranking_metrics(scores["is_fraud"], scores["risk"])
    decided = evaluate.decision_metrics(scores["is_fraud"], scores["flagged"])
    lines = [
        f"AUROC {ranked['auroc']:.3f}, average precision {ranked['ap']:.3f} (blind: {ranked['prevalence']:.3f}).",
        (
            f"Flagged {decided['flagged']:.0f} of {len(scores):,}: precision {decided['precision']:.2f}, "
            f"recall {decided['recall']:.2f} of {ranked['anomalies']:.0f} frauds."
        ),
    ]
    frauds = scores[scores["is_fraud"] == 1]
    for scenario, found in frauds.groupby("scenario")["flagged"]:
        lines.append(f"  {str(scenario).replace('_', ' '):<22}{int(found.sum()):>4} of {len(found)}")
    lines.append("A compromised terminal shows in no single row; it needs the terminal's own history.")
    return lines


def show_places(folder: Path, report: Path, logged: Any, *, template: str) -> Table:
    """Where the results of a demo are, and what to do next."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_row("Report", str(report))
    table.add_row("Scores", str(folder / "scores.parquet"))
    table.add_row("Configuration", str(folder / FILE_NAME))
    if logged is not None:
        table.add_row("MLflow model", f"{logged.model_uri} (version {logged.version})")
        table.add_row("MLflow run", logged.url or logged.open_with)
    table.add_row(
        "Next", f"detector init mine --template {template}, then set `source` and `columns` for your own data"
    )
    return table
