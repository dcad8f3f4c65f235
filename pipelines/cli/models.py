"""The commands about detectors in time: ``retrain``, ``drift``, and ``models`` to list, compare and move them."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from typing import TYPE_CHECKING, Annotated, Any

import typer

from detector.errors import DataError
from pipelines.cli.program import MODELS, AsJson, ConfigFile, now, say, say_json
from pipelines.cli.project import Commands

if TYPE_CHECKING:
    from pipelines.config import Config

Name = Annotated[str, typer.Argument(metavar="NAME", help="A detector's name, or its first letters.")]
Why = Annotated[str, typer.Option("--reason", help="Why; kept with the move.")]

models_app = Commands(
    no_args_is_help=True, help="The detectors kept on disk, and which of them serves.", rich_markup_mode="rich"
)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(models_app, name="models", rich_help_panel=MODELS)
    app.command(epilog="Example: [bold]detector retrain payments/detector.yaml[/]", rich_help_panel=MODELS)(retrain)
    app.command(epilog="Example: [bold]detector drift payments/detector.yaml[/]", rich_help_panel=MODELS)(drift)
    app.command(hidden=True)(flush)  # as the service calls it


def retrain(
    config: ConfigFile,
    trigger: Annotated[str, typer.Option(help="Why it is done; noted in MLflow.")] = "asked for",
    as_json: AsJson = False,
) -> None:
    """Learn again from recent rows, compare with the detector that serves, and keep the better one."""
    from pipelines.config import load_config

    settings = load_config(config, needs_secrets=False)
    from pipelines.training.retrain import retrain as run

    report = run(settings, now=now(), trigger=trigger)
    if as_json:
        say_json(report)
    else:
        _print(report.summary(), report.outcome())


def drift(config: ConfigFile, as_json: AsJson = False) -> None:
    """Compare the rows that came since the last look with those learnt from."""
    from pipelines.config import load_config
    from pipelines.monitoring.drift import watch

    report = watch(load_config(config, needs_secrets=False), now=now())
    if as_json:
        say_json(report)
        return
    _print(report.summary(), report.outcome())


@models_app.command("list", epilog="Example: [bold]detector models list payments/detector.yaml[/]")
def list_models(config: ConfigFile, as_json: AsJson = False) -> None:
    """Show the detectors on disk and every move of the champion, the latest first."""
    from pipelines.config import load_config
    from pipelines.training.registry_commands import overview, promotions_table, table

    settings = load_config(config, needs_secrets=False)
    models, moves = table(settings), promotions_table(settings)
    if as_json:
        say_json({"models": models, "moves": moves})
        return
    for part in (models, *([moves] if moves.rows else []), *overview(settings)):
        say(part)


@models_app.command(epilog="Example: [bold]detector models compare payments/detector.yaml 3f2a 81be[/]")
def compare(
    config: ConfigFile,
    first: Annotated[str, typer.Argument(metavar="[CHAMPION]", help="By default the champion.")] = "",
    second: Annotated[str, typer.Argument(metavar="[CHALLENGER]", help="By default the challenger.")] = "",
    as_json: AsJson = False,
) -> None:
    """Compare two detectors on recent rows that neither learnt from; nothing is moved."""
    from pipelines.config import load_config
    from pipelines.training.registry_commands import compare_models

    try:
        found = compare_models(load_config(config, needs_secrets=False), first, second, now=now())
    except DataError as error:
        if not _is_job():
            raise
        _print([], {"outcome": "skipped", "note": str(error)})
        return
    if _is_job():
        _print([], found.outcome())
        return
    if as_json:
        say_json(found)
        return
    from rich.markdown import Markdown

    decision, *rest = found.summary()
    say(Markdown(decision) if sys.stdout.isatty() else decision)
    for line in rest:
        say(line)


@models_app.command(epilog="Example: [bold]detector models promote payments/detector.yaml 3f2a[/]")
def promote(
    config: ConfigFile,
    name: Annotated[str, typer.Argument(metavar="[NAME]", help="By default the challenger.")] = "",
    reason: Why = "A person decided so.",
) -> None:
    """Let a detector serve, from one moment to the next."""
    from pipelines.config import load_config
    from pipelines.training.registry_commands import promote_model

    settings = load_config(config, needs_secrets=False)
    with _trail(settings, "promote", reason):
        for line in promote_model(settings, name, reason=reason, now=now()):
            say(line)


@models_app.command(
    epilog="Example: [bold]detector models rollback payments/detector.yaml --reason 'too many alerts'[/]"
)
def rollback(config: ConfigFile, reason: Why = "A person decided so.") -> None:
    """Let the detector serve that served before."""
    from pipelines.config import load_config
    from pipelines.training.registry_commands import rollback_model

    settings = load_config(config, needs_secrets=False)
    with _trail(settings, "rollback", reason):
        for line in rollback_model(settings, reason=reason, now=now()):
            say(line)


@models_app.command(epilog="Example: [bold]detector models flush payments/detector.yaml[/]")
def flush(
    config: ConfigFile,
    refused: Annotated[
        bool, typer.Option("--refused", help="Also what MLflow refused, once the cause is gone.")
    ] = False,
) -> None:
    """Send MLflow what waits for it."""
    from pipelines.config import load_config
    from pipelines.tracking.messages import flush_tracking, spool_of, waiting_note

    settings = load_config(config, needs_secrets=False)
    if refused:
        spool_of(settings).take_back()
    sent = flush_tracking(settings)
    lines = [f"Sent {sent.entries:,} to MLflow; {sent.waiting:,} wait."]
    lines += waiting_note(sent)
    lines += [f"Refused by MLflow and kept: {name}: {reason}" for name, reason in spool_of(settings).refused()]
    _print(lines, {"rows": sent.entries, "note": lines[0], "outcome": "done" if sent.entries else "skipped"})


@contextmanager
def _trail(settings: Config, action: str, reason: str) -> Iterator[None]:
    """Write into the audit trail of the service, if there is one, what was done; looked for before it is done."""
    from pipelines.registry.registry import ModelRegistry
    from pipelines.store import existing_store
    from pipelines.store.trail import who, write_down

    store = existing_store(settings.service.store, writes=True)
    with nullcontext() if store is None else closing(store):
        yield
        if store is not None:
            done = {"to": ModelRegistry(settings.bundle).served()}
            with store.write() as session:
                write_down(session, action, actor=who(), reason=reason, arguments=done, now=now())


def _print(lines: Sequence[object], outcome: dict[str, Any]) -> None:
    """For people; and for the service, which started the command, as the last line."""
    for line in lines:
        say(line)
    if _is_job():
        say(json.dumps(outcome, ensure_ascii=False))


def _is_job() -> bool:
    """Whether the service has started the command."""
    return "DETECTOR_RUN" in os.environ
