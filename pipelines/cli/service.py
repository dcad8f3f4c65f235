"""The commands of the service: serve, jobs, backfill, replay."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from detector.errors import SettingError
from pipelines.cli.program import EXIT_FAILURE, SERVE, AsJson, ConfigFile, now, say, say_json
from pipelines.cli.project import Commands

if TYPE_CHECKING:
    from pipelines.config import Config
    from pipelines.store import Run, Store

JobName = Annotated[str, typer.Argument(metavar="JOB", help="score, retrain, drift, deliver or housekeeping.")]
Reason = Annotated[str, typer.Option(metavar="TEXT", help="Why, for the trail.")]

jobs_app = Commands(no_args_is_help=True, help="See and steer what the service does.", rich_markup_mode="rich")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(epilog="Example: [bold]detector status payments[/]", rich_help_panel=SERVE)(status)
    app.command(epilog="Example: [bold]detector serve payments/detector.yaml[/]", rich_help_panel=SERVE)(serve)
    app.add_typer(jobs_app, name="jobs", rich_help_panel=SERVE)
    app.command(epilog='Example: [bold]detector backfill payments --reason "history"[/]', rich_help_panel=SERVE)(
        backfill
    )
    app.command(
        epilog='Example: [bold]detector replay payments --batch 12 --reason "new detector"[/]', rich_help_panel=SERVE
    )(replay)


def status(config: ConfigFile, as_json: AsJson = False) -> None:
    """Show what serves, what runs, what failed, what waits, and what to do next."""
    from pipelines.config import file_of, load_config
    from pipelines.service.status import status_of, unreadable_status

    try:
        settings = load_config(config, needs_secrets=False)
    except SettingError as error:
        unreadable = unreadable_status(file_of(config), error, now=now())
        if unreadable is None:
            raise
        found = unreadable
    else:
        found = status_of(settings, now=now(), place=str(config))
    if as_json:
        say_json(found)
    else:
        for part in found.summary():
            say(part)
    if not found.well:
        raise typer.Exit(EXIT_FAILURE)


def serve(config: ConfigFile) -> None:
    """Score, learn again and look for drift on a schedule, until it is stopped."""
    settings, store = _open(config, needs_secrets=True)
    from pipelines.console.application import mount_web
    from pipelines.progress import be_quiet
    from pipelines.service.logs import configure
    from pipelines.service.serve import serve as run

    be_quiet()
    configure(settings.service.log)
    run(settings, store, mount=mount_web)


def backfill(
    config: ConfigFile,
    reason: Reason = "",
    file: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="A file; without any, all that were skipped.")
    ] = None,
    since: Annotated[str | None, typer.Option(metavar="POSITION", help="Of a table: after this position.")] = None,
    until: Annotated[str | None, typer.Option(metavar="POSITION", help="Of a table: up to this position.")] = None,
    as_json: AsJson = False,
) -> None:
    """Score rows that were left out; rows that have scores are left alone."""
    _rescore(config, "backfill", as_json=as_json, reason=reason, files=file, since=since, until=until)


def replay(
    config: ConfigFile,
    reason: Reason = "",
    batch: Annotated[list[int] | None, typer.Option(metavar="N", help="A batch; without any, all.")] = None,
    since: Annotated[str | None, typer.Option(metavar="TIME", help="Scored at this time or later.")] = None,
    until: Annotated[str | None, typer.Option(metavar="TIME", help="Scored before this time.")] = None,
    as_json: AsJson = False,
) -> None:
    """Score batches again with the detector that serves now."""
    _rescore(config, "replay", as_json=as_json, reason=reason, batches=batch, since=since, until=until)


@jobs_app.command("list", epilog="Example: [bold]detector jobs list payments --last 20[/]")
def list_jobs(
    config: ConfigFile,
    last: Annotated[int, typer.Option(min=0, help="Runs to show.")] = 10,
    as_json: AsJson = False,
) -> None:
    """Show when each job runs next, and the last runs."""
    from pipelines.service.listings import jobs_table, runs_table

    settings, store = _open(config)
    jobs, runs = jobs_table(settings, store), runs_table(store, last)
    if as_json:
        say_json({"jobs": jobs, "runs": runs})
        return
    say(jobs)
    if last:
        say(runs)


@jobs_app.command("trail", epilog="Example: [bold]detector jobs trail payments --last 20[/]")
def show_trail(
    config: ConfigFile,
    last: Annotated[int, typer.Option(min=1, help="Records to show.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Show who had rows scored again, jobs run or left out, and detectors moved: when, and why."""
    from pipelines.service.listings import trail_table
    from pipelines.store.trail import TrailQuery

    _, store = _open(config)
    found = trail_table(store, TrailQuery(most=last))
    say_json(found) if as_json else say(found)


@jobs_app.command("run", epilog="Example: [bold]detector jobs run payments score[/]")
def run_job(config: ConfigFile, job: JobName, as_json: AsJson = False) -> None:
    """Run a job now and wait for it; an instance that serves is asked to."""
    from pipelines.jobs.steering import check_job
    from pipelines.store.trail import who, write_down

    check_job(job)
    settings, store = _open(config, needs_secrets=True)
    with store.write() as session:
        write_down(session, f"run {job}", actor=who(), now=now())
    _print(_run(settings, store, job, {}), as_json=as_json)


@jobs_app.command("pause", epilog="Example: [bold]detector jobs pause payments retrain[/]")
def pause(config: ConfigFile, job: JobName) -> None:
    """Leave a job out until it is resumed."""
    _set_paused(config, job, paused=True)
    typer.echo(f"{job} is paused. Resume it with: detector jobs resume {config} {job}")


@jobs_app.command("resume", epilog="Example: [bold]detector jobs resume payments retrain[/]")
def resume(config: ConfigFile, job: JobName) -> None:
    """Run a job on schedule again."""
    _set_paused(config, job, paused=False)
    typer.echo(f"{job} runs on schedule again.")


def _open(config: Path, *, needs_secrets: bool = False) -> tuple[Config, Store]:
    from pipelines.config import load_config
    from pipelines.store import open_store

    settings = load_config(config, needs_secrets=needs_secrets)
    return settings, open_store(settings.service.store)


def _run(settings: Config, store: Store, job: str, arguments: dict[str, Any]) -> Run:
    from pipelines.service.logs import configure
    from pipelines.service.once import run_once

    configure(settings.service.log)
    return run_once(settings, store, job, arguments)


def _print(run: Run, *, as_json: bool) -> None:
    if as_json:
        facts = ("job", "outcome", "rows", "started_at", "ended_at", "note")
        say_json({"run": run.id, **{name: getattr(run, name) for name in facts}})
        return
    say(f"{run.job}: {run.note or run.outcome} (run {run.id})")


def _rescore(config: Path, job: str, *, as_json: bool, reason: str, **arguments: Any) -> None:
    from pipelines.store.trail import who

    settings, store = _open(config, needs_secrets=True)
    given = {name: value for name, value in arguments.items() if value}
    _print(_run(settings, store, job, given | {"actor": who(), "reason": reason}), as_json=as_json)


def _set_paused(config: Path, job: str, *, paused: bool) -> None:
    from pipelines.jobs.steering import check_job
    from pipelines.jobs.steering import set_paused as keep

    check_job(job)
    from pipelines.store.trail import who, write_down

    _, store = _open(config)
    with store.write() as session:
        keep(session, job, paused=paused)
        write_down(session, f"{'pause' if paused else 'resume'} {job}", actor=who(), now=now())
