"""The program itself: its options, how errors end it, and how all commands name the configuration and print."""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Protocol

import typer
from typer.core import TyperGroup

from detector.errors import DetectorError, NotFoundError, SchemaError, SettingError, missing_extra
from pipelines.cli.project import HERE, Commands
from pipelines.disk import full_disk
from pipelines.escaping import for_json_log, for_terminal

EXIT_FAILURE, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130


ConfigFile = Annotated[
    Path,
    typer.Argument(
        metavar="CONFIG",
        help="The configuration, or the folder of its detector.yaml; by default this folder.",
        default_factory=lambda: Path(HERE),
        show_default=False,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
START, DETECT, SERVE, MODELS = "Start", "Detect", "Serve and answer", "Keep the detector good"
"""The groups of commands in the help."""


class PlainErrors(TyperGroup):
    """Commands whose errors are a message and an exit code; a traceback only if asked for."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise typer.Exit(EXIT_INTERRUPTED) from None
        except DetectorError as error:
            if _debugging(ctx):
                raise
            from pipelines.config.series import in_settings

            _complain(in_settings(str(error)))
            usage = isinstance(error, NotFoundError | SettingError | SchemaError)
            raise typer.Exit(EXIT_USAGE if usage else EXIT_FAILURE) from None
        except (typer.Exit, typer.Abort, BrokenPipeError):
            raise
        except Exception as error:
            if _debugging(ctx) or _is_usage_error(error):
                raise
            if isinstance(error, ModuleNotFoundError) and (missing := missing_extra(error)):
                _complain(str(missing))
                raise typer.Exit(EXIT_FAILURE) from None
            if full := full_disk(error, [Path.cwd()]):
                _complain(full)
                raise typer.Exit(EXIT_FAILURE) from None
            _complain(
                f"Something unexpected went wrong: {type(error).__name__}: {error}\n"
                f"`detector --debug …` or DETECTOR_DEBUG=1 shows where. Please report it with that."
            )
            raise typer.Exit(EXIT_FAILURE) from None


app = Commands(
    cls=PlainErrors,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="rich",
)


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"detector {version('anomaly-detector')}")
        raise typer.Exit


@app.callback(epilog="First steps: [bold]detector demo[/], or [bold]detector init payments[/] for your own data.")
def main(
    debug: Annotated[
        bool, typer.Option("--debug", envvar="DETECTOR_DEBUG", help="Show the traceback of an error.")
    ] = False,
    show_version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Find anomalies and fraud in tables: calibrated, explained, few."""


def _complain(message: str) -> None:
    typer.secho(for_terminal(message), fg=typer.colors.RED, err=True)


def _debugging(ctx: Any) -> bool:
    return bool(ctx.params.get("debug"))


def _is_usage_error(error: Exception) -> bool:
    """Whether the command line itself was wrong, which Typer reports with exit code 2."""
    return hasattr(error, "exit_code") and hasattr(error, "format_message")


class Report(Protocol):
    """What a job returns."""

    def summary(self) -> object:
        """What to tell the user: text, something that rich can print, or several of either."""
        ...


def now() -> datetime:
    """The clock; jobs are given the time."""
    return datetime.now(UTC)


def print_report(report: Report, *, as_json: bool = False) -> None:
    """Print what a job has to say."""
    if as_json:
        say_json(report)
        return
    summary = report.summary()
    for part in summary if isinstance(summary, list | tuple) else (summary,):
        say(part)


def say_json(content: object) -> None:
    """Print a list, a report or plain values as JSON."""
    from pipelines.listing import in_json

    typer.echo(for_json_log(in_json(content)))


def say(content: object) -> None:
    """Print text as it is, and what rich can print as rich prints it; no value in it commands the terminal."""
    if isinstance(content, str):
        typer.echo(for_terminal(content))  # else as it is: a value such as "[red]" is no markup
        return
    from rich.console import Console
    from rich.segment import Segment, Segments

    # A pipe has no width of its own; narrow columns would cut what to do.
    known = sys.stdout.isatty() or os.environ.get("COLUMNS", "").isdigit()
    console = Console(width=None if known else 160)
    found = console.render(content)  # type: ignore[arg-type]  # what a job returns, rich can print
    console.print(
        Segments([each if each.control else Segment(for_terminal(each.text), each.style) for each in found]), end=""
    )
