"""The commands about rules: ``list``, ``try``, ``set`` and ``history``."""

from __future__ import annotations

import json
from contextlib import closing
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.cli.program import AsJson, ConfigFile, now, say, say_json
from pipelines.cli.project import Commands

if TYPE_CHECKING:
    from pipelines.config import Config
    from pipelines.rules.overview import RuleLine
    from pipelines.rules.stored import HeldRule

rules_app = Commands(
    no_args_is_help=True, help="Rules beside the model: see them, try them on the past.", rich_markup_mode="rich"
)


@rules_app.command("list", epilog="Example: [bold]detector rules list payments[/]")
def list_rules(config: ConfigFile, as_json: AsJson = False) -> None:
    """Show every rule with its state, what it hit, and how often people said that it was right."""
    from pipelines.config import load_config
    from pipelines.listing import Cell, Column, Listing

    settings = load_config(config, needs_secrets=False)
    lines = _lines(settings)
    if as_json:
        say_json({"rules": [line.to_dict() for line in lines]})
        return
    columns = (
        Column("rule", head=True),
        Column("state"),
        Column("action"),
        Column("today", is_number=True),
        Column("week", is_number=True),
        Column("right"),
        Column("from"),
        Column("when", is_sentence=True),
    )
    styles = {"live": "bold", "shadow": "", "off": "dim"}
    rows = [
        {
            "rule": line.rule.name,
            "state": Cell(line.rule.section.state, line.rule.section.state, styles[line.rule.section.state]),
            "action": line.rule.section.action,
            "today": line.today,
            "week": line.week,
            "right": "" if line.precision is None else f"{line.fraud} of {line.answered}",
            "from": line.rule.origin,
            "when": line.rule.section.when,
        }
        for line in lines
    ]
    say(Listing(columns, rows, empty="There are no rules. Write some under `rules:`, or in the console."))
    for line in lines:
        if problem := line.problem or line.rule.clash:
            say(f"{line.rule.name}: {problem}")
        elif line.rule.section.state == "off" and line.rule.why:
            say(f"{line.rule.name}: switched off by {line.rule.who}: {line.rule.why}")


@rules_app.command("try", epilog="Example: [bold]detector rules try payments 'amount > 500' --from 2026-11-01[/]")
def try_rule(
    config: ConfigFile,
    rule: Annotated[str, typer.Argument(metavar="RULE", help="A rule's name, or a condition in quotes.")],
    since: Annotated[str, typer.Option("--from", metavar="TIME", help="From then on, such as 2026-01-31.")] = "",
    until: Annotated[str, typer.Option("--to", metavar="TIME", help="Before then.")] = "",
    as_json: AsJson = False,
) -> None:
    """Show what a rule would have hit in the past: frauds, false alarms, money, overlap; nothing is changed."""
    from pipelines.config import load_config
    from pipelines.scoring.rule_trial import try_rule as run

    settings = load_config(config, needs_secrets=False)
    begin, end = _moment(since, "--from"), _moment(until, "--to")
    found = run(settings, rule, _held(settings), since=begin, until=end, now=now())
    if as_json:
        say_json(found.to_json())
        return
    for part in found.summary():
        say(part)


@rules_app.command(
    "set", epilog="Example: [bold]detector rules set payments abroad live --reason 'tried for a week'[/]"
)
def set_rule(
    config: ConfigFile,
    rule: Annotated[str, typer.Argument(metavar="RULE", help="A rule's name.")],
    state: Annotated[str, typer.Argument(metavar="STATE", help="off, shadow or live.")],
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why; kept with the change.")] = "",
) -> None:
    """Put a rule into another state; of a rule of the file that holds until its text there is changed."""
    from pipelines.alerts.outbox.service_alerts import report_over
    from pipelines.config import load_config
    from pipelines.rules.stored import set_state
    from pipelines.store import open_store
    from pipelines.store.trail import who

    settings = load_config(config, needs_secrets=False)
    with closing(open_store(settings.service.store)) as store, store.write() as session:
        found = set_state(session, rule, state, config=settings, who=who(), reason=reason, now=now())
        if state != "off":
            report_over(session, f"rule {rule}", config=settings, now=now())
    say(f"{found.name} is {found.section.state}.")


@rules_app.command(epilog="Example: [bold]detector rules history payments abroad[/]")
def history(
    config: ConfigFile,
    rule: Annotated[str, typer.Argument(metavar="[RULE]", help="A rule's name; by default all.")] = "",
    as_json: AsJson = False,
) -> None:
    """Show who changed which rule, when, and from what to what, the latest first."""
    from pipelines.config import load_config
    from pipelines.listing import Column, Listing
    from pipelines.rules.stored import history as changes_of
    from pipelines.rules.wording import change_in_words
    from pipelines.store import existing_store

    settings = load_config(config, needs_secrets=False)
    store, changes = existing_store(settings.service.store), []
    if store is not None:
        with closing(store), store.read() as session:
            changes = changes_of(session, config=settings, rule=rule)
            session.expunge_all()
    columns = (
        Column("at", head=True),
        Column("rule", head=True),
        Column("who"),
        Column("what"),
        Column("change", is_sentence=True),
        Column("why", is_sentence=True),
        Column("version"),
        Column("before", hidden=True),
        Column("after", hidden=True),
    )
    rows = [
        {
            "at": each.at,
            "rule": each.rule,
            "who": each.who,
            "what": each.what,
            "change": change_in_words(each.before, each.after),
            "why": each.reason,
            "version": each.version,
            "before": json.dumps(each.before, ensure_ascii=False),
            "after": json.dumps(each.after, ensure_ascii=False),
        }
        for each in changes
    ]
    found = Listing(columns, rows, empty="Nothing is on record: the service has scored nothing with rules yet.")
    if as_json:
        say_json(found)
    else:
        say(found)


def _lines(config: Config) -> list[RuleLine]:
    from pipelines.rules.overview import overview
    from pipelines.store import existing_store

    problems, store = _problems(config), existing_store(config.service.store)
    if store is None:
        return overview(config, None, now=now(), problems=problems)
    with closing(store), store.read() as session:
        return overview(config, session, now=now(), problems=problems)


def _held(config: Config) -> list[HeldRule]:
    from pipelines.rules.stored import held_rules
    from pipelines.store import existing_store

    store = existing_store(config.service.store)
    if store is None:
        return held_rules(config, None)
    with closing(store), store.read() as session:
        return held_rules(config, session)


def _problems(config: Config) -> dict[str, str]:
    """Why rules do not fit the columns; nothing where no detector is trained that has some."""
    from detector.errors import BundleError
    from detector.persist import bundle
    from pipelines.rules.checked import problems_of

    try:
        schema = bundle.load(config.bundle.resolve()).schema
    except BundleError:
        return {}
    return problems_of(config, [rule.section for rule in _held(config)], schema)


def _moment(text: str, option: str) -> datetime | None:
    from datetime import UTC

    from detector.errors import SettingError

    if not text:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise SettingError(f"{option}: {text!r} is no time. Write it as 2026-01-31 or 2026-01-31T12:00.") from None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)
