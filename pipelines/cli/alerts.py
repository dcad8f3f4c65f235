"""The commands ``detector alerts …``: look at alerts, answer them, silence them, try out where they go."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from detector.errors import SettingError
from pipelines.cli.program import AsJson, ConfigFile, now, say, say_json
from pipelines.cli.project import Commands

if TYPE_CHECKING:
    from pipelines.config import Config
    from pipelines.store import Store

alerts_app = Commands(
    no_args_is_help=True, help="Alerts: what was reported, to whom, and what people said.", rich_markup_mode="rich"
)

AlertId = Annotated[str, typer.Argument(metavar="ALERT", help="An alert, or the first letters of its id.")]
Who = Annotated[str | None, typer.Option(help="Who says so; by default the name of this account.")]


@alerts_app.command("list", epilog="Example: [bold]detector alerts list payments --state dead[/]")
def list_alerts(
    config: ConfigFile,
    state: Annotated[str | None, typer.Option(help="Only those waiting, held, sent, digested or dead.")] = None,
    rows: Annotated[int, typer.Option(min=1, help="How many, the latest first.")] = 20,
    targets: Annotated[bool, typer.Option("--targets", help="Show where alerts go instead.")] = False,
    precision: Annotated[bool, typer.Option("--precision", help="Show how many were right instead.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show the latest alerts, the targets, or how many alerts were right."""
    from pipelines.alerts.feedback.answers import in_all, precision_table
    from pipelines.alerts.outbox.views import alerts_table, targets_table

    settings, store = _open(config)
    with store.read() as session:
        if precision:
            found = precision_table(session, source=settings.name)
        elif targets:
            found = targets_table(session, config=settings)
        else:
            found = alerts_table(session, config=settings, state=state, most=rows)
        if as_json:
            say_json(found)
            return
        say(found)
        if precision and found.rows:
            say(in_all(session, source=settings.name))


@alerts_app.command(epilog="Example: [bold]detector alerts show payments al_3f2a91[/]")
def show(config: ConfigFile, alert: AlertId, as_json: AsJson = False) -> None:
    """Show all about one alert: reasons, deliveries, answers."""
    from pipelines.alerts.feedback.answers import find
    from pipelines.alerts.outbox.views import alert_facts, alert_text

    settings, store = _open(config)
    with store.read() as session:
        found = find(session, alert)
        if as_json:
            say_json(alert_facts(session, found, config=settings))
        else:
            say(alert_text(session, found, config=settings))


@alerts_app.command(epilog="Example: [bold]detector alerts retry payments --target slack[/]")
def retry(
    config: ConfigFile,
    alert: Annotated[str | None, typer.Option(help="Only this alert.")] = None,
    target: Annotated[str | None, typer.Option(help="Only this target; it is switched on again if it was off.")] = None,
) -> None:
    """Send again what was given up, and do not wait any longer with the rest."""
    from pipelines.alerts import deliver
    from pipelines.alerts.feedback.answers import find
    from pipelines.alerts.outbox.views import retry as again
    from pipelines.jobs.context import Context
    from pipelines.store.trail import who as account
    from pipelines.store.trail import write_down

    settings, store = _open(config, needs_secrets=True)
    moment = now()
    with store.write() as session:
        wanted = None if alert is None else find(session, alert).id
        number = again(session, now=moment, alert=wanted, target=target)
        asked = {name: value for name, value in (("alert", wanted), ("target", target)) if value}
        write_down(session, "retry alerts", actor=account(), arguments=asked | {"deliveries": number}, now=moment)
    outcome = deliver(Context(config=settings, store=store, now=moment))
    say(f"{number:,} to be sent: {outcome.note}.")


@alerts_app.command(epilog="Example: [bold]detector alerts answer payments al_3f2a91 fine --reason 'known trip'[/]")
def answer(
    config: ConfigFile,
    alert: AlertId,
    verdict: Annotated[str, typer.Argument(help="fraud (or fault, as `alerts.anomaly` says), fine, or unsure.")],
    reason: Annotated[str, typer.Option(help="Why.")] = "",
    snooze: Annotated[bool, typer.Option("--snooze", help="If fine: keep this pattern quiet for a while.")] = False,
    who: Who = None,
) -> None:
    """Say what an alert was; it is counted, and kept for training."""
    from pipelines.alerts.feedback.answers import answer as keep
    from pipelines.alerts.feedback.answers import find
    from pipelines.store.trail import who as account

    settings, store = _open(config)
    with store.write() as session:
        kept = keep(
            session,
            find(session, alert),
            verdict,
            reason=reason,
            who=who or account(),
            via="cli",
            config=settings,
            now=now(),
            snooze=snooze,
        )
        say(f"Kept: {kept.alert} is {kept.verdict}.")


@alerts_app.command(epilog="Example: [bold]detector alerts silence payments --entity card-7 --hours 8 --reason test[/]")
def silence(
    config: ConfigFile,
    alert: Annotated[str | None, typer.Option(help="What this alert is about.")] = None,
    entity: Annotated[list[str] | None, typer.Option(help="This entity; once for each column of `alerts.key`.")] = None,
    everything: Annotated[bool, typer.Option("--everything", help="All alerts.")] = False,
    pattern: Annotated[str, typer.Option(help="Only where this feature is the first reason.")] = "",
    below: Annotated[str, typer.Option(help="Only what is less severe than low, medium, high or critical.")] = "",
    hours: Annotated[float, typer.Option(min=0.01, help="How long.")] = 8.0,
    reason: Annotated[str, typer.Option(help="Why.")] = "",
    who: Who = None,
    lift: Annotated[int | None, typer.Option(help="End the silence of this number.")] = None,
    show_all: Annotated[bool, typer.Option("--list", help="Show what is silenced.")] = False,
    as_json: AsJson = False,
) -> None:
    """Keep something quiet for a while, end that, or show what is silenced."""
    from detector.decide.severity import SEVERITIES
    from pipelines.alerts.feedback.answers import find
    from pipelines.alerts.grouping import silences
    from pipelines.alerts.grouping.events import group_id
    from pipelines.alerts.outbox.views import silences_table
    from pipelines.config.masking import masks_of
    from pipelines.store.trail import who as account

    settings, store = _open(config)
    moment = now()
    if below and below not in SEVERITIES:
        raise SettingError(f"--below expected one of {', '.join(SEVERITIES)}, received {below!r}.")
    if show_all:
        with store.read() as session:
            found = silences_table(silences.current(session, source=settings.name, now=moment), config=settings)
        say_json(found) if as_json else say(found)
        return
    with store.write() as session:
        if lift is not None:
            say(f"Silence {silences.lift(session, lift, who=who or account(), now=moment).id} is over.")
            return
        if sum([alert is not None, bool(entity), everything]) != 1:
            raise SettingError("Say what to silence: --alert ALERT, --entity NAME, or --everything.")
        group = label = ""
        if alert is not None:
            about = find(session, alert)
            group, label = about.group, about.label
        elif entity:
            by, masks = settings.alerts.group_by(settings.columns), masks_of(settings)
            if len(entity) != len(by):
                raise SettingError(f"Alerts are about {', '.join(by) or 'everything'}: give --entity {len(by)} times.")
            group = group_id(settings.name, entity)
            shown = {name: masks.show(name, value) for name, value in zip(by, entity, strict=True)}
            label = ", ".join(f"{name} {value}" if len(by) > 1 else value for name, value in shown.items())
        made = silences.silence(
            session,
            source=settings.name,
            group=group,
            label=label,
            pattern=pattern,
            below=below,
            until=moment + timedelta(hours=hours),
            reason=reason,
            who=who or account(),
            now=moment,
        )
        say(f"Silence {made.id}: {label or 'everything'} until {made.until:%Y-%m-%d %H:%M} UTC.")


@alerts_app.command("test", epilog="Example: [bold]detector alerts test payments --target slack[/]")
def try_targets(
    config: ConfigFile,
    target: Annotated[str | None, typer.Option(help="Only this target.")] = None,
    as_json: AsJson = False,
) -> None:
    """Send a test alert to every target, and say whether each took it."""
    from pipelines.alerts.outbox.views import try_out
    from pipelines.config import load_config

    found = try_out(load_config(config), now=now(), only=target)
    if as_json:
        say_json([{"target": each.name, "taken": not problem, "problem": problem or None} for each, problem in found])
    else:
        for each, problem in found:
            say(f"{each.name}: {problem or 'took it'}")
    if any(problem for _, problem in found):
        raise typer.Exit(1)


def _open(config: Path, *, needs_secrets: bool = False) -> tuple[Config, Store]:
    from pipelines.config import load_config
    from pipelines.store import open_store

    settings = load_config(config, needs_secrets=needs_secrets)
    return settings, open_store(settings.service.store)
