"""The commands of the service: serve, jobs, backfill, replay."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.cli.program import ConfigFile, say

if TYPE_CHECKING:
    from pipelines.config import Config
    from pipelines.store import Run, Store

JobName = Annotated[str, typer.Argument(metavar="JOB", help="score, retrain, drift, deliver or housekeeping.")]
Reason = Annotated[str, typer.Option(metavar="TEXT", help="Why, for the trail.")]

jobs_app = typer.Typer(no_args_is_help=True, help="See and steer what the service does.", rich_markup_mode="rich")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(jobs_app, name="jobs")
    app.command(epilog="Example: [bold]detector serve payments/detector.yaml[/]")(serve)
    app.command(epilog='Example: [bold]detector backfill payments --reason "history"[/]')(backfill)
    app.command(epilog='Example: [bold]detector replay payments --batch 12 --reason "new detector"[/]')(replay)


def serve(config: ConfigFile) -> None:
    """Score, learn again and look for drift on a schedule, until it is stopped."""
    settings, store = _open(config, needs_secrets=True)
    from pipelines.console.application import add_doors
    from pipelines.progress import be_quiet
    from pipelines.service.app import serve as run
    from pipelines.service.logs import configure

    be_quiet()
    configure(settings.service.log)
    run(settings, store, doors=add_doors)


def backfill(
    config: ConfigFile,
    reason: Reason = "",
    file: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="A file; without any, all that were skipped.")
    ] = None,
    since: Annotated[str | None, typer.Option(metavar="POSITION", help="Of a table: after this position.")] = None,
    until: Annotated[str | None, typer.Option(metavar="POSITION", help="Of a table: up to this position.")] = None,
) -> None:
    """Score rows that were left out; rows that have scores are left alone."""
    _rescore(config, "backfill", reason=reason, files=file, since=since, until=until)


def replay(
    config: ConfigFile,
    reason: Reason = "",
    batch: Annotated[list[int] | None, typer.Option(metavar="N", help="A batch; without any, all.")] = None,
    since: Annotated[str | None, typer.Option(metavar="TIME", help="Scored at this time or later.")] = None,
    until: Annotated[str | None, typer.Option(metavar="TIME", help="Scored before this time.")] = None,
) -> None:
    """Score batches again with the detector that serves now."""
    _rescore(config, "replay", reason=reason, batches=batch, since=since, until=until)


@jobs_app.command("list", epilog="Example: [bold]detector jobs list payments --last 20[/]")
def list_jobs(
    config: ConfigFile,
    last: Annotated[int, typer.Option(min=0, help="Runs to show.")] = 10,
) -> None:
    """Show when each job runs next, and the last runs."""
    settings, store = _open(config)
    say(_jobs_table(settings, store))
    if last:
        say(_runs_table(store, last))


@jobs_app.command("trail", epilog="Example: [bold]detector jobs trail payments --last 20[/]")
def show_trail(
    config: ConfigFile,
    last: Annotated[int, typer.Option(min=1, help="Records to show.")] = 20,
) -> None:
    """Show who had rows scored again, jobs run or left out, and detectors moved: when, and why."""
    _, store = _open(config)
    say(_trail_table(store, last))


@jobs_app.command("run", epilog="Example: [bold]detector jobs run payments score[/]")
def run_job(config: ConfigFile, job: JobName) -> None:
    """Run a job now and wait for it; an instance that serves is asked to."""
    settings, store = _open(config, needs_secrets=True)
    _print(_run(settings, store, job, {}))


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


def _print(run: Run) -> None:
    say(f"{run.job}: {run.note or run.outcome} (run {run.id})")


def _rescore(config: Path, job: str, *, reason: str, **arguments: Any) -> None:
    from pipelines.scoring.replay import who

    settings, store = _open(config, needs_secrets=True)
    given = {name: value for name, value in arguments.items() if value}
    _print(_run(settings, store, job, given | {"actor": who(), "reason": reason}))


def _set_paused(config: Path, job: str, *, paused: bool) -> None:
    from pipelines.jobs.steering import check_job
    from pipelines.jobs.steering import set_paused as keep

    check_job(job)
    _, store = _open(config)
    with store.write() as session:
        keep(session, job, paused=paused)


def _jobs_table(settings: Config, store: Store) -> object:
    import sqlalchemy as sa
    from rich.table import Table

    from pipelines.service.due_times import next_times
    from pipelines.service.scheduler import sections_of
    from pipelines.store import JobState, Run

    table = Table(title=f"Jobs of {settings.name}", title_justify="left")
    for column in ("job", "when", "next", "last run", "outcome", "rows"):
        table.add_column(column)
    times = next_times(store)
    with store.read() as session:
        paused = {state.job for state in session.scalars(sa.select(JobState).where(JobState.paused))}
        for name, section in sections_of(settings.service).items():
            last = session.scalars(sa.select(Run).where(Run.job == name).order_by(Run.id.desc()).limit(1)).first()
            due = "off" if not section.enabled else "paused" if name in paused else _shown(times.get(name))
            row = [_shown(last.started_at), last.outcome, f"{last.rows:,}"] if last is not None else ["never", "", ""]
            table.add_row(name, section.when, due, *row)
    return table


def _runs_table(store: Store, last: int) -> object:
    import sqlalchemy as sa
    from rich.table import Table
    from rich.text import Text

    from pipelines.store import Run

    table = Table(title="Last runs", title_justify="left")
    for column in ("run", "job", "why", "start", "seconds", "outcome", "rows", "note"):
        table.add_column(column, overflow="fold")
    with store.read() as session:
        for run in session.scalars(sa.select(Run).order_by(Run.id.desc()).limit(last)):
            seconds = "" if run.ended_at is None else f"{(run.ended_at - run.started_at).total_seconds():.1f}"
            shown = Text(run.error or run.note)
            start = _shown(run.started_at)
            table.add_row(str(run.id), run.job, run.trigger, start, seconds, run.outcome, f"{run.rows:,}", shown)
    return table


def _trail_table(store: Store, last: int) -> object:
    import sqlalchemy as sa
    from rich.table import Table
    from rich.text import Text

    from pipelines.store import Audit

    table = Table(title="What people had done", title_justify="left")
    for column in ("when", "who", "what", "why", "asked for", "batches", "rows"):
        table.add_column(column, overflow="fold")
    with store.read() as session:
        for trail in session.scalars(sa.select(Audit).order_by(Audit.id.desc()).limit(last)):
            arguments = ", ".join(f"{name} {value}" for name, value in trail.arguments.items())
            cells = Text(trail.reason), Text(arguments), str(trail.batches), f"{trail.rows:,}"
            table.add_row(_shown(trail.at), Text(trail.actor), trail.action, *cells)
    return table


def _shown(moment: Any) -> str:
    return "" if moment is None else moment.astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")
