"""What all commands share: how they name the configuration, and how they speak."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Protocol

import typer

ConfigFile = Annotated[
    Path, typer.Argument(metavar="CONFIG", help="The configuration file, or the folder of its detector.yaml.")
]


class Report(Protocol):
    """What a job returns."""

    def summary(self) -> object:
        """What to tell the user: text, something that rich can print, or several of either."""
        ...


def now() -> datetime:
    """The clock; jobs are given the time."""
    return datetime.now(UTC)


def tell(report: Report) -> None:
    """Print what a job has to say."""
    summary = report.summary()
    for part in summary if isinstance(summary, list | tuple) else (summary,):
        say(part)


def say(content: object) -> None:
    """Print text as it is, and what rich can print as rich prints it."""
    if isinstance(content, str):
        typer.echo(content)  # as it is: a value such as "[red]" is no markup
        return
    from rich.console import Console

    # A pipe has no width of its own; narrow columns would cut what to do.
    Console(width=None if sys.stdout.isatty() else 160).print(content)
