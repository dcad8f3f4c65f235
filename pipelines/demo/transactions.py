"""The whole job on simulated card payments: simulate, train, score what comes in, compare with the truth, alert."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

from detector.detectors.table.scorer import TabularScorer
from detector.errors import BundleError
from detector.persist import bundle
from pipelines.alerts.feedback.answers import find
from pipelines.alerts.grouping.events import rank
from pipelines.alerts.message.message import reason_in_words
from pipelines.alerts.message.words import money
from pipelines.alerts.outbox.views import alert_text
from pipelines.config import FILE_NAME, Config, load_config
from pipelines.demo.comparison import TAUGHT, decided_both_ways, side_by_side
from pipelines.demo.places import from_here
from pipelines.factory.detector import policy_of
from pipelines.jobs.context import Context
from pipelines.listing import Cell, Column, Listing
from pipelines.progress import progress
from pipelines.scoring.job import score_new
from pipelines.service.housekeeping import deliver
from pipelines.simulate import simulate_transactions
from pipelines.sinks.files import FileSink
from pipelines.store import Store, open_store
from pipelines.training.train import train

SEED = 7
FRESH_SHARE = 0.25
Truth = Callable[[Mapping[str, Any]], set[str]]
STATE = ("service.db", "service.db-wal", "service.db-shm")
LEFT_BEHIND = ("payments", "readings", "scores", "bundle", "bundle.features", "alerts.jsonl", *STATE)
WIDTH = 140
COLOURS = {"critical": "bold red", "high": "red", "medium": "yellow", "low": "cyan"}
CONFIG = """\
# The configuration of `detector demo`: simulated card payments.
name: demo-payments

source:
  path: payments             # a folder; what is put there later is scored once

columns:
  key: transaction_id
  time: time
  entity: card_id
  label: is_fraud            # used to leave known fraud out of training, and to tell how good the detector is
  numeric: [amount]
  categorical: [merchant_category, channel]
  others: ignore
  names: {card_id: card, terminal_id: terminal, merchant_category: kind of shop}   # as people call them

features:                    # what a card, a terminal did before: as it was known at the time of each row
  history:
  - ratio of amount by card_id over 30d, 90d
  - zscore of amount by card_id over 90d
  - count by card_id over 1h, 1d
  - since by card_id over 90d
  - new of device by card_id over 90d
  - new of terminal_id by card_id over 90d
  - speed of latitude, longitude by card_id over 1d
  - risk by terminal_id over 1d, 7d, 30d delay 7d
  calendar: [night, weekend]
  reported: reported_at

retrain:
  label_delay_days: 7        # what nobody has reported a week after it happened counts as normal

policy:
  quantile: 0.998            # flag what is rarer than one normal row in 500 ...
  budget: {rows: 60, per: day}   # ... and never more than people can look at

alerts:
  a_day: 12                  # the most severe ones; one digest says how many more there were
  amount: amount
  large_amount: 1000
  shown: [merchant_category, channel]
  file: {path: alerts.jsonl} # one JSON object a line
  log: {enabled: false}      # the other one: the log of the service

output:
  path: scores.parquet

service:
  start: new                 # what is there at the start is what was learnt from
  settle: 0
"""
TARGETS = """\
alerts:
  slack: {url: "${SLACK_URL}"}"""


def run_demo(folder: Path, *, now: datetime, rows: int = 60_000) -> None:
    """Run the whole job in a folder and print what a new user should see.

    - ``folder``: gets the data, the configuration and all results; what an earlier demo left is replaced.
    - ``rows``: transactions to train on; a quarter as many, later ones are scored.
    """
    started = time.perf_counter()
    console = console_of()
    clear_away(folder, CONFIG)
    (folder / FILE_NAME).write_text(CONFIG, encoding="utf-8")
    config = load_config(folder)
    past, fresh = _simulate(rows, until=now)
    put(past, config, "past", now=now)

    console.rule("[bold]1  Train[/] on past payments")
    console.print(f"{len(past):,} simulated card payments, {int(past['is_fraud'].sum())} of them fraud.")
    trained = train(config, now=now)
    console.print("\n".join(trained.summary()), highlight=False)

    store = open_store(config.service.store)
    try:
        context = Context(config, store, now)
        console.rule("[bold]2  Score[/] new payments, as `detector serve` does")
        score_new(context)  # the first look of a service: what is there was learnt from
        put(fresh, config, "fresh", now=now)
        began = time.perf_counter()
        report = score_new(context)
        console.print(f"{report.note.capitalize()}, in {time.perf_counter() - began:.1f} s.", highlight=False)
        written = pd.concat([pd.read_parquet(file) for file in sorted((folder / "scores").glob("*.parquet"))])
        scores = written.merge(fresh[["transaction_id", "amount", "is_fraud", "scenario"]], on="transaction_id")

        console.rule("[bold]3  Compare with the known truth[/]")
        scorer = trained_scorer(config)
        both = decided_both_ways(scores, scorer, policy_of(config.policy, scorer.schema))
        console.print(side_by_side(both, label="is_fraud", scenario="scenario"))
        console.print(_explained(both), highlight=False)

        console.rule("[bold]4  Alerts[/], one for each card, reported once, the most urgent first")
        deliver(context)
        scenario = scores.set_index("transaction_id")["scenario"]
        show_alerts(console, config, store, truth=lambda event: {str(scenario[key]) for key in event["keys"]})
    finally:
        store.close()

    console.rule("[bold]5  Where things are[/]")
    console.print(show_places(folder, config.report, trained.logged, scores=folder / "scores", template="transactions"))
    console.print(f"Done in {time.perf_counter() - started:.0f} s.", highlight=False)


def trained_scorer(config: Config) -> TabularScorer:
    """The detector that training has left."""
    scorer = bundle.load(config.bundle)
    if not isinstance(scorer, TabularScorer):
        raise BundleError(f"Expected a detector of tables in {config.bundle}, found one of series. Train again.")
    return scorer


def _explained(both: Mapping[str, object]) -> str:
    """What stands side by side."""
    if TAUGHT not in both:
        return "The members decide: too few frauds are reported for a head to beat them. See the line on labels above."
    return (
        "Members alone: unsupervised, they have never seen a label. (Reported frauds are\n"
        "left out of training, and counted by terminal.) With chargebacks: a supervised\n"
        "head, trained on the frauds reported by then, beat the members and decides."
    )


def clear_away(folder: Path, config: str) -> None:
    """Make the folder, without what an earlier demo of the same configuration left in it."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / FILE_NAME
    if not file.is_file() or not file.read_text(encoding="utf-8").startswith(config.partition("\n")[0]):
        return
    for name in LEFT_BEHIND:
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def _simulate(rows: int, *, until: datetime) -> tuple[pd.DataFrame, pd.DataFrame]:
    total = rows + round(FRESH_SHARE * rows)
    days = max(14, min(120, total // 600))
    start = until.replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None) - timedelta(days=days)
    with progress("Simulating payments", total=None):
        frame = simulate_transactions(total, seed=SEED, start=start, days=days)
    return frame.iloc[:rows], frame.iloc[rows:]


def put(rows: pd.DataFrame, config: Config, name: str, *, now: datetime) -> None:
    """Have rows come in at that time: a file, whole at once."""
    path = Path(str(config.source.path)) / f"{name}.parquet"
    path.parent.mkdir(exist_ok=True)
    with FileSink(path) as sink:
        sink.write(rows)
    os.utime(path, (now.timestamp(), now.timestamp()))


def show_alerts(console: Console, config: Config, store: Store, *, truth: Truth) -> None:
    """What the local channel has got, the most urgent first, the first of them in full, and how to send them elsewhere.

    - ``truth``: for an alert, as the file has it, the kinds of anomaly it really holds.
    """
    sent = [json.loads(line) for line in config.alerts.file.path.read_text(encoding="utf-8").splitlines()]
    events, digests = events_and_digests(sent)
    console.print(_alerts(events, truth, entity=str(config.columns.entity).removesuffix("_id")))
    if over := sum(each["kind"] == "recovered" for each in sent):
        console.print(f"The end of {over:,} of them was reported too.", highlight=False)
    for digest in digests:
        console.print(escape(digest["text"]), highlight=False)
    name = escape("." if config.file is None else from_here(config.file.parent))
    if events:
        with store.read() as session:
            text = alert_text(session, find(session, events[0]["id"]), config=config)
        short = events[0]["id"][:9]
        console.print(f"The most urgent one, as shown by [bold]detector alerts show {name} {short}[/]:")
        console.print(Panel(escape(text), expand=False))
        console.print(
            f"Answer it: [bold]detector alerts answer {name} {short} {config.anomaly} --reason 'somebody looked'[/]"
        )
    console.print(
        f"The same alerts are in [bold]{escape(from_here(config.alerts.file.path))}[/], one JSON object a line."
    )
    console.print("To get alerts in Slack, add one line to the section `alerts` of detector.yaml:")
    console.print(escape(TARGETS), highlight=False, style="bold")
    console.print("and say where: [bold]export SLACK_URL=https://hooks.slack.com/services/…[/]")
    console.print(f"Then send a test: [bold]detector alerts test {name}[/]. All channels: docs/alerts.md")


def events_and_digests(sent: Iterable[Mapping[str, Any]]) -> tuple[list[Mapping[str, Any]], list[Mapping[str, Any]]]:
    """The events in the order of the console's queue, and the digests of what the cap held back.

    The most severe comes first, of these the one with most at stake, of these the rarest. That an event is over is no
    event of its own.
    """
    parts: dict[str, list[Mapping[str, Any]]] = {"event": [], "digest": [], "recovered": []}
    for each in sent:
        parts[each["kind"] if each["kind"] in parts else "event"].append(each)

    def urgency(event: Mapping[str, Any]) -> tuple[int, float, float]:
        return -rank(event["severity"]), -(event["amount"] or 0.0), event["p_value"]

    return sorted(parts["event"], key=urgency), parts["digest"]


def _alerts(events: Sequence[Mapping[str, Any]], truth: Truth, *, entity: str) -> Listing:
    columns = (
        Column("when", head=True),
        Column(entity, head=True),
        Column("severity", head=True),
        Column("rows", is_number=True),
        Column("at stake", is_number=True, hidden=all(event["amount"] is None for event in events)),
        Column("truth"),
        Column("why", is_sentence=True),
    )
    return Listing(columns, [_alert(event, truth(event), entity) for event in events])


def _alert(event: Mapping[str, Any], kinds: Iterable[str], entity: str) -> dict[str, object]:
    found = ", ".join(sorted(kind.replace("_", " ") for kind in kinds if kind))
    return {
        "when": f"{datetime.fromisoformat(event['first_at']):%d %b %H:%M}",
        entity: event["about"],
        "severity": Cell(event["severity"], event["severity"], COLOURS[event["severity"]]),
        "rows": event["rows"],
        "at stake": None if event["amount"] is None else Cell(event["amount"], money(event["amount"])),
        "truth": Cell(found, found, "green") if found else Cell("", "nothing wrong", "dim"),
        "why": "; ".join(reason_in_words(each) for each in event["reasons"][:2]) or event["kind"],
    }


def console_of() -> Console:
    """As wide as the terminal, or as COLUMNS says; a pipe has no width of its own."""
    known = Console().is_terminal or os.environ.get("COLUMNS", "").isdigit()
    return Console(width=None if known else WIDTH)


def show_places(folder: Path, report: Path, logged: Any, *, scores: Path, template: str) -> Table:
    """Where the results of a demo are, and what to do next."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_row("Report", from_here(report))
    table.add_row("Scores", str(scores))
    table.add_row("Configuration", str(folder / FILE_NAME))
    if logged is not None:
        table.add_row("MLflow model", f"{logged.model_uri} (version {logged.version})")
        table.add_row("MLflow run", logged.url or logged.open_with)
    table.add_row(
        "Next", f"detector init mine --template {template}, then set `source` and `columns` for your own data"
    )
    return table
