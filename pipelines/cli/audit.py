"""The commands of who did what, and of what is to be kept of it: ``audit`` and ``forget``."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.jobs import day
from pipelines.cli.program import SERVE, AsJson, ConfigFile, now, print_report, say, say_json

Since = Annotated[datetime | None, typer.Option(parser=day, metavar="DAY", help="From that day on (UTC).")]
Until = Annotated[datetime | None, typer.Option(parser=day, metavar="DAY", help="Before that day (UTC).")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(epilog="Example: [bold]detector audit payments --action verdict[/]", rich_help_panel=SERVE)(audit)
    app.command(epilog="Example: [bold]detector forget payments C00014 --dry-run[/]", rich_help_panel=SERVE)(forget)


def audit(
    config: ConfigFile,
    last: Annotated[int, typer.Option(min=1, help="Records to show.")] = 20,
    actor: Annotated[str, typer.Option(help="Only what this person, or key, did.")] = "",
    action: Annotated[str, typer.Option(help="Only this, or what begins with this word: verdict, promote, run …")] = "",
    since: Since = None,
    until: Until = None,
    export: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write all of it to a .csv or .jsonl file; - for JSON lines.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show who had what done: verdicts, silences, jobs, moves of the detector, keys, settings, deletions."""
    from detector.errors import SettingError, SinkError
    from pipelines.config import load_config
    from pipelines.service.listings import trail_table
    from pipelines.store import open_store
    from pipelines.store.trail import FORMS, TrailQuery, exported

    settings = load_config(config, needs_secrets=False)
    wanted = TrailQuery(_utc(since), _utc(until), actor, action, most=last)
    form = "jsonl" if export is not None and str(export) == "-" else export and export.suffix.lstrip(".").lower()
    if export is not None and form not in FORMS:
        raise SettingError(f"--export expected a .csv or .jsonl file, received {str(export)!r}.")
    store = open_store(settings.service.store)
    if export is None:
        found = trail_table(store, wanted)
        say_json(found) if as_json else say(found)
        return
    pieces = exported(store, wanted, form=str(form))
    if str(export) == "-":
        sys.stdout.writelines(pieces)
        return
    try:
        with export.open("w", encoding="utf-8", newline="") as file:
            file.writelines(pieces)
    except OSError as error:
        raise SinkError(f"{export} cannot be written: {error.strerror}. Name another file.") from error
    say(f"Wrote {export}.")


def forget(
    config: ConfigFile,
    entity: Annotated[str, typer.Argument(metavar="ENTITY", help="A value of `columns.entity`: a card, an account.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be deleted.")] = False,
    reason: Annotated[str, typer.Option(help="Why, for the audit trail.")] = "",
    as_json: AsJson = False,
) -> None:
    """Delete what the service keeps of one entity, and say where else it can be; the service must be stopped."""
    from pipelines.config import load_config
    from pipelines.service.forget import forget as run
    from pipelines.store import open_store
    from pipelines.store.trail import who

    settings = load_config(config, needs_secrets=False)
    store = open_store(settings.service.store)
    found = run(settings, store, entity, actor=who(), reason=reason, now=now(), dry=dry_run)
    print_report(found, as_json=as_json)


def _utc(moment: datetime | None) -> datetime | None:
    return None if moment is None else moment.replace(tzinfo=UTC)
