"""The commands that make data with known anomalies: simulate, and demo, which shows the whole job on them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.jobs import Template
from pipelines.cli.program import START, now, say

simulate_app = typer.Typer(
    no_args_is_help=True, help="Make data with known anomalies, to try things on.", rich_markup_mode="rich"
)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(epilog="Example: [bold]detector demo --folder demo[/]", rich_help_panel=START)(demo)
    app.add_typer(simulate_app, name="simulate", rich_help_panel=START)


def demo(
    template: Annotated[Template, typer.Option(help="What to show: card payments, or sensors.")] = Template.table,
    folder: Annotated[
        Path | None, typer.Option(help="Where its data and results go; by default demo, or demo-sensors.")
    ] = None,
    rows: Annotated[int, typer.Option(min=2_000, help="Rows to simulate for training.")] = 60_000,
) -> None:
    """Show the whole job on simulated data: simulate, train, score, explain."""
    from pipelines.demo.places import FOLDERS, refuse_other_project

    folder = FOLDERS[template.value] if folder is None else folder
    refuse_other_project(folder, template.value)
    if template is Template.sensors:
        from pipelines.demo.sensors import run_sensor_demo

        run_sensor_demo(folder, now=now(), rows=rows)
    else:
        from pipelines.demo.transactions import run_demo

        run_demo(folder, now=now(), rows=rows)


@simulate_app.command(epilog="Example: [bold]detector simulate sensors --rows 20000 --seed 1 --out machines.parquet[/]")
def sensors(
    rows: Annotated[int, typer.Option(min=1, help="How many, of all machines together.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where to write them: .parquet or .csv.")],
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same data.")] = 0,
    machines: Annotated[int, typer.Option(min=1, help="How many machines.")] = 1,
    sensors: Annotated[int, typer.Option(min=2, max=96, help="How many sensors each has.")] = 8,
) -> None:
    """Machines whose sensors drift, stick, jump, spike, fall silent or lose touch, with the truth in columns."""
    from pipelines.progress import progress
    from pipelines.simulate import simulate_sensors
    from pipelines.sinks.files import FileSink

    with FileSink(out) as sink, progress("Simulating", total=None):
        frame = simulate_sensors(rows, seed=seed, machines=machines, sensors=sensors)
        sink.write(frame)
    say(f"Wrote {len(frame):,} rows of {machines:,} machine{'s' if machines > 1 else ''} to {out}.")


@simulate_app.command(
    epilog="Example: [bold]detector simulate transactions --rows 100000 --seed 1 --out payments.parquet[/]"
)
def transactions(
    rows: Annotated[int, typer.Option(min=1, help="How many.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where to write them: .parquet or .csv.")],
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same data.")] = 0,
) -> None:
    """Card payments, a few of them fraudulent, with the truth in a column."""
    from pipelines.progress import progress
    from pipelines.simulate.transactions import simulate
    from pipelines.sinks.files import FileSink

    with FileSink(out) as sink, progress("Simulating", total=rows) as advance:
        frame = simulate(rows, seed=seed)
        sink.write(frame)
        advance(len(frame))
    say(f"Wrote {len(frame):,} transactions to {out}.")
