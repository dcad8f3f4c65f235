"""The command line ``detector``: it reads options, calls one job, prints what the job says.

Exit codes: 0 done; 2 the command or the configuration is wrong; 1 the job failed; 130 interrupted.
Heavy packages are imported inside the commands, so that ``--help`` is quick and scoring loads no TensorFlow.
"""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime
from enum import StrEnum
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Protocol

import typer
from typer.core import TyperGroup

from detector.errors import DetectorError, SchemaError, SettingError
from pipelines import cli_alerts, cli_backtest, cli_service

EXIT_FAILURE, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130


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
            _complain(str(error))
            usage = isinstance(error, SettingError | SchemaError)
            raise typer.Exit(EXIT_USAGE if usage else EXIT_FAILURE) from None
        except (typer.Exit, typer.Abort, BrokenPipeError):
            raise
        except Exception as error:
            if _debugging(ctx) or _is_usage_error(error):
                raise
            _complain(
                f"Something unexpected went wrong: {type(error).__name__}: {error}\n"
                f"`detector --debug …` or DETECTOR_DEBUG=1 shows where. Please report it with that."
            )
            raise typer.Exit(EXIT_FAILURE) from None


app = typer.Typer(
    cls=PlainErrors,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="rich",
)
simulate_app = typer.Typer(
    no_args_is_help=True, help="Make data with known anomalies, to try things on.", rich_markup_mode="rich"
)
app.add_typer(simulate_app, name="simulate")
app.add_typer(cli_alerts.alerts_app, name="alerts")
cli_service.register(app)
cli_backtest.register(app)


class Template(StrEnum):
    """What a new configuration is for."""

    table = "table"
    transactions = "transactions"
    sensors = "sensors"


class Report(Protocol):
    """What a job returns."""

    def summary(self) -> object:
        """What to tell the user: text, something that rich can print, or several of either."""
        ...


ConfigFile = Annotated[
    Path, typer.Argument(metavar="CONFIG", help="The configuration file, or the folder of its detector.yaml.")
]


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


@app.command(epilog="Example: [bold]detector init payments --template table[/]")
def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder to write it to.")],
    template: Annotated[Template, typer.Option(help="What it is for.")] = Template.table,
    force: Annotated[bool, typer.Option("--force", help="Replace the one that is there.")] = False,
) -> None:
    """Write a commented detector.yaml to start from."""
    from detector.errors import SinkError
    from pipelines.config import FILE_NAME
    from pipelines.config.template import render

    file = folder / FILE_NAME
    if file.exists() and not force:
        raise SettingError(f"{file} is there already. Name another folder, or add --force to replace it.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file.write_text(render(template.value), encoding="utf-8")
    except OSError as error:
        raise SinkError(f"{file} cannot be written: {error.strerror}. Name another folder.") from error
    say(f"Wrote {file}.\nSet `source` and `columns` in it, then run: detector doctor {file}")


@app.command(epilog="Example: [bold]detector train payments/detector.yaml[/]")
def train(config: ConfigFile) -> None:
    """Learn what is normal, and keep the detector, the report and the MLflow run."""
    from pipelines.config import load_config

    settings = load_config(config)
    from pipelines.train import train as run

    _tell(run(settings, now=_now()))


@app.command(epilog="Example: [bold]detector score payments/detector.yaml --input today.parquet --output alerts.csv[/]")
def score(
    config: ConfigFile,
    input: Annotated[  # noqa: A002 - the option's name
        str | None,
        typer.Option(metavar="FILE", help="Score these rows (a file, folder or pattern) instead."),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Write here (.parquet or .csv) instead."),
    ] = None,
) -> None:
    """Judge rows with the trained detector: risk, p-value, flag, severity and reasons."""
    from pipelines.config import load_config

    settings = load_config(config)
    _refuse_overwriting(input or settings.source.path, output or settings.output.path)
    from pipelines.score import score as run

    _tell(run(settings, input=input, output=output, now=_now()))


@app.command(epilog="Example: [bold]detector evaluate payments/detector.yaml --input labelled.parquet[/]")
def evaluate(
    config: ConfigFile,
    input: Annotated[  # noqa: A002 - the option's name
        str, typer.Option(metavar="FILE", help="Rows with the label column (a file, folder or pattern).")
    ],
    encoders: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="Compare encoders on these rows instead, such as dense,variational (see docs/encoders).",
        ),
    ] = None,
) -> None:
    """Compare the trained detector's verdicts with known labels, or several encoders with each other."""
    from pipelines.config import load_config

    settings = load_config(config)
    if encoders is not None:
        from pipelines.evaluate_encoders import evaluate_encoders

        names = [name.strip() for name in encoders.split(",") if name.strip()]
        _tell(evaluate_encoders(settings, encoders=names, input=input, now=_now()))
        return
    from pipelines.evaluate import evaluate as run

    _tell(run(settings, input=input, now=_now()))


@app.command(epilog="Example: [bold]detector doctor payments/detector.yaml[/]")
def doctor(config: ConfigFile) -> None:
    """Check every path, column and connection of a configuration, and say what is wrong."""
    from pipelines.config import load_config
    from pipelines.doctor import as_summary, as_table, examine

    checks = examine(load_config(config))
    say(as_table(checks))
    say(as_summary(checks))
    if any(check.state == "problem" for check in checks):
        raise typer.Exit(EXIT_FAILURE)


@app.command(epilog="Example: [bold]detector demo --folder demo[/]")
def demo(
    template: Annotated[Template, typer.Option(help="What to show: card payments, or sensors.")] = Template.table,
    folder: Annotated[Path, typer.Option(help="Where its data and results go.")] = Path("demo"),
    rows: Annotated[int, typer.Option(min=2_000, help="Rows to simulate for training.")] = 60_000,
) -> None:
    """Show the whole job on simulated data: simulate, train, score, explain."""
    if template is Template.sensors:
        from pipelines.demo_sensors import run_sensor_demo

        run_sensor_demo(folder, now=_now(), rows=rows)
    else:
        from pipelines.demo import run_demo

        run_demo(folder, now=_now(), rows=rows)


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
    from pipelines.sinks import FileSink

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
    from pipelines.sinks import FileSink

    with FileSink(out) as sink, progress("Simulating", total=rows) as advance:
        frame = simulate(rows, seed=seed)
        sink.write(frame)
        advance(len(frame))
    say(f"Wrote {len(frame):,} transactions to {out}.")


def _now() -> datetime:
    return datetime.now(UTC)


def _refuse_overwriting(source: str | None, target: str | None) -> None:
    if source is not None and target is not None and os.path.abspath(source) == os.path.abspath(target):  # noqa: PTH100
        raise SettingError(f"The input and the output are the same file, {target}. Name another output.")


def _tell(report: Report) -> None:
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


def _complain(message: str) -> None:
    typer.secho(message, fg=typer.colors.RED, err=True)


def _debugging(ctx: Any) -> bool:
    return bool(ctx.params.get("debug"))


def _is_usage_error(error: Exception) -> bool:
    """Whether the command line itself was wrong, which Typer reports with exit code 2."""
    return hasattr(error, "exit_code") and hasattr(error, "format_message")


from pipelines import cli_models  # noqa: E402, F401 - it registers its commands
