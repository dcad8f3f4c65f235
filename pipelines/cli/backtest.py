"""The command ``detector backtest``."""

from __future__ import annotations

from datetime import date, datetime, time
from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.words import ConfigFile, now, tell


def day(text: str) -> datetime:
    """A day as people write it in a command; what is no day is a mistake of the command line."""
    try:
        return datetime.combine(date.fromisoformat(text), time())
    except ValueError:
        raise typer.BadParameter(f"expected a day such as 2024-03-01, received {text!r}.") from None


Day = Annotated[datetime, typer.Option("--from", parser=day, metavar="DAY", help="The first day that is judged.")]
LastDay = Annotated[
    datetime, typer.Option("--to", parser=day, metavar="DAY", help="The day after the last that is judged.")
]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        epilog="Example: [bold]detector backtest payments --from 2024-03-01 --to 2024-06-01 --every 7d[/]",
    )(backtest)


def backtest(
    config: ConfigFile,
    start: Day,
    end: LastDay,
    every: Annotated[str, typer.Option(metavar="LENGTH", help="A period; each begins with learning again.")] = "7d",
    train: Annotated[str, typer.Option(metavar="LENGTH", help="How far back a period learns from.")] = "28d",
    delay: Annotated[str, typer.Option(metavar="LENGTH", help="After which labels are known, unless reported.")] = "7d",
    k: Annotated[int, typer.Option(min=1, help="Entities a day that people can look at.")] = 100,
    seeds: Annotated[int, typer.Option(min=1, help="Detectors of different seeds a period.")] = 1,
    scenario: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Names the kind of each anomaly; never learnt from.")
    ] = None,
    folder: Annotated[Path | None, typer.Option(help="Where the report goes; beside the report of training.")] = None,
) -> None:
    """Walk forward through the past: what would have been flagged, caught and missed."""
    from pipelines.backtest.plan import Plan
    from pipelines.backtest.run import backtest as run
    from pipelines.config import load_config

    plan = Plan(start, end, every=every, train=train, delay=delay, k=k, seeds=seeds, scenario=scenario)
    tell(run(load_config(config), plan, now=now(), folder=folder))
