"""The commands ``detector keys …``: who may ask the service, and for what."""

from __future__ import annotations

from typing import Annotated

import typer

from pipelines.cli.program import AsJson, ConfigFile, now, say, say_json

keys_app = typer.Typer(
    no_args_is_help=True, help="Keys of the API and the console: who may ask for what.", rich_markup_mode="rich"
)


@keys_app.command(epilog="Example: [bold]detector keys create payments --name ann --scope review[/]")
def create(
    config: ConfigFile,
    name: Annotated[str, typer.Option(help="Who has it; stands beside all that is done with it.")],
    scope: Annotated[list[str], typer.Option(help="score, view, review or admin; once for each.")],
    days: Annotated[float | None, typer.Option(min=0.01, help="How long it is valid; without it, for ever.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make a key and show it, once."""
    from pipelines.api import keys
    from pipelines.config import load_config
    from pipelines.store import open_store

    store = open_store(load_config(config, needs_secrets=False).service.store)
    with store.write() as session:
        made = keys.create(session, name, scope, days=days, now=now())
    if as_json:
        say_json({"key": made, "name": name, "scopes": scope, "days": days})
        return
    say(f"{made}\nKeep it now: only its hash is stored, so it cannot be shown again.")


@keys_app.command("list", epilog="Example: [bold]detector keys list payments[/]")
def list_keys(config: ConfigFile, as_json: AsJson = False) -> None:
    """Show all keys, the newest first: who has them, what they may do, and which are over."""
    from pipelines.api import keys
    from pipelines.config import load_config
    from pipelines.store import open_store

    store = open_store(load_config(config, needs_secrets=False).service.store)
    with store.read() as session:
        found = keys.keys_table(session, now=now())
    say_json(found) if as_json else say(found)


@keys_app.command(epilog="Example: [bold]detector keys revoke payments 3f2a91c04d7e[/]")
def revoke(
    config: ConfigFile, key: Annotated[str, typer.Argument(metavar="KEY", help="Its id, or the key itself.")]
) -> None:
    """Have a key open nothing any more, at once."""
    from pipelines.api import keys
    from pipelines.config import load_config
    from pipelines.store import open_store

    store = open_store(load_config(config, needs_secrets=False).service.store)
    with store.write() as session:
        gone = keys.revoke(session, key, now=now())
        say(f"{gone.id} ({gone.name}) is revoked.")
