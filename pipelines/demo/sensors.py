"""The whole job on simulated machines: simulate, train, log, register, score what comes next, explain, compare."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd

from detector.metrics import ranking
from detector.metrics.budget import decision_metrics
from detector.metrics.events import event_metrics
from pipelines.config import FILE_NAME, load_config
from pipelines.demo.transactions import COLOURS, clear_away, console_of, put, show_alerts, show_places
from pipelines.jobs.context import Context
from pipelines.listing import Cell, Column, Listing
from pipelines.progress import progress
from pipelines.scoring.job import score_new
from pipelines.scoring.one_off import score
from pipelines.service.housekeeping import deliver
from pipelines.simulate import simulate_sensors
from pipelines.sinks.files import FileSink
from pipelines.store import open_store
from pipelines.training.train import train

SEED = 7
MACHINES = 3
SENSORS = 6
FRESH_SHARE = 0.25
SHOWN = 12
CONFIG = """\
# The configuration of `detector demo --template sensors`: simulated machines.
name: demo-machines
kind: sensors

source:
  path: readings             # a folder; what is put there later is scored once

columns:
  time: time
  entity: machine
  label: anomaly             # used to leave known faults out of training, and to tell how good the detector is
  ignore: [anomaly_kind, anomaly_sensor]
  names:                     # what people call the sensors, and what they measure in
    motor_current_a: {name: motor current, unit: A}
    speed_rpm: {name: speed, unit: rpm}
    vibration_mm_s: {name: vibration, unit: mm/s}
    pressure_bar: {name: pressure, unit: bar}
    flow_l_min: {name: flow, unit: l/min}
    bearing_temperature_c: {name: bearing temperature, unit: °C}

series:
  models: entity             # the machines are not alike: one model for each

policy:
  quantile: 0.999            # one normal minute in a thousand

alerts:
  file: {path: alerts.jsonl} # one JSON object a line
  log: {enabled: false}      # the other one: the log of the service
  recovery: true             # say so when a machine is well again

output:
  path: scores.parquet

service:
  start: new                 # what is there at the start is what was learnt from
  settle: 0
"""


def run_sensor_demo(folder: Path, *, now: datetime, rows: int = 60_000) -> None:
    """Run the whole job in a folder and print what a new user should see.

    - ``folder``: gets the data, the configuration and all results; what an earlier demo left is replaced.
    - ``rows``: readings of all machines to train on; a quarter as many, later ones are scored.
    """
    started = time.perf_counter()
    console = console_of()
    clear_away(folder, CONFIG)
    (folder / FILE_NAME).write_text(CONFIG, encoding="utf-8")
    config = load_config(folder)
    past, fresh = _simulate(folder, rows, until=now)
    put(past, config, "past", now=now)

    console.rule("[bold]1  Train[/] on past readings")
    console.print(f"{len(past):,} simulated minutes of {MACHINES} machines with {SENSORS} sensors each.")
    trained = train(config, now=now)
    console.print("\n".join(trained.summary()), highlight=False)

    console.rule("[bold]2  Score[/] new readings")
    report = score(config, input=str(folder / "fresh.parquet"), now=now)
    console.print(
        f"Scored {report.scored:,} rows in {report.seconds:.1f} s; flagged {report.flagged:,}.", highlight=False
    )
    events = pd.read_parquet(folder / "scores.events.parquet")

    console.rule("[bold]3  Events[/], the riskiest first")
    console.print(_events(events, fresh))

    console.rule("[bold]4  Compare with the known truth[/]")
    for line in _against_truth(pd.read_parquet(folder / "scores.parquet"), events, fresh):
        console.print(line, highlight=False)

    console.rule("[bold]5  Alerts[/], one for each event, the most urgent first")
    store = open_store(config.service.store)
    try:
        context = Context(config, store, now)
        score_new(context)  # the first look of a service: what is there was learnt from
        put(fresh, config, "fresh", now=now)
        console.print(f"{score_new(context).note.capitalize()}.", highlight=False)
        deliver(context)
        show_alerts(console, config, store, truth=lambda event: _kinds(event, fresh))
    finally:
        store.close()

    console.rule("[bold]6  Where things are[/]")
    console.print(
        show_places(folder, config.report, trained.logged, scores=folder / "scores.parquet", template="sensors")
    )
    console.print(f"Done in {time.perf_counter() - started:.0f} s.", highlight=False)


def _simulate(folder: Path, rows: int, *, until: datetime) -> tuple[pd.DataFrame, pd.DataFrame]:
    total = rows + round(FRESH_SHARE * rows)
    start = until.replace(minute=0, second=0, microsecond=0, tzinfo=None) - timedelta(minutes=total // MACHINES)
    with progress("Simulating machines", total=None):
        frame = simulate_sensors(
            total, seed=SEED, machines=MACHINES, sensors=SENSORS, normal_share=0.7, anomaly_share=0.08, start=start
        )
    with FileSink(folder / "fresh.parquet") as sink:
        sink.write(frame.iloc[rows:])
    return frame.iloc[:rows], frame.iloc[rows:]


def _kinds(event: Mapping[str, Any], fresh: pd.DataFrame) -> set[str]:
    """The kinds of fault that an alert holds."""
    first, last = (pd.Timestamp(event[name]).tz_localize(None) for name in ("first_at", "last_at"))
    return set(fresh.loc[(fresh["machine"] == event["about"]) & fresh["time"].between(first, last), "anomaly_kind"])


def _events(events: pd.DataFrame, fresh: pd.DataFrame) -> Listing:
    columns = (
        Column("from", head=True),
        Column("to"),
        Column("machine", head=True),
        Column("severity", head=True),
        Column("truth"),
        Column("reasons", is_sentence=True),
    )
    rows = []
    for event in events.nlargest(SHOWN, "risk").itertuples():
        truth = _truth_of(event, fresh)
        rows.append(
            {
                "from": f"{event.start:%d %b %H:%M}",
                "to": f"{event.end:%H:%M}",
                "machine": str(event.entity),
                "severity": Cell(event.severity, event.severity, COLOURS[event.severity]),
                "truth": Cell(truth, truth, "green") if truth else Cell("", "normal", "dim"),
                "reasons": event.reasons.replace(" of the risk", ""),
            }
        )
    return Listing(columns, rows)


def _truth_of(event: object, fresh: pd.DataFrame) -> str:
    """The kinds of fault that an event holds."""
    inside = fresh[(fresh["machine"] == event.entity) & fresh["time"].between(event.start, event.end)]  # type: ignore[attr-defined]  # a line of the events
    return ", ".join(sorted({kind.replace("_", " ") for kind in inside["anomaly_kind"] if kind}))


def _against_truth(scores: pd.DataFrame, events: pd.DataFrame, fresh: pd.DataFrame) -> Sequence[str]:
    known = fresh[["time", "machine", "anomaly", "anomaly_kind"]]
    joined = scores.merge(known, on=["time", "machine"]).sort_values(["machine", "time"], ignore_index=True)
    ranked = ranking.ranking_metrics(joined["anomaly"], joined["risk"])
    decided = decision_metrics(joined["anomaly"], joined["flagged"])
    found = event_metrics(joined["anomaly"], joined["flagged"], joined["machine"])
    lines = [
        f"AUROC {ranked['auroc']:.3f}, average precision {ranked['ap']:.3f} (blind: {ranked['prevalence']:.3f}).",
        (
            f"Flagged {decided['flagged']:.0f} of {len(joined):,} rows: precision {decided['precision']:.2f}, recall "
            f"{decided['recall']:.2f}. Found {found['found_events']:.0f} of {found['known_events']:.0f} faults; "
            f"{len(events)} events."
        ),
    ]
    faults = joined[joined["anomaly"] == 1]
    number = (faults.index.to_series().diff() != 1).cumsum()
    each = faults.groupby(number.to_numpy()).agg(kind=("anomaly_kind", "first"), found=("flagged", "any"))
    for kind, hit in each.groupby("kind")["found"]:
        lines.append(f"  {str(kind).replace('_', ' '):<22}{int(hit.sum()):>4} of {len(hit)}")
    return lines
