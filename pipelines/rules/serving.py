"""The rules as scoring takes them: read once until one changes, counted by batch, switched off where they fail."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing, nullcontext
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.orm import Session

from detector.errors import DataError
from detector.schema import Schema
from pipelines.alerts.outbox.service_alerts import Trouble, report
from pipelines.config import Config
from pipelines.jobs.context import ProcessCache
from pipelines.rules.book import RuleBook
from pipelines.rules.checked import book_of
from pipelines.rules.run import RuleRun, Tally
from pipelines.rules.stored import FAILED, held_rules, in_force, last_change, note_file, set_state
from pipelines.store import Batch, Store, existing_store
from pipelines.store.rule_tables import RuleHits

MOST_TEXT = 500


def rule_book_of(
    config: Config, store: Store | None, schema: Schema, cache: ProcessCache, *, strict: bool = False
) -> RuleBook | None:
    """The rules that hold at this moment; None if there are none.

    ``strict`` is False where a rule that does not fit the columns is left out and named in ``broken``.

    Raises ``SettingError`` if ``strict`` and a rule does not fit, or if a list has the name of a column.
    """
    with nullcontext() if store is None else store.read() as session:
        latest = None if session is None else last_change(session, config)
        connection = None if session is None else session.connection()
        return rule_book_at(config, connection, schema, cache, latest=latest, strict=strict)


def rule_book_at(
    config: Config,
    connection: Connection | None,
    schema: Schema,
    cache: ProcessCache,
    *,
    latest: int | None,
    strict: bool = False,
) -> RuleBook | None:
    """The same, where ``latest`` says which change of a rule was the last."""
    token = (config.rules, config.lists, config.features, config.columns, schema, latest, strict)
    return cache.of("rules", token, lambda: _book(config, connection, schema, cache, strict=strict))


def _book(
    config: Config, connection: Connection | None, schema: Schema, cache: ProcessCache, *, strict: bool
) -> RuleBook | None:
    with nullcontext() if connection is None else Session(connection) as session:
        sections = in_force(held_rules(config, session))
    if not sections:
        return None
    return book_of(config, sections, schema, cache, strict=strict)


def begin_rules(config: Config, store: Store, schema: Schema, cache: ProcessCache, *, now: datetime) -> RuleRun | None:
    """The rules that hold now, ready for one batch of rows; None if there are none."""
    book = rule_book_of(config, store, schema, cache)
    return None if book is None else RuleRun(book, now=now)


def stored_rule_book(config: Config, schema: Schema) -> RuleBook | None:
    """The rules of the file and of the service, where there is one, for a command; None if there are none.

    Raises ``SettingError`` if a rule does not fit.
    """
    store = existing_store(config.service.store)
    with nullcontext() if store is None else closing(store):
        return rule_book_of(config, store, schema, ProcessCache(), strict=True)


def note_rules(config: Config, store: Store, *, now: datetime) -> None:
    """Put on record what the file says anew of rules, before they are applied."""
    with store.read() as session:
        if not config.rules and not last_change(session, config):
            return
    with store.write() as session:
        note_file(session, config=config, now=now)


def keep_tallies(session: Session, batch: Batch, tallies: Sequence[Tally]) -> None:
    """Write what rules came to in a batch, in the transaction of its scores; what an earlier run said is replaced."""
    session.execute(sa.delete(RuleHits).where(RuleHits.batch == batch.id))
    session.add_all(RuleHits(batch=batch.id, source=batch.source, **vars(tally)) for tally in tallies)


def switch_off(session: Session, failed: Mapping[str, str], *, config: Config, now: datetime) -> None:
    """Switch rules off that have failed, and have whoever operates the service told."""
    rules = held_rules(config, session)
    for name, why in failed.items():
        try:
            if next((rule.section.state for rule in rules if rule.name == name and not rule.clash), "off") == "off":
                continue
            set_state(session, name, "off", config=config, who="service", reason=why, now=now, what=FAILED)
        except DataError:
            continue  # somebody has taken it away meanwhile
        report(session, _trouble(name, why), config=config, now=now)


def _trouble(name: str, why: str) -> Trouble:
    why = why[:MOST_TEXT].rstrip(".")
    return Trouble(
        cause=f"rule {name}",
        label=f"the rule {name}",
        severity="high",
        text=f"The rule {name} has failed and is switched off, and scoring goes on without it: {why}",
        todo=f"Mend it, then switch it on again: detector rules set CONFIG {name} live",
        figures={"rule": name},
    )
