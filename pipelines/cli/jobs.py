"""The commands of one job: init, train, score, evaluate, doctor, backtest."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import date, datetime, time
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from detector.errors import SettingError
from pipelines.cli.program import DETECT, EXIT_FAILURE, START, AsJson, ConfigFile, now, print_report, say, say_json
from pipelines.row_files import named_as_rows


class Template(StrEnum):
    """What a new configuration is for."""

    table = "table"
    transactions = "transactions"
    sensors = "sensors"


class Engine(StrEnum):
    """What scores."""

    local = "local"
    spark = "spark"


def day(text: str) -> datetime:
    """A day as people write it in a command; what is no day is a mistake of the command line."""
    try:
        return datetime.combine(date.fromisoformat(text), time())
    except ValueError:
        raise typer.BadParameter(f"expected a day such as 2024-03-01, received {text!r}.") from None


Day = Annotated[datetime, typer.Option("--from", parser=day, metavar="DAY", help="The first day that is scored.")]
LastDay = Annotated[
    datetime, typer.Option("--to", parser=day, metavar="DAY", help="The day after the last that is scored.")
]


def register(app: typer.Typer) -> None:
    """Add the commands."""

    def add(panel: str, example: str, command: Callable[..., None]) -> None:
        app.command(epilog=f"Example: [bold]detector {example}[/]", rich_help_panel=panel)(command)

    add(START, "init payments.csv", init)
    add(START, "doctor payments/detector.yaml", doctor)
    add(DETECT, "train payments/detector.yaml", train)
    add(DETECT, "score payments/detector.yaml --input today.parquet --output alerts.csv", score)
    add(DETECT, "explain payments T000074629 --input today.parquet", explain)
    add(DETECT, "evaluate payments/detector.yaml --input labelled.parquet", evaluate)
    add(DETECT, "backtest payments --from 2024-03-01 --to 2024-06-01 --every 7d", backtest)


def init(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="FILE|DIR",
            help="A file, or a folder of files, to look at; else a folder for the template's configuration.",
        ),
    ],
    template: Annotated[Template, typer.Option(help="Of a folder without rows: what it is for.")] = Template.table,
    folder: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Of rows: where the configuration goes; by default here.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the one that is there.")] = False,
    as_json: AsJson = False,
) -> None:
    """Look at a file and propose a configuration for it, or write a commented one to start from."""
    if path.is_file() or _holds_rows(path):
        from pipelines.doctor.init import init as run

        print_report(run(path, folder=folder or Path(), force=force), as_json=as_json)
        return
    if named_as_rows(path):
        raise SettingError(f"There is no file {path}. Name one that is there, or a folder for a new configuration.")
    from detector.errors import SinkError
    from pipelines.config import FILE_NAME
    from pipelines.config.template import render

    file = path / FILE_NAME
    if file.exists() and not force:
        raise SettingError(f"{file} is there already. Name another folder, or add --force to replace it.")
    try:
        path.mkdir(parents=True, exist_ok=True)
        file.write_text(render(template.value), encoding="utf-8")
    except OSError as error:
        raise SinkError(f"{file} cannot be written: {error.strerror}. Name another folder.") from error
    say(f"Wrote {file}.\nSet `source` and `columns` in it, then run: detector doctor {file}")


def train(config: ConfigFile, as_json: AsJson = False) -> None:
    """Learn what is normal, and keep the detector, the report and the MLflow run."""
    from pipelines.config import load_config

    settings = load_config(config, needs_secrets=False)
    from pipelines.training.train import train as run

    print_report(run(settings, now=now()), as_json=as_json)


def score(
    config: ConfigFile,
    input: Annotated[  # noqa: A002 - the option's name
        str | None,
        typer.Option(metavar="FILE", help="Score these rows (a file, folder or pattern) instead."),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Write here (.parquet or .csv; with Spark a folder) instead."),
    ] = None,
    engine: Annotated[Engine, typer.Option(help="Score on this machine, or where Spark runs.")] = Engine.local,
    batch: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="With Spark: what is scored; scored again, it is replaced. By default named by its files.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Score rows with the trained detector: risk, p-value, flag, severity and reasons."""
    from pipelines.config import load_config

    settings = load_config(config, needs_secrets=False)
    if engine is Engine.spark:
        from pipelines.spark.score import score_on_spark

        print_report(score_on_spark(settings, input=input, output=output, batch=batch, now=now()), as_json=as_json)
        return
    if batch is not None:
        raise SettingError("--batch names what Spark scores. Add --engine spark, or leave it out.")
    _refuse_overwriting(input or settings.source.path, output or settings.output.path)
    from pipelines.scoring.one_off import score as run

    print_report(run(settings, input=input, output=output, now=now()), as_json=as_json)


def explain(
    config: ConfigFile,
    key: Annotated[str, typer.Argument(metavar="KEY", help="The row's key; its number, from 0, where rows have none.")],
    input: Annotated[  # noqa: A002 - the option's name
        str | None, typer.Option(metavar="FILE", help="The rows it is among (a file, folder or pattern); the source's.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Explain one row of a table, flagged or not: its risk, what decided, and its reasons."""
    from pipelines.config import load_config
    from pipelines.scoring.explained import explain as run

    print_report(run(load_config(config, needs_secrets=False), key, input=input, now=now()), as_json=as_json)


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
    as_json: AsJson = False,
) -> None:
    """Compare the trained detector's scores with known labels, or several encoders with each other."""
    from pipelines.config import load_config

    settings = load_config(config, needs_secrets=False)
    if encoders is not None:
        from pipelines.lab.evaluate import evaluate_encoders

        names = [name.strip() for name in encoders.split(",") if name.strip()]
        print_report(evaluate_encoders(settings, encoders=names, input=input, now=now()), as_json=as_json)
        return
    from pipelines.training.evaluate import evaluate as run

    print_report(run(settings, input=input, now=now()), as_json=as_json)


def _holds_rows(folder: Path) -> bool:
    """Whether a folder holds files of rows, and is none that has a configuration."""
    if not folder.is_dir() or (folder / "detector.yaml").exists():
        return False
    return any(named_as_rows(each) and each.is_file() for each in folder.iterdir())


def doctor(config: ConfigFile, as_json: AsJson = False) -> None:
    """Check every path, column and connection of a configuration, and say what is wrong."""
    from pipelines.config import load_config
    from pipelines.doctor import as_summary, as_table, examine

    checks = examine(load_config(config, needs_secrets=False))
    if as_json:
        say_json(as_table(checks))
    else:
        say(as_table(checks))
        say(as_summary(checks))
    if any(check.state == "problem" for check in checks):
        raise typer.Exit(EXIT_FAILURE)


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
    as_json: AsJson = False,
) -> None:
    """Walk forward through the past: what would have been flagged, caught and missed."""
    from pipelines.backtest.plan import Plan
    from pipelines.backtest.run import backtest as run
    from pipelines.config import load_config

    plan = Plan(start, end, every=every, train=train, delay=delay, k=k, seeds=seeds, scenario=scenario)
    print_report(run(load_config(config, needs_secrets=False), plan, now=now(), folder=folder), as_json=as_json)


def _refuse_overwriting(source: str | None, target: str | None) -> None:
    if source is not None and target is not None and os.path.abspath(source) == os.path.abspath(target):  # noqa: PTH100
        raise SettingError(f"The input and the output are the same file, {target}. Name another output.")
